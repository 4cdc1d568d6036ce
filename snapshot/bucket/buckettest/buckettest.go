package buckettest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"kmsfs/snapshot/bucket"
)

// PartSize is the largest object that is sent as a whole, in bytes.
const PartSize = 8 << 20

// Run checks a Bucket. open returns an empty one for each check.
func Run(t *testing.T, open func(t *testing.T) bucket.Bucket) {
	for _, c := range []struct {
		name  string
		check func(*testing.T, bucket.Bucket)
	}{
		{"what is put is read, of every size", roundTrips},
		{"ranges are what was asked for", ranges},
		{"what is missing is not found", missing},
		{"a second put replaces the first", replaced},
		{"a put if absent does not replace", ifAbsent},
		{"a put if it matches replaces that alone", ifMatch},
		{"of puts if absent at once, one succeeds", ifAbsentAtOnce},
		{"lists are complete and in order", lists},
		{"deleted is gone", deletes},
		{"keys that a store may take for others are refused", badKeys},
		{"objects are put and read at once", atOnce},
		{"a body that ends early is no object", shortBody},
		{"a body that cannot be read is no object", brokenBody},
		{"nobody waits for a call that was given up", cancelled},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) { c.check(t, open(t)) })
	}
}

// Content is size bytes that are the same for the same seed, and unlike others.
func Content(seed string, size int) []byte {
	out := make([]byte, 0, size+sha256.Size)
	for i := uint64(0); len(out) < size; i++ {
		block := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(seed), i))
		out = append(out, block[:]...)
	}
	return out[:size]
}

// put makes an object, or fails the test.
func put(t *testing.T, b bucket.Bucket, key string, content []byte, o bucket.PutOptions) bucket.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)), o)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// read reads a range of an object.
func read(ctx context.Context, b bucket.Bucket, key string, offset, length int64) ([]byte, bucket.Info, error) {
	body, info, err := b.Get(ctx, key, offset, length)
	if err != nil {
		return nil, info, err
	}
	content, err := io.ReadAll(body)
	return content, info, errors.Join(err, body.Close())
}

// holds fails the test where an object has another content.
func holds(t *testing.T, b bucket.Bucket, key string, content []byte) {
	t.Helper()
	got, info, err := read(t.Context(), b, key, 0, -1)
	if err != nil || !bytes.Equal(got, content) || info.Size != int64(len(content)) {
		t.Errorf("%s: %d bytes, want %d, %+v, %v", key, len(got), len(content), info, err)
	}
}

// lacks fails the test where there is an object.
func lacks(t *testing.T, b bucket.Bucket, key string) {
	t.Helper()
	if info, err := b.Head(t.Context(), key); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("%s: %+v, %v", key, info, err)
	}
}
