package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"kmsfs/integration/emulator"
	"kmsfs/integration/faultproxy"
	"kmsfs/snapshot/bucket"
	"kmsfs/snapshot/bucket/buckettest"
)

// uploads counts the unfinished ones.
func (b behind) uploads(t *testing.T) int {
	t.Helper()
	out, err := b.store.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &b.name})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Uploads)
}

// begin sends n parts of an object, one at a time, and no more.
func (b behind) begin(t *testing.T, key string, content []byte, n int) {
	t.Helper()
	b.proxy.Set(faultproxy.Fault{Only: []string{"UploadPart"}, After: n, Status: 403, Code: "AccessDenied"})
	_, err := b.try(t, key, content, bucket.PutOptions{})
	b.wantError(t, err, bucket.ErrAccessDenied, key)
	b.proxy.Set(faultproxy.None)
	b.proxy.Counts()
	_, err = b.Head(t.Context(), key)
	b.wantError(t, err, bucket.ErrNotFound, key)
}

func anUploadThatDidNotEndGoesOn(t *testing.T, s *emulator.Store) {
	b := through(t, s, bucket.Options{Jobs: 1})
	content := buckettest.Content("resumed", 4*partSize+100)
	b.begin(t, "object", content, 3)
	time.Sleep(1100 * time.Millisecond)
	b.begin(t, "object-2", content, 1) // another key that begins alike, and later
	b.put(t, "object", content)
	if counts := b.proxy.Counts(); counts["UploadPart"] != 2 || counts["CreateMultipartUpload"] != 0 {
		t.Errorf("requests: %v", counts)
	}
	b.holds(t, "object", content)

	// Parts of what has changed since are sent again.
	b.begin(t, "changed", content, 4)
	content[partSize]++
	b.put(t, "changed", content)
	if counts := b.proxy.Counts(); counts["UploadPart"] != 2 {
		t.Errorf("requests: %v", counts)
	}
	b.holds(t, "changed", content)

	// So are those of an object that was longer.
	b.begin(t, "shorter", content, 4)
	content = content[:3*partSize+7]
	b.put(t, "shorter", content)
	if counts := b.proxy.Counts(); counts["UploadPart"] != 1 {
		t.Errorf("requests: %v", counts)
	}
	b.holds(t, "shorter", content)
	if n := b.uploads(t); n != 1 { // of object-2
		t.Errorf("%d uploads are left", n)
	}
}

func anUploadThatWasGivenUpGoesOn(t *testing.T, s *emulator.Store) {
	b := through(t, s, bucket.Options{Jobs: 1})
	content := buckettest.Content("given up", 3*partSize)
	b.proxy.Set(faultproxy.Fault{Only: []string{"UploadPart"}, After: 2, Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for b.proxy.Counts()["UploadPart"] < 1 || len(b.parts(t)) < 2 {
			time.Sleep(50 * time.Millisecond)
		}
		cancel()
	}()
	if _, err := b.Put(ctx, "object", bytes.NewReader(content), int64(len(content)), bucket.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	b.proxy.Set(faultproxy.None)
	b.proxy.Counts()
	b.put(t, "object", content)
	if counts := b.proxy.Counts(); counts["UploadPart"] != 1 {
		t.Errorf("requests: %v", counts)
	}
	b.holds(t, "object", content)
}

func anUploadThatEndedMeanwhileIsBegunAnew(t *testing.T, s *emulator.Store) {
	b := through(t, s, bucket.Options{Jobs: 1})
	content := buckettest.Content("ended", 2*partSize)
	b.begin(t, "object", content, 1)
	b.proxy.Set(faultproxy.Fault{Only: []string{"UploadPart", "CompleteMultipartUpload"}, Status: 404, Code: "NoSuchUpload", Times: 1})
	b.put(t, "object", content)
	b.holds(t, "object", content)
}

func straysAreRemoved(t *testing.T, s *emulator.Store) {
	if s.Name == "moto" {
		return // which says of all that they were begun in 2010
	}
	b := through(t, s, bucket.Options{Jobs: 1})
	content := buckettest.Content("stray", 2*partSize)
	b.begin(t, "object", content, 1)
	b.begin(t, "other", content, 1)
	out := new(s3.CreateMultipartUploadInput)
	key := "some/prefix/object"
	out.Bucket, out.Key = &b.name, &key
	for range 2 {
		time.Sleep(1100 * time.Millisecond) // its time is to the second
		if _, err := s.Client().CreateMultipartUpload(t.Context(), out); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.uploads(t); n != 4 {
		t.Fatalf("%d uploads", n)
	}
	b.put(t, "object", content) // takes the newest; the others are too young to be strays
	if n := b.uploads(t); n != 3 {
		t.Errorf("%d uploads are left", n)
	}
	b.holds(t, "object", content)
	b.Bucket = open(t, s, b.proxy.URL, b.name, bucket.Options{}.WithStray(time.Nanosecond))
	time.Sleep(10 * time.Millisecond)
	b.put(t, "object", content)
	if n := b.uploads(t); n != 1 { // other's
		t.Errorf("%d uploads are left", n)
	}
	sweeper := b.Bucket.(bucket.Sweeper)
	if n, err := sweeper.Sweep(t.Context(), time.Now().Add(-time.Hour)); n != 0 || err != nil || b.uploads(t) != 1 {
		t.Errorf("young: %d swept, %v", n, err)
	}
	if n, err := sweeper.Sweep(t.Context(), time.Now().Add(time.Hour)); n != 1 || err != nil || b.uploads(t) != 0 {
		t.Errorf("old: %d swept, %v, %d left", n, err, b.uploads(t))
	}
}

// parts lists those of the one unfinished upload.
func (b behind) parts(t *testing.T) []int {
	ctx := context.Background()
	uploads, err := b.store.Client().ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &b.name})
	if err != nil || len(uploads.Uploads) == 0 {
		return nil
	}
	u := uploads.Uploads[0]
	out, err := b.store.Client().ListParts(ctx, &s3.ListPartsInput{Bucket: &b.name, Key: u.Key, UploadId: u.UploadId})
	if err != nil {
		return nil
	}
	return make([]int, len(out.Parts))
}
