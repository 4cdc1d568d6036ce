package envelope

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math"
)

// The layout of a body, all numbers big-endian (message-body.md):
//
//	frame             final frame                   not framed
//	sequence number 4 FFFFFFFF                 4
//	                  sequence number          4
//	IV             12 IV                      12    IV                12
//	                  length of the ciphertext 4    length             8
//	ciphertext        ciphertext                    ciphertext
//	tag            16 tag                     16    tag               16
//
// Frames are numbered from 1. Only the final frame may be shorter than the header says, down to nothing.
const (
	finalMark   = math.MaxUint32
	maxSequence = math.MaxUint32 // of the final frame; others would be taken for it

	frameHead     = 4 + nonceSize
	finalHead     = 4 + 4 + nonceSize + 4
	nonFramedHead = nonceSize + 8
	headroom      = finalHead - frameHead

	maxNonFramed = 1<<36 - 32 // bytes that GCM can encrypt at once
)

// What a tag is for: the second part of its associated data (message-body-aad.md).
const (
	purposeFrame     = "AWSKMSEncryptionClient Frame"
	purposeFinal     = "AWSKMSEncryptionClient Final Frame"
	purposeNonFramed = "AWSKMSEncryptionClient Single Block"
)

func appendBodyAAD(b, messageID []byte, purpose string, sequence uint32, length int) []byte {
	b = append(b, messageID...)
	b = append(b, purpose...)
	b = binary.BigEndian.AppendUint32(b, sequence)
	return binary.BigEndian.AppendUint64(b, uint64(length))
}

// frames seals and opens the frames of one message, several batches at a time.
type frames struct {
	aead      cipher.AEAD
	messageID []byte
	length    int // of the plaintext of each but the last
}

// wireLength is the size of a frame that is not the last.
func (f *frames) wireLength() int { return frameHead + f.length + tagSize }

// batchFrames is how many such frames make a batch.
func (f *frames) batchFrames() int { return max(1, batchSize/f.length) }

// seal encrypts in place. b.wire has every plaintext where its ciphertext is to be, and room for heads and tags. IVs are
// the sequence numbers: under a key that no other message has, none comes twice. The header's is 0.
func (f *frames) seal(b *batch) error {
	if b.final {
		n := len(b.wire) - finalHead - tagSize
		binary.BigEndian.PutUint32(b.wire, finalMark)
		binary.BigEndian.PutUint32(b.wire[4:], b.first)
		f.setNonce(b, b.first)
		copy(b.wire[8:], b.nonce[:])
		binary.BigEndian.PutUint32(b.wire[8+nonceSize:], uint32(n))
		b.aad = appendBodyAAD(b.aad[:0], f.messageID, purposeFinal, b.first, n)
		f.aead.Seal(b.wire[finalHead:finalHead], b.nonce[:], b.wire[finalHead:finalHead+n], b.aad)
		return nil
	}
	for i := range b.frames {
		sequence := b.first + uint32(i)
		frame := b.wire[i*f.wireLength():][:f.wireLength()]
		binary.BigEndian.PutUint32(frame, sequence)
		f.setNonce(b, sequence)
		copy(frame[4:], b.nonce[:])
		b.aad = appendBodyAAD(b.aad[:0], f.messageID, purposeFrame, sequence, f.length)
		f.aead.Seal(frame[frameHead:frameHead], b.nonce[:], frame[frameHead:frameHead+f.length], b.aad)
	}
	return nil
}

func (f *frames) setNonce(b *batch, sequence uint32) {
	clear(b.nonce[:])
	binary.BigEndian.PutUint32(b.nonce[nonceSize-4:], sequence)
}

// open decrypts in place, and moves the plaintexts together: b.plain has those of the frames up to the first that is
// not authentic. IVs are those in the frames, since older SDKs drew them at random.
func (f *frames) open(b *batch) error {
	head, size, purpose := frameHead, f.wireLength(), purposeFrame
	if b.final {
		head, size, purpose = finalHead, len(b.wire), purposeFinal
	}
	for i := range b.frames {
		sequence := b.first + uint32(i)
		frame := b.wire[i*size:][:size]
		copy(b.nonce[:], frame[4:])
		if b.final {
			copy(b.nonce[:], frame[8:])
		}
		sealed := frame[head:]
		b.aad = appendBodyAAD(b.aad[:0], f.messageID, purpose, sequence, len(sealed)-tagSize)
		plain, err := f.aead.Open(sealed[:0], b.nonce[:], sealed, b.aad)
		if err != nil {
			return fmt.Errorf("frame %d: tag: %w", sequence, ErrNotAuthentic)
		}
		if i == 0 {
			b.plain = plain
		} else {
			b.plain = append(b.plain, plain...) // within wire, to the left: it never reaches a frame to come
		}
	}
	return nil
}
