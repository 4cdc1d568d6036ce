package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"kmsfs/crypto"

	"kmsfs/snapshot/bucket"
)

// bytesAt reads bytes at offsets.
func bytesAt(b []byte) io.ReaderAt { return bytes.NewReader(b) }

// getSmall gets a whole object of at most limit bytes.
func getSmall(ctx context.Context, b bucket.Bucket, key string, limit int64) ([]byte, error) {
	body, info, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if info.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than ever is written there: %w", key, info.Size, ErrDamaged)
	}
	out := make([]byte, info.Size)
	if _, err := io.ReadFull(body, out); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return out, nil
}

// encodeSum is a SHA-256 as stores write it.
func encodeSum(sum [32]byte) string { return base64.StdEncoding.EncodeToString(sum[:]) }

// copyObject copies an object into w, and returns its SHA-256.
func copyObject(w io.Writer, r io.ReaderAt, size int64) (sum [32]byte, err error) {
	h := sha256.New()
	b := buffers.Get().(*[copySize]byte)
	defer buffers.Put(b)
	if _, err := io.CopyBuffer(io.MultiWriter(w, h), onlyReader{io.NewSectionReader(r, 0, size)}, b[:]); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
}

// headerID is the file ID that a header says.
func headerID(header []byte) (crypto.ID, error) { return crypto.HeaderFileID(header) }
