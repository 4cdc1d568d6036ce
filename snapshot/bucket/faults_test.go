package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"kmsfs/integration/emulator"
	"kmsfs/integration/faultproxy"
	"kmsfs/snapshot/bucket"
	"kmsfs/snapshot/bucket/buckettest"
)

const partSize = buckettest.PartSize

// behind is a bucket that is reached through a proxy.
type behind struct {
	bucket.Bucket
	proxy *faultproxy.Proxy
	store *emulator.Store
	name  string // the bucket's
}

func through(t *testing.T, s *emulator.Store, o bucket.Options) behind {
	t.Helper()
	return throughOther(t, s, func(http.Header) {}, o)
}

// throughOther changes the headers of requests on their way; moto does not look
// at signatures.
func throughOther(t *testing.T, s *emulator.Store, change func(http.Header), o bucket.Options) behind {
	t.Helper()
	next := faultproxy.To(t, s.URL)
	other := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { change(r.Header); next.ServeHTTP(w, r) })
	b := behind{proxy: faultproxy.NewS3(t, other), store: s, name: s.CreateBucket(t)}
	b.Bucket = open(t, s, b.proxy.URL, b.name, o)
	b.proxy.Counts()
	return b
}

func (b behind) put(t *testing.T, key string, content []byte) bucket.Info {
	t.Helper()
	info, err := b.try(t, key, content, bucket.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func (b behind) try(t *testing.T, key string, content []byte, o bucket.PutOptions) (bucket.Info, error) {
	t.Helper()
	return b.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)), o)
}

func (b behind) read(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	body, _, err := b.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// holds looks at what is there with no fault.
func (b behind) holds(t *testing.T, key string, content []byte) {
	t.Helper()
	b.proxy.Set(faultproxy.None)
	if got, err := b.read(t.Context(), key, 0, -1); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%s: %d bytes, want %d, %v", key, len(got), len(content), err)
	}
}

// wantError is an error of that cause, and no other, that names bucket and key.
func (b behind) wantError(t *testing.T, err, cause error, key string) {
	t.Helper()
	for _, sentinel := range []error{
		bucket.ErrNotFound, bucket.ErrPrecondition, bucket.ErrNoBucket, bucket.ErrAccessDenied, bucket.ErrExpiredCredentials,
		bucket.ErrThrottled, bucket.ErrUnavailable, bucket.ErrMismatch, bucket.ErrInvalid,
	} {
		if errors.Is(err, sentinel) != (sentinel == cause) {
			t.Errorf("%s: want %v, it is: %v", key, cause, err)
			return
		}
	}
	if !strings.Contains(err.Error(), b.name) || !strings.Contains(err.Error(), key) {
		t.Errorf("%s is not named: %v", key, err)
	}
}

// operations is every call of a Bucket, with the request that can fail.
func (b behind) operations(t *testing.T) map[string]func() error {
	b.put(t, "there", buckettest.Content("there", 1000))
	large := buckettest.Content("large", partSize+1)
	return map[string]func() error{
		"HeadObject":    func() error { _, err := b.Head(t.Context(), "there"); return err },
		"GetObject":     func() error { _, err := b.read(t.Context(), "there", 0, -1); return err },
		"PutObject":     func() error { _, err := b.try(t, "there", []byte("new"), bucket.PutOptions{}); return err },
		"DeleteObjects": func() error { return b.Delete(t.Context(), "gone") },
		"ListObjectsV2": func() error {
			for _, err := range b.List(t.Context(), "there") {
				return err
			}
			return nil
		},
		"ListMultipartUploads":    func() error { _, err := b.try(t, "there", large, bucket.PutOptions{}); return err },
		"CreateMultipartUpload":   func() error { _, err := b.try(t, "there", large, bucket.PutOptions{}); return err },
		"UploadPart":              func() error { _, err := b.try(t, "there", large, bucket.PutOptions{}); return err },
		"CompleteMultipartUpload": func() error { _, err := b.try(t, "there", large, bucket.PutOptions{}); return err },
	}
}

func whatPassesIsTriedAgain(t *testing.T, s *emulator.Store) {
	b := through(t, s, bucket.Options{})
	faults := []faultproxy.Fault{
		{Status: 503, Code: "SlowDown"}, {Status: 500, Code: "InternalError"}, {Status: 502}, {Status: 429}, {Lost: true},
		{Status: 409, Code: "ConditionalRequestConflict"}, {Status: 400, Code: "RequestTimeout"},
	}
	calls := b.operations(t)
	// All of them with each is a long time. In this order HEAD, whose answers have no
	// body and so no code, gets a fault that is none of codes.
	for i, operation := range slices.Sorted(maps.Keys(calls)) {
		fault, call := faults[i%len(faults)], calls[operation]
		fault.Only, fault.Times = []string{operation}, 1
		b.proxy.Set(fault)
		b.proxy.Counts()
		if err := call(); err != nil {
			t.Errorf("%s, %+v: %v", operation, fault, err)
		}
		if n := b.proxy.Counts()[operation]; n < 2 {
			t.Errorf("%s, %+v: asked %d times", operation, fault, n)
		}
	}
}

func whatStaysIsNamed(t *testing.T, s *emulator.Store) {
	t.Setenv("AWS_MAX_ATTEMPTS", "2")
	b := behind{store: s}
	b.name = s.CreateBucket(t)
	b.proxy = faultproxy.NewS3(t, faultproxy.To(t, s.URL))
	env := s.Environment(b.proxy.URL)
	env["AWS_MAX_ATTEMPTS"] = "2"
	for name, value := range env {
		t.Setenv(name, value)
	}
	var err error
	if b.Bucket, err = bucket.Open(t.Context(), "s3://"+b.name, bucket.Options{}); err != nil {
		t.Fatal(err)
	}
	faults := []struct {
		fault faultproxy.Fault
		want  error
		asked int
	}{
		{faultproxy.Fault{Status: 503, Code: "SlowDown"}, bucket.ErrThrottled, 2},
		{faultproxy.Fault{Status: 500, Code: "InternalError"}, bucket.ErrUnavailable, 2},
		{faultproxy.Fault{Status: 502}, bucket.ErrUnavailable, 2},
		{faultproxy.Fault{Status: 429}, bucket.ErrThrottled, 2},
		{faultproxy.Fault{Lost: true}, bucket.ErrUnavailable, 2},
		{faultproxy.Fault{Status: 403, Code: "AccessDenied"}, bucket.ErrAccessDenied, 1},
		{faultproxy.Fault{Status: 403, Code: "SignatureDoesNotMatch"}, bucket.ErrAccessDenied, 1},
		{faultproxy.Fault{Status: 400, Code: "ExpiredToken"}, bucket.ErrExpiredCredentials, 2}, // with new credentials
		{faultproxy.Fault{Status: 404, Code: "NoSuchBucket"}, bucket.ErrNoBucket, 1},
		{faultproxy.Fault{Status: 400, Code: "BadDigest"}, bucket.ErrMismatch, 1},
		{faultproxy.Fault{Status: 501, Code: "NotImplemented"}, bucket.ErrInvalid, 1},
		{faultproxy.Fault{Status: 418, Code: "Teapot"}, bucket.ErrInvalid, 1},
	}
	for operation, call := range b.operations(t) {
		for i, c := range faults {
			switch {
			case operation == "HeadObject" && c.fault.Status != 0: // see below
				continue
			case operation == "ListMultipartUploads" && (c.want == bucket.ErrAccessDenied || c.want == bucket.ErrInvalid):
				continue // then there is none to resume
			case c.asked == 2 && operation != "PutObject" && i > 1: // these take time
				continue
			}
			c.fault.Only = []string{operation}
			if _, err := b.Bucket.(bucket.Sweeper).Sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err) // nothing is to be resumed
			}
			b.proxy.Set(c.fault)
			b.proxy.Counts()
			key := "there"
			if operation == "DeleteObjects" {
				key = ""
			}
			b.wantError(t, call(), c.want, key)
			n := b.proxy.Counts()[operation]
			if operation == "UploadPart" { // two at a time
				n = min(n, c.asked)
			}
			if n != c.asked {
				t.Errorf("%s, %+v: asked %d times", operation, c.fault, n)
			}
			b.proxy.Set(faultproxy.None)
		}
	}
	// The answer to a HEAD says nothing more, so another is asked.
	head := b.operations(t)["HeadObject"]
	for _, c := range []struct {
		fault faultproxy.Fault
		want  error
	}{
		{faultproxy.Fault{Only: []string{"HeadObject", "ListObjectsV2"}, Status: 400, Code: "ExpiredToken"}, bucket.ErrExpiredCredentials},
		{faultproxy.Fault{Only: []string{"HeadObject", "ListObjectsV2"}, Status: 403, Code: "AccessDenied"}, bucket.ErrAccessDenied},
		{faultproxy.Fault{Only: []string{"HeadObject"}, Status: 403}, bucket.ErrAccessDenied},
		{faultproxy.Fault{Only: []string{"HeadObject"}, Status: 400, Times: 1}, nil},
	} {
		b.proxy.Set(c.fault)
		if err := head(); c.want != nil {
			b.wantError(t, err, c.want, "there")
		} else if err != nil {
			t.Error(err)
		}
		b.proxy.Set(faultproxy.None)
	}
	b.proxy.Refuse()
	_, err = b.Head(t.Context(), "there")
	b.wantError(t, err, bucket.ErrUnavailable, "there")
	b.proxy.Accept()
	if _, err := b.Head(t.Context(), "there"); err != nil {
		t.Error(err)
	}
}

func aLostAnswerIsNoRefusal(t *testing.T, s *emulator.Store) {
	b := through(t, s, bucket.Options{})
	small, large := buckettest.Content("small", 1000), buckettest.Content("large", partSize+1000)
	for key, content := range map[string][]byte{"small": small, "large": large} {
		b.proxy.Set(faultproxy.Fault{Only: []string{"PutObject", "CompleteMultipartUpload"}, Lost: true, Times: 1})
		info, err := b.try(t, key, content, bucket.PutOptions{IfAbsent: true})
		if err != nil || info.ETag == "" {
			t.Errorf("%s if absent: %+v, %v", key, info, err)
		}
		b.holds(t, key, content)
		content[0] ^= 1
		b.proxy.Set(faultproxy.Fault{Only: []string{"PutObject", "CompleteMultipartUpload"}, Lost: true, Times: 1})
		if info, err = b.try(t, key, content, bucket.PutOptions{IfMatch: info.ETag}); err != nil || info.ETag == "" {
			t.Errorf("%s if it matches: %+v, %v", key, info, err)
		}
		b.holds(t, key, content)
	}
	// What another has put is not ours.
	b.proxy.Set(faultproxy.Fault{Only: []string{"PutObject"}, Status: 500, Code: "InternalError", Times: 1})
	_, err := b.try(t, "small", []byte("another content"), bucket.PutOptions{IfAbsent: true})
	b.wantError(t, err, bucket.ErrPrecondition, "small")
}

func aBucketThatVanishesIsNamed(t *testing.T, s *emulator.Store) {
	b := through(t, s, bucket.Options{})
	calls := b.operations(t)
	if err := b.Delete(t.Context(), "there"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client().DeleteBucket(t.Context(), deleteBucket(b.name)); err != nil {
		t.Fatal(err)
	}
	for operation, call := range calls {
		if err := call(); !errors.Is(err, bucket.ErrNoBucket) || !strings.Contains(err.Error(), b.name) {
			t.Errorf("%s: %v", operation, err)
		}
	}
	_, err := bucket.Open(t.Context(), "s3://"+b.name, bucket.Options{})
	b.wantError(t, err, bucket.ErrNoBucket, "")
}

func aStalledConnectionIsLost(t *testing.T, s *emulator.Store) {
	b := through(t, s, bucket.Options{}.WithStall(2*time.Second))
	content := buckettest.Content("stalled", 100_000)
	b.put(t, "object", content)
	b.proxy.Set(faultproxy.Fault{Only: []string{"GetObject"}, Stall: true, Times: 1})
	if got, err := b.read(t.Context(), "object", 0, -1); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for operation, call := range b.operations(t) {
		b.proxy.Set(faultproxy.Fault{Only: []string{operation}, Hang: true, Times: 1})
		if operation == "CompleteMultipartUpload" {
			continue // which may take ten times as long
		}
		if err := call(); err != nil {
			t.Errorf("%s: %v", operation, err)
		}
	}
}
