package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
	"io"
)

const (
	// NonceSize is the nonce of XAES-256-GCM in bytes: 12 that choose a derived key, 12 of that key's AES-256-GCM.
	NonceSize = 24
	// TagSize is the authentication tag in bytes.
	TagSize = 16

	prefixSize = 12 // of the nonce: the part that derives
)

// XAES seals and opens single messages with XAES-256-GCM (C2SP, c2sp.org/XAES-256-GCM). A sealed message is nonce ‖
// ciphertext ‖ tag, 40 bytes longer than the plaintext. 2^80 messages under one key keep the chance of a repeated
// nonce below 2^-32. Safe for concurrent use.
type XAES struct {
	block cipher.Block // AES-256 under the input key
	k1    [aes.BlockSize]byte
}

// NewXAES keeps nothing of k but its expansion: k may be wiped afterwards.
func NewXAES(k *Key) *XAES {
	x := &XAES{block: newAES(k.material())}
	// K1 is the CMAC subkey of NIST SP 800-38B, section 6.1: AES(0) doubled.
	x.block.Encrypt(x.k1[:], x.k1[:])
	double(&x.k1)
	return x
}

// Wipe overwrites the key; it must not be used beside or after it.
func (x *XAES) Wipe() {
	erase(x.block)
	clear(x.k1[:])
}

// derive gives the AES-256-GCM that nonces with this prefix of 12 bytes use: the counter KDF of NIST SP 800-108r1 over
// CMAC with label "X", which is one AES block per half of the key.
func (x *XAES) derive(prefix []byte) (cipher.AEAD, error) {
	var key [KeySize]byte
	for i := range key[:2] {
		m := key[i*aes.BlockSize:][:aes.BlockSize]
		m[1], m[2] = byte(i+1), 'X'
		copy(m[4:], prefix[:prefixSize])
		subtle.XORBytes(m, m, x.k1[:])
		x.block.Encrypt(m, m)
	}
	defer clear(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	defer erase(block) // the GCM has a copy
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err) // GODEBUG=fips140=only
	}
	return aead, nil
}

// Seal appends nonce ‖ ciphertext ‖ tag to dst, under a nonce of 24 bytes drawn from random. plaintext must not overlap
// the room behind dst.
func (x *XAES) Seal(dst []byte, random io.Reader, plaintext, aad []byte) ([]byte, error) {
	nonce := make([]byte, NonceSize)
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("draw nonce: %w", err)
	}
	return x.seal(dst, nonce, plaintext, aad)
}

func (x *XAES) seal(dst, nonce, plaintext, aad []byte) ([]byte, error) {
	aead, err := x.derive(nonce)
	if err != nil {
		return nil, err
	}
	defer erase(aead)
	dst = append(dst, nonce...)
	return aead.Seal(dst, nonce[prefixSize:], plaintext, aad), nil
}

// Open appends the plaintext of sealed, which is nonce ‖ ciphertext ‖ tag, to dst. Whatever does not open, a message
// of fewer than 40 bytes included, is ErrAuthentication.
func (x *XAES) Open(dst, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < NonceSize+TagSize {
		return nil, ErrAuthentication
	}
	aead, err := x.derive(sealed)
	if err != nil {
		return nil, err
	}
	defer erase(aead)
	out, err := aead.Open(dst, sealed[prefixSize:NonceSize], sealed[NonceSize:], aad)
	if err != nil {
		return nil, ErrAuthentication
	}
	return out, nil
}
