package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"kmsfs/snapshot/bucket"
)

func roundTrips(t *testing.T, b bucket.Bucket) {
	for _, size := range []int{0, 1, 4096, PartSize - 1, PartSize, PartSize + 1, 2 * PartSize, 3*PartSize + 5} {
		key := fmt.Sprintf("sizes/of %d", size)
		content := Content(key, size)
		info := put(t, b, key, content, bucket.PutOptions{})
		want, err := bucket.Checksum(bytes.NewReader(content), int64(size))
		if err != nil || (info.Checksum != "" && info.Checksum != want) || info.ETag == "" || info.Key != key || info.Size != int64(size) {
			t.Errorf("put: %+v, want checksum %s, %v", info, want, err)
		}
		head, err := b.Head(t.Context(), key)
		if err != nil || head.Checksum != want || head.ETag != info.ETag || head.Size != int64(size) || head.Key != key || head.Modified.IsZero() {
			t.Errorf("head: %+v, want %+v, %v", head, info, err)
		}
		got, info, err := read(t.Context(), b, key, 0, -1)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: read %d bytes, %v", key, len(got), err)
		}
		if info.ETag != head.ETag || info.Size != head.Size || info.Key != key || info.Checksum != head.Checksum {
			t.Errorf("get: %+v, head: %+v", info, head)
		}
	}
}

func ranges(t *testing.T, b bucket.Bucket) {
	const size = PartSize + 1000
	for key, n := range map[string]int{"whole": 1000, "parts": size} {
		content := Content(key, n)
		put(t, b, key, content, bucket.PutOptions{})
		size := int64(n)
		for _, c := range [][2]int64{{0, -1}, {0, 0}, {0, 1}, {1, 1}, {0, size}, {0, size + 1}, {size - 1, 1}, {size - 1, 2}, {size - 1, -1}, {size / 2, size / 4}, {size, -1}, {size, 0}, {size, 1}, {size + 1, 1}, {size + 1, -1}} {
			want := content[min(c[0], size):]
			if c[1] >= 0 {
				want = want[:min(c[1], int64(len(want)))]
			}
			got, info, err := read(t.Context(), b, key, c[0], c[1])
			if err != nil || !bytes.Equal(got, want) || info.Size != size {
				t.Errorf("%s from %d, %d bytes: read %d, want %d, %+v, %v", key, c[0], c[1], len(got), len(want), info, err)
			}
		}
		for _, c := range [][2]int64{{-1, 1}, {0, -2}} {
			if _, _, err := b.Get(t.Context(), key, c[0], c[1]); !errors.Is(err, bucket.ErrInvalid) {
				t.Errorf("from %d, %d bytes: %v", c[0], c[1], err)
			}
		}
	}
}

func missing(t *testing.T, b bucket.Bucket) {
	_, head := b.Head(t.Context(), "not/there")
	_, _, get := b.Get(t.Context(), "not/there", 0, -1)
	_, _, ranged := b.Get(t.Context(), "not/there", 5, 5)
	_, _, empty := b.Get(t.Context(), "not/there", 5, 0)
	for i, err := range []error{head, get, ranged, empty} {
		var e *bucket.Error
		if !errors.Is(err, bucket.ErrNotFound) || !errors.As(err, &e) || !strings.HasSuffix(e.Key, "not/there") || !strings.Contains(err.Error(), e.Bucket) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func replaced(t *testing.T, b bucket.Bucket) {
	first := put(t, b, "object", Content("a", 10), bucket.PutOptions{})
	second := put(t, b, "object", Content("b", PartSize+10), bucket.PutOptions{})
	holds(t, b, "object", Content("b", PartSize+10))
	third := put(t, b, "object", Content("c", 10), bucket.PutOptions{})
	holds(t, b, "object", Content("c", 10))
	if first.ETag == second.ETag || first.ETag == third.ETag {
		t.Errorf("ETags: %s, %s, %s", first.ETag, second.ETag, third.ETag)
	}
}

func atOnce(t *testing.T, b bucket.Bucket) {
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 5 {
				key := fmt.Sprintf("folder %d/object", i)
				content := Content(fmt.Sprint(i, j), 100_000)
				if _, err := b.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)), bucket.PutOptions{}); err != nil {
					t.Error(err)
				}
				holds(t, b, key, content)
			}
		})
	}
	group.Wait()
}

func shortBody(t *testing.T, b bucket.Bucket) {
	for _, size := range []int{10, PartSize + 10} {
		content := Content("short", size)
		if info, err := b.Put(t.Context(), "object", bytes.NewReader(content), int64(size)+1, bucket.PutOptions{}); err == nil {
			t.Errorf("%d bytes: %+v", size, info)
		}
		lacks(t, b, "object")
	}
}

// broken can be read up to some place.
type broken struct {
	io.ReaderAt
	to int64
}

func (r broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > r.to {
		return 0, iotest.ErrTimeout
	}
	return r.ReaderAt.ReadAt(p, off)
}

func brokenBody(t *testing.T, b bucket.Bucket) {
	for _, size := range []int{1 << 20, 2*PartSize + 10} {
		body := broken{bytes.NewReader(Content("broken", size)), int64(size) * 2 / 3}
		if info, err := b.Put(t.Context(), "object", body, int64(size), bucket.PutOptions{}); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("%d bytes: %+v, %v", size, info, err)
		}
		lacks(t, b, "object")
	}
}

func cancelled(t *testing.T, b bucket.Bucket) {
	put(t, b, "object", Content("", 10), bucket.PutOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, head := b.Head(ctx, "object")
	_, _, get := b.Get(ctx, "object", 0, -1)
	_, whole := b.Put(ctx, "other", bytes.NewReader(Content("", 10)), 10, bucket.PutOptions{})
	_, parts := b.Put(ctx, "other", bytes.NewReader(Content("", PartSize+1)), PartSize+1, bucket.PutOptions{})
	var list error
	for _, err := range b.List(ctx, "") {
		list = err
	}
	for i, err := range []error{head, get, whole, parts, list, b.Delete(ctx, "object")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%d: %v", i, err)
		}
	}
	lacks(t, b, "other")
	holds(t, b, "object", Content("", 10))
}
