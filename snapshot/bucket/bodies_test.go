package bucket_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"kmsfs/integration/emulator"
	"kmsfs/integration/faultproxy"
	"kmsfs/snapshot/bucket"
	"kmsfs/snapshot/bucket/buckettest"
)

func deleteBucket(name string) *s3.DeleteBucketInput { return &s3.DeleteBucketInput{Bucket: &name} }

// objects puts one that is in parts and one that is not.
func (b behind) objects(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{"whole": buckettest.Content("whole", 300_000), "parts": buckettest.Content("parts", partSize+300_000)}
	for key, content := range all {
		b.put(t, key, content)
	}
	return all
}

func aBodyThatBreaksOffIsTakenUp(t *testing.T, s *emulator.Store) {
	b := through(t, s, bucket.Options{})
	for key, content := range b.objects(t) {
		size := int64(len(content))
		for _, c := range [][2]int64{{0, -1}, {5, -1}, {5, 200_000}, {0, size}} {
			b.proxy.Set(faultproxy.Fault{Only: []string{"GetObject"}, Cut: true, Times: 3})
			b.proxy.Counts()
			want := content[c[0]:]
			if c[1] >= 0 {
				want = want[:min(c[1], int64(len(want)))]
			}
			got, err := b.read(t.Context(), key, c[0], c[1])
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %d: %d bytes, want %d, %v", key, c, len(got), len(want), err)
			}
			if n := b.proxy.Counts()["GetObject"]; n != 4 {
				t.Errorf("%s, %d: asked %d times", key, c, n)
			}
		}
	}
}

func aBodyThatEndsEarlyEndsWithAnError(t *testing.T, s *emulator.Store) {
	b := through(t, s, bucket.Options{})
	for key, content := range b.objects(t) {
		for _, c := range []struct {
			offset, length int64
			fault          faultproxy.Fault
			want           error
		}{
			{0, -1, faultproxy.Fault{Cut: true}, bucket.ErrUnavailable},
			{0, -1, faultproxy.Fault{Short: true}, bucket.ErrMismatch},
			{0, -1, faultproxy.Fault{Flip: true}, bucket.ErrMismatch},
			{0, int64(len(content)), faultproxy.Fault{Flip: true}, bucket.ErrMismatch},
			{5, -1, faultproxy.Fault{Short: true}, bucket.ErrUnavailable},
			{5, 10_000, faultproxy.Fault{Short: true}, bucket.ErrUnavailable},
		} {
			if c.fault.Cut && key == "parts" {
				continue // takes as long again
			}
			c.fault.Only = []string{"GetObject"}
			b.proxy.Set(c.fault)
			_, err := b.read(t.Context(), key, c.offset, c.length)
			b.wantError(t, err, c.want, key)
		}
		b.holds(t, key, content)
	}
}

func whatIsReplacedMeanwhileIsNotMixed(t *testing.T, s *emulator.Store) {
	b := throughOther(t, s, func(h http.Header) {
		if s.Name == "moto" { // a store that does not know it
			h.Del("If-Match")
		}
	}, bucket.Options{})
	for key, content := range b.objects(t) {
		b.proxy.Set(faultproxy.Fault{Only: []string{"GetObject"}, Cut: true, Times: 1})
		body, _, err := b.Get(t.Context(), key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		b.put(t, key, buckettest.Content("another", len(content)))
		got, err := io.ReadAll(body)
		b.wantError(t, err, bucket.ErrPrecondition, key)
		if !bytes.HasPrefix(content, got) {
			t.Errorf("%s: %d bytes of something else", key, len(got))
		}
		if _, again := body.Read(make([]byte, 1)); again != err {
			t.Errorf("%s: afterwards: %v", key, again)
		}
		body.Close()
	}
}

func anotherRangeIsNotTaken(t *testing.T, s *emulator.Store) {
	if s.Name != "moto" {
		return // which would see that the request was changed
	}
	for name, other := range map[string]string{"none": "", "shifted": "bytes=6-15", "longer": "bytes=5-15", "shorter": "bytes=5-13", "earlier": "bytes=4-14"} {
		b := throughOther(t, s, func(h http.Header) {
			if h.Get("Range") != "" {
				h.Del("Range")
				if other != "" {
					h.Set("Range", other)
				}
			}
		}, bucket.Options{})
		b.put(t, "object", buckettest.Content("range", 1000))
		_, err := b.read(t.Context(), "object", 5, 10)
		b.wantError(t, err, bucket.ErrUnavailable, "object")
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// changing reads other bytes every time.
type changing struct {
	io.ReaderAt
	reads int
}

func (c *changing) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.reads++
	if n > 0 {
		p[0] ^= byte(c.reads)
	}
	return n, err
}

func whatChangesWhileItIsSentIsNoObject(t *testing.T, s *emulator.Store) {
	if s.Name == "moto" {
		return // which compares nothing
	}
	b := through(t, s, bucket.Options{})
	_, err := b.Put(t.Context(), "object", &changing{ReaderAt: bytes.NewReader(make([]byte, 100_000))}, 100_000, bucket.PutOptions{})
	b.wantError(t, err, bucket.ErrMismatch, "object")
	_, err = b.Head(t.Context(), "object")
	b.wantError(t, err, bucket.ErrNotFound, "object")
}
