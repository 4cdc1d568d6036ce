package envelope

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"io"

	"kmsfs/kmsprovider"
)

// rawRSA wraps with an RSA key in memory. The key's name alone tells in a message which key wrapped, and the encryption
// context is not bound to the wrapped key: the message's header is to it. Specification: raw-rsa-keyring.md.
//
// The specification does not let a private key wrap, lest one be taken along to where only wrapping is done. Here it
// may, as in the official Python SDK: who has it can make the public one of it anyway.
type rawRSA struct {
	rawName
	padding rsaPadding
	public  *rsa.PublicKey
	private func() *rsa.PrivateKey // a function because no printer sees through one; nil if there is none
}

// rsaPadding is how a data key is made as long as the modulus.
type rsaPadding struct{ newHash func() hash.Hash } // OAEP with this and MGF1 of the same; nil: PKCS #1 v1.5

// minRSA is the shortest modulus, in bits. NIST SP 800-131A allows no shorter one.
const minRSA = 2048

var rsaPaddings = map[string]rsaPadding{
	"RSA-OAEP-SHA1":   {sha1.New},
	"RSA-OAEP-SHA256": {sha256.New},
	"RSA-OAEP-SHA384": {sha512.New384},
	"RSA-OAEP-SHA512": {sha512.New},
	"RSA-PKCS1":       {},
}

// wrap pads and encrypts a data key.
func (p rsaPadding) wrap(public *rsa.PublicKey, dataKey []byte) ([]byte, error) {
	if p.newHash == nil {
		//lint:ignore SA1019 the message format has it
		return rsa.EncryptPKCS1v15(rand.Reader, public, dataKey)
	}
	return rsa.EncryptOAEP(p.newHash(), rand.Reader, public, dataKey, nil)
}

// open is the inverse of wrap for a data key of size bytes.
//
// With PKCS #1 v1.5 it does not tell whether the padding was right: who learns that for messages of his choice can open
// any (Bleichenbacher's attack). A wrong one gives a random key, which takes the same time and fails where a wrong key
// does, at the header. So of several keys wrapped under this name only the first is tried.
func (p rsaPadding) open(private *rsa.PrivateKey, wrapped []byte, size int) ([]byte, error) {
	if len(wrapped) != private.Size() { // RFC 8017, 7.1.2 and 7.2.2; crypto/rsa takes shorter ones
		return nil, rsa.ErrDecryption
	}
	if p.newHash == nil {
		dataKey := make([]byte, size)
		if _, err := rand.Read(dataKey); err != nil {
			return nil, err
		}
		//lint:ignore SA1019 the message format has it
		if err := rsa.DecryptPKCS1v15SessionKey(nil, private, wrapped, dataKey); err != nil { // over the modulus
			clear(dataKey)
			return nil, err
		}
		return dataKey, nil
	}
	return rsa.DecryptOAEP(p.newHash(), nil, private, wrapped, nil)
}

func (k *rawRSA) wraps() int { return 1 }

func (k *rawRSA) OnEncrypt(_ context.Context, m *EncryptionMaterials) error {
	if err := m.drawDataKey(); err != nil {
		return err
	}
	wrapped, err := k.padding.wrap(k.public, m.DataKey)
	if err != nil {
		return fmt.Errorf("wrap data key under %s: %w", k, err)
	}
	m.Keys = append(m.Keys, EncryptedDataKey{Provider: k.namespace, Info: []byte(k.name), Ciphertext: wrapped})
	return nil
}

func (k *rawRSA) OnDecrypt(ctx context.Context, m *DecryptionMaterials, keys []EncryptedDataKey) error {
	return m.openFirst(ctx, keys, func(w EncryptedDataKey) ([]byte, error) {
		if w.Provider != k.namespace || string(w.Info) != k.name {
			return nil, nil
		}
		if k.private == nil {
			return nil, fmt.Errorf("open data key with %s: it takes the private key, and the public one was given: %w", k, kmsprovider.ErrNotUsable)
		}
		dataKey, err := k.padding.open(k.private(), w.Ciphertext, m.Suite.KeySize())
		if err != nil { // says nothing more
			return nil, fmt.Errorf("open data key with %s: %w, or another key or padding", k, kmsprovider.ErrInvalidCiphertext)
		}
		return dataKey, nil
	})
}

// Format redacts under every verb.
func (k *rawRSA) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.rawName.String()) }
