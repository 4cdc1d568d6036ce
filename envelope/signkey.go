package envelope

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"kmsfs/kmsprovider"
)

// publicKeyContext is the context key of a signed message whose value is the key that verifies it: a compressed point of
// the suite's curve (SEC 1, 2.3.3), in base64.
const publicKeyContext = reservedPrefix + "public-key"

// newSigningKey draws the key of one message and puts its public half into c.
func newSigningKey(s Suite, c kmsprovider.Context) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(s.Curve(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	compressed := point[:1+len(point)/2]
	compressed[0] = 2 + point[len(point)-1]&1
	c[publicKeyContext] = base64.StdEncoding.EncodeToString(compressed)
	return key, nil
}

// verifyKey is the key that a message stores for its signature, nil if its suite has none. Errors: ErrMalformed.
func verifyKey(s Suite, stored kmsprovider.Context) (*ecdsa.PublicKey, error) {
	encoded, ok := stored[publicKeyContext]
	if ok != s.Signed() {
		if ok {
			return nil, malformed(publicKeyContext, "is there, and messages of %s are not signed", s)
		}
		return nil, malformed(publicKeyContext, "is missing, and messages of %s are signed", s)
	}
	if !ok {
		return nil, nil
	}
	compressed, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, malformed(publicKeyContext, "%q is not base64", shorten(encoded))
	}
	x, y := elliptic.UnmarshalCompressed(s.Curve(), compressed)
	if x == nil {
		return nil, malformed(publicKeyContext, "%q is no compressed point of %s", shorten(encoded), s.Curve().Params().Name)
	}
	half := (s.Curve().Params().BitSize + 7) / 8
	point := make([]byte, 1+2*half)
	point[0] = 4
	x.FillBytes(point[1 : 1+half])
	y.FillBytes(point[1+half:])
	key, err := ecdsa.ParseUncompressedPublicKey(s.Curve(), point)
	if err != nil {
		return nil, malformed(publicKeyContext, "%v", err)
	}
	return key, nil
}
