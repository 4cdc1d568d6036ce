package envelope

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"testing"

	"kmsfs/kmsprovider"
)

// reference writes a message of any suite and shape in the plainest way, to compare the codec with, and can write
// wrong ones too.
type reference struct {
	suite       Suite
	context     kmsprovider.Context // stored; the public key is added
	required    kmsprovider.Context // authenticated only
	frameLength int                 // 0: not framed
	fullFinal   bool                // a final frame as long as the others where it fits
	plaintext   []byte
	randomIVs   bool

	rawContext []byte         // in place of context and public key, if not nil
	frames     func([][]byte) // may change the frames before they are joined
	keys       []EncryptedDataKey
}

var referenceKey = bytes.Repeat([]byte{7}, 32)

// fixedKeyring has referenceKey for the data keys of provider "test".
type fixedKeyring struct{}

func (fixedKeyring) OnEncrypt(_ context.Context, m *EncryptionMaterials) error {
	if m.DataKey == nil {
		m.DataKey = bytes.Clone(referenceKey[:m.Suite.KeySize()])
	}
	m.Keys = append(m.Keys, fixedEDK)
	return nil
}

func (fixedKeyring) OnDecrypt(_ context.Context, m *DecryptionMaterials, keys []EncryptedDataKey) error {
	for _, k := range keys {
		if k.Provider == fixedEDK.Provider {
			m.DataKey = bytes.Clone(referenceKey[:m.Suite.KeySize()])
			return nil
		}
	}
	return ErrNoKey
}

var fixedEDK = EncryptedDataKey{Provider: "test", Info: []byte("fixed"), Ciphertext: []byte("wrapped")}

// message is the whole message.
func (r reference) message(t testing.TB) []byte {
	t.Helper()
	info := suites[r.suite]
	version := 1
	if r.suite.Commits() {
		version = 2
	}
	id := make([]byte, 16*version)
	rand.Read(id)
	var signer *ecdsa.PrivateKey
	ec := maps.Clone(r.context)
	if info.curve != nil {
		var err error
		if signer, err = ecdsa.GenerateKey(info.curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
		if ec == nil {
			ec = kmsprovider.Context{}
		}
		point, err := signer.PublicKey.Bytes() // uncompressed
		if err != nil {
			t.Fatal(err)
		}
		size := (len(point) - 1) / 2
		compressed := append([]byte{2 + point[len(point)-1]&1}, point[1:1+size]...)
		ec["aws-crypto-public-key"] = base64.StdEncoding.EncodeToString(compressed)
	}
	rawContext := r.rawContext
	if rawContext == nil {
		rawContext = mustSerialize(t, ec)
	}
	keys := r.keys
	if keys == nil {
		keys = []EncryptedDataKey{fixedEDK}
	}

	dataKey := referenceKey[:info.keySize]
	key, commitment := dataKey, []byte(nil)
	suiteID := binary.BigEndian.AppendUint16(nil, uint16(r.suite))
	switch {
	case version == 2:
		key = refHKDF(sha512.New, dataKey, id, append(suiteID, "DERIVEKEY"...), 32)
		commitment = refHKDF(sha512.New, dataKey, id, []byte("COMMITKEY"), 32)
	case info.kdf == kdfSHA256:
		key = refHKDF(sha256.New, dataKey, make([]byte, 32), append(suiteID, id...), info.keySize)
	case info.kdf == kdfSHA384:
		key = refHKDF(sha512.New384, dataKey, make([]byte, 48), append(suiteID, id...), info.keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	iv := func(sequence int) []byte {
		b := make([]byte, 12)
		binary.BigEndian.PutUint32(b[8:], uint32(sequence))
		if r.randomIVs {
			rand.Read(b)
		}
		return b
	}

	body := []byte{byte(version)}
	if version == 1 {
		body = append(body, 0x80)
	}
	body = append(body, suiteID[:2]...)
	body = append(body, id...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(rawContext)))
	body = append(body, rawContext...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(keys)))
	for _, k := range keys {
		for _, part := range [][]byte{[]byte(k.Provider), k.Info, k.Ciphertext} {
			body = binary.BigEndian.AppendUint16(body, uint16(len(part)))
			body = append(body, part...)
		}
	}
	if r.frameLength > 0 {
		body = append(body, 2)
	} else {
		body = append(body, 1)
	}
	if version == 1 {
		body = append(body, 0, 0, 0, 0, 12)
	}
	body = binary.BigEndian.AppendUint32(body, uint32(r.frameLength))
	body = append(body, commitment...)

	message := bytes.Clone(body)
	headerIV := iv(0)
	if version == 2 {
		headerIV = make([]byte, 12)
	} else {
		message = append(message, headerIV...)
	}
	message = gcm.Seal(message, headerIV, nil, append(bytes.Clone(body), mustSerialize(t, r.required)...))

	parts := r.parts(gcm, id, iv)
	if r.frames != nil {
		r.frames(parts)
	}
	message = append(message, bytes.Join(parts, nil)...)
	if signer != nil {
		h := sha512.New384()
		if info.curve.Params().BitSize == 256 {
			h = sha256.New()
		}
		h.Write(message)
		signature, err := ecdsa.SignASN1(rand.Reader, signer, h.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		message = binary.BigEndian.AppendUint16(message, uint16(len(signature)))
		message = append(message, signature...)
	}
	return message
}

// parts are the frames, or the one body that is not framed.
func (r reference) parts(gcm cipher.AEAD, id []byte, iv func(int) []byte) (parts [][]byte) {
	seal := func(nonce, plaintext []byte, purpose string, sequence int) []byte {
		aad := fmt.Appendf(nil, "%s%s", id, purpose)
		aad = binary.BigEndian.AppendUint32(aad, uint32(sequence))
		aad = binary.BigEndian.AppendUint64(aad, uint64(len(plaintext)))
		return gcm.Seal(nil, nonce, plaintext, aad)
	}
	if r.frameLength == 0 {
		nonce := iv(1)
		wire := binary.BigEndian.AppendUint64(bytes.Clone(nonce), uint64(len(r.plaintext)))
		return [][]byte{append(wire, seal(nonce, r.plaintext, "AWSKMSEncryptionClient Single Block", 1)...)}
	}
	rest := r.plaintext
	for sequence := 1; ; sequence++ {
		nonce := iv(sequence)
		if len(rest) < r.frameLength || r.fullFinal && len(rest) == r.frameLength {
			wire := []byte{0xff, 0xff, 0xff, 0xff}
			wire = binary.BigEndian.AppendUint32(wire, uint32(sequence))
			wire = append(wire, nonce...)
			wire = binary.BigEndian.AppendUint32(wire, uint32(len(rest)))
			return append(parts, append(wire, seal(nonce, rest, "AWSKMSEncryptionClient Final Frame", sequence)...))
		}
		wire := binary.BigEndian.AppendUint32(nil, uint32(sequence))
		wire = append(wire, nonce...)
		parts = append(parts, append(wire, seal(nonce, rest[:r.frameLength], "AWSKMSEncryptionClient Frame", sequence)...))
		rest = rest[r.frameLength:]
	}
}

// refHKDF is RFC 5869 for outputs of one or two hashes.
func refHKDF(h func() hash.Hash, secret, salt, info []byte, size int) []byte {
	mac := func(key []byte, parts ...[]byte) []byte {
		m := hmac.New(h, key)
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil)
	}
	root := mac(salt, secret)
	one := mac(root, info, []byte{1})
	return append(one, mac(root, one, info, []byte{2})...)[:size]
}

func mustSerialize(t testing.TB, c kmsprovider.Context) []byte {
	t.Helper()
	b, err := serializeContext(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// allowAll is for suites that do not commit, too.
func allowAll() DecryptOptions {
	return DecryptOptions{Keyring: fixedKeyring{}, Policy: RequireEncryptAllowDecrypt}
}

// decrypt returns what was written to the destination also beside an error.
func decrypt(message []byte, o DecryptOptions) ([]byte, *Header, error) {
	var out bytes.Buffer
	h, err := Decrypt(context.Background(), &out, bytes.NewReader(message), o)
	return out.Bytes(), h, err
}

// text is n bytes that differ from place to place.
func text(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = binary.BigEndian.AppendUint64(b, uint64(i)*0x9e3779b97f4a7c15)
	}
	return b[:n]
}
