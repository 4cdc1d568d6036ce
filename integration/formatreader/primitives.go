package formatreader

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

var little = binary.LittleEndian

// id is an ID of the format; its text is 32 hex digits.
type id [16]byte

func (i id) String() string { return fmt.Sprintf("%x", i[:]) }

// derive is an arrow of the picture of keys.
func derive(key []byte, label string, ids ...id) []byte { return deriveSize(key, 32, label, ids...) }

func deriveSize(key []byte, size int, label string, ids ...id) []byte {
	info := "kmsfs v1 " + label
	for _, i := range ids {
		info += string(i[:])
	}
	out, err := hkdf.Expand(sha256.New, key, info, size)
	if err != nil {
		panic(err) // a size that HKDF does not give
	}
	return out
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

var errOpen = errors.New("does not open")

// open is XAES-256-GCM by its specification, of nonce 24 ‖ ciphertext ‖ tag 16.
func open(key, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < 40 {
		return nil, errOpen
	}
	block := cipherOf(key)
	// L = AES(0); K1 is L shifted by a bit, with 0x87 if one was carried out.
	k1 := make([]byte, 16)
	block.Encrypt(k1, k1)
	carry := k1[0] >> 7
	for i := range 15 {
		k1[i] = k1[i]<<1 | k1[i+1]>>7
	}
	k1[15] = k1[15]<<1 ^ 0x87*carry
	// Kx = AES(M1 ⊕ K1) ‖ AES(M2 ⊕ K1), Mi = 0 ‖ i ‖ "X" ‖ 0 ‖ the nonce's first 12 bytes.
	var derived []byte
	for i := range byte(2) {
		m := append([]byte{0, i + 1, 'X', 0}, sealed[:12]...)
		subtle.XORBytes(m, m, k1)
		block.Encrypt(m, m)
		derived = append(derived, m...)
	}
	gcm, err := cipher.NewGCM(cipherOf(derived))
	if err != nil {
		return nil, err
	}
	out, err := gcm.Open(nil, sealed[12:24], sealed[24:], aad)
	if err != nil {
		return nil, errOpen
	}
	return out, nil
}

func cipherOf(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // a key of a wrong length
	}
	return block
}

// unbase64 reads base64url without padding, which must be what it encodes to again.
func unbase64(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil && base64.RawURLEncoding.EncodeToString(b) != s {
		err = fmt.Errorf("base64url %q is not canonical", s)
	}
	return b, err
}

// canonical is the encryption context as providers of kmsfs's own authenticate it.
func canonical(context map[string]string) []byte {
	var keys []string
	for k := range context {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := little.AppendUint32(nil, uint32(len(keys)))
	for _, k := range keys {
		out = append(out, lengthened(k, context[k])...)
	}
	return out
}

// lengthened is strings, each after its length, u32.
func lengthened(parts ...string) (out []byte) {
	for _, p := range parts {
		out = append(little.AppendUint32(out, uint32(len(p))), p...)
	}
	return out
}

func isZero(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }
