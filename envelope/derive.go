package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
)

// deriveKeys returns the content key of a message, Suite.KeySize() bytes that the caller wipes, and what commits to the
// data key, 32 bytes or nil. Specification: transitive-requirements.md, HKDF.
func deriveKeys(s Suite, messageID, dataKey []byte) (contentKey, commitment []byte, err error) {
	if len(dataKey) != s.KeySize() {
		return nil, nil, fmt.Errorf("derive keys: data key of %d bytes, %s wants %d", len(dataKey), s, s.KeySize())
	}
	id := string(binary.BigEndian.AppendUint16(nil, uint16(s)))
	switch suites[s].kdf {
	case kdfNone:
		return append([]byte(nil), dataKey...), nil, nil
	case kdfSHA256:
		contentKey, err = hkdf.Key(sha256.New, dataKey, nil, id+string(messageID), s.KeySize())
	case kdfSHA384:
		contentKey, err = hkdf.Key(sha512.New384, dataKey, nil, id+string(messageID), s.KeySize())
	case kdfSHA512:
		var root []byte
		if root, err = hkdf.Extract(sha512.New, dataKey, messageID); err != nil {
			break
		}
		defer clear(root)
		if commitment, err = hkdf.Expand(sha512.New, root, "COMMITKEY", commitmentSize); err != nil {
			break
		}
		contentKey, err = hkdf.Expand(sha512.New, root, id+"DERIVEKEY", s.KeySize())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("derive keys: %w", err)
	}
	return contentKey, commitment, nil
}

// openHeader checks the commitment and the tag of a header, and returns the cipher of the body. required is the
// serialized context that is authenticated but not stored. ErrNotAuthentic.
func openHeader(h *Header, dataKey, required []byte) (cipher.Block, cipher.AEAD, error) {
	contentKey, commitment, err := deriveKeys(h.Suite, h.MessageID, dataKey)
	if err != nil {
		return nil, nil, err
	}
	defer clear(contentKey)
	if h.Suite.Commits() && subtle.ConstantTimeCompare(commitment, h.Commitment) != 1 {
		return nil, nil, fmt.Errorf("commitment: this data key is not the one of the message: %w", ErrNotAuthentic)
	}
	block, aead, err := newCipher(contentKey)
	if err != nil {
		return nil, nil, err
	}
	if _, err := aead.Open(nil, h.IV, h.Tag, headerAAD(h, required)); err != nil {
		return nil, nil, fmt.Errorf("header tag: wrong for this header and encryption context: %w", ErrNotAuthentic)
	}
	return block, aead, nil
}

// sealHeader sets the commitment, Body, IV and Tag of a version 2 header, and returns the cipher of the body.
func sealHeader(h *Header, dataKey, required []byte) (cipher.AEAD, error) {
	contentKey, commitment, err := deriveKeys(h.Suite, h.MessageID, dataKey)
	if err != nil {
		return nil, err
	}
	defer clear(contentKey)
	h.Commitment = commitment
	if h.Body, err = h.marshalBody(); err != nil {
		return nil, err
	}
	_, aead, err := newCipher(contentKey)
	if err != nil {
		return nil, err
	}
	h.IV = make([]byte, nonceSize)
	h.Tag = aead.Seal(nil, h.IV, nil, headerAAD(h, required))
	return aead, nil
}

func headerAAD(h *Header, required []byte) []byte {
	return append(h.Body[:len(h.Body):len(h.Body)], required...)
}

// newCipher copies the key into a schedule that cannot be wiped; it goes with the garbage.
func newCipher(key []byte) (cipher.Block, cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, nil, fmt.Errorf("make cipher: %w", err)
	}
	return block, aead, nil
}

// signatureHash makes the hash that is signed, nil for an unsigned suite.
func (s Suite) signatureHash() hash.Hash {
	switch {
	case !s.Signed():
		return nil
	case s.Curve().Params().BitSize == 256:
		return sha256.New()
	}
	return sha512.New384()
}
