package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"kmsfs/crypto"
)

// point is a place in the log: after a line.
type point struct {
	sequence uint64 // of that line
	end      int64  // bytes of the log up to there
	mac      mac    // of that line
}

// head is what the head file says.
type head struct {
	tip    point
	synced point    // what surely is on disk
	boot   [16]byte // of the machine, when tip was written
}

// The layout of the head file: "kmsfsaud", tip (48 bytes), synced (48), boot
// (16), MAC (32). Integers are little-endian.
const (
	headMagic = "kmsfsaud"
	pointSize = 8 + 8 + 32
	headSize  = len(headMagic) + 2*pointSize + 16 + sha256.Size
)

func (h head) encode(key *crypto.Key) []byte {
	b := make([]byte, 0, headSize)
	b = append(b, headMagic...)
	b = h.tip.append(b)
	b = h.synced.append(b)
	b = append(b, h.boot[:]...)
	m := sum(key, labelHead, b)
	return append(b, m[:]...)
}

func (p point) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, p.sequence)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.end))
	return append(b, p.mac[:]...)
}

func parsePoint(b []byte) point {
	return point{binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:])), mac(b[16:48])}
}

// decodeHead reads the bytes of a head file; ok is false for one that the key's
// holder did not write.
func decodeHead(key *crypto.Key, b []byte) (h head, ok bool) {
	if len(b) != headSize || string(b[:len(headMagic)]) != headMagic {
		return head{}, false
	}
	m := sum(key, labelHead, b[:headSize-sha256.Size])
	if !hmac.Equal(m[:], b[headSize-sha256.Size:]) {
		return head{}, false
	}
	b = b[len(headMagic):]
	h.tip, h.synced = parsePoint(b), parsePoint(b[pointSize:])
	copy(h.boot[:], b[2*pointSize:])
	return h, true
}

// readHead returns what the head file says. ok is false if it is empty, or not
// of this key.
func readHead(f *os.File, key *crypto.Key) (h head, ok bool, err error) {
	b := make([]byte, headSize+1)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return head{}, false, fmt.Errorf("read head: %w", err)
	}
	h, ok = decodeHead(key, b[:n])
	return h, ok, nil
}
