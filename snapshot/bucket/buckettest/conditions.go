package buckettest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"kmsfs/snapshot/bucket"
)

// try puts under a condition.
func try(t *testing.T, b bucket.Bucket, key string, content []byte, o bucket.PutOptions) (bucket.Info, error) {
	t.Helper()
	return b.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)), o)
}

func ifAbsent(t *testing.T, b bucket.Bucket) {
	for _, size := range []int{10, PartSize + 10} {
		key := fmt.Sprint("object-", size)
		put(t, b, key, Content("first", size), bucket.PutOptions{IfAbsent: true})
		if _, err := try(t, b, key, Content("second", size), bucket.PutOptions{IfAbsent: true}); !errors.Is(err, bucket.ErrPrecondition) {
			t.Errorf("%d bytes: %v", size, err)
		}
		holds(t, b, key, Content("first", size))
	}
}

func ifMatch(t *testing.T, b bucket.Bucket) {
	for _, size := range []int{10, PartSize + 10} {
		key := fmt.Sprint("object-", size)
		if _, err := try(t, b, key, Content("never", size), bucket.PutOptions{IfMatch: `"0"`}); !errors.Is(err, bucket.ErrPrecondition) && !errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("there is none: %v", err)
		}
		first := put(t, b, key, Content("first", size), bucket.PutOptions{})
		second := put(t, b, key, Content("second", size), bucket.PutOptions{IfMatch: first.ETag})
		holds(t, b, key, Content("second", size))
		if _, err := try(t, b, key, Content("third", size), bucket.PutOptions{IfMatch: first.ETag}); !errors.Is(err, bucket.ErrPrecondition) {
			t.Errorf("%d bytes: %v", size, err)
		}
		holds(t, b, key, Content("second", size))
		put(t, b, key, Content("fourth", size), bucket.PutOptions{IfMatch: second.ETag})
		holds(t, b, key, Content("fourth", size))
	}
	if _, err := try(t, b, "object", nil, bucket.PutOptions{IfAbsent: true, IfMatch: "x"}); !errors.Is(err, bucket.ErrInvalid) {
		t.Errorf("both: %v", err)
	}
}

func ifAbsentAtOnce(t *testing.T, b bucket.Bucket) {
	var group sync.WaitGroup
	var made atomic.Int32
	var winner atomic.Value
	for i := range 8 {
		group.Go(func() {
			content := Content(fmt.Sprint("writer ", i), 1000)
			_, err := try(t, b, "lock", content, bucket.PutOptions{IfAbsent: true})
			switch {
			case err == nil:
				made.Add(1)
				winner.Store(content)
			case !errors.Is(err, bucket.ErrPrecondition):
				t.Error(err)
			}
		})
	}
	group.Wait()
	if made.Load() != 1 {
		t.Fatalf("%d puts succeeded", made.Load())
	}
	holds(t, b, "lock", winner.Load().([]byte))
}

// keysOf lists keys.
func keysOf(t *testing.T, b bucket.Bucket, prefix string) []string {
	t.Helper()
	keys := []string{}
	for info, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func lists(t *testing.T, b bucket.Bucket) {
	if keys := keysOf(t, b, ""); len(keys) != 0 {
		t.Fatalf("not empty: %q", keys)
	}
	want := []string{"a-b", "a.b", "a/b", "a0", "Z", "é", "a b", "a+b", "a%2Fb", "a/c/d", "a/c.d", "a/c-d", "a&b=c"}
	for i := range 1100 { // more than a page
		want = append(want, fmt.Sprintf("many/%04d", i*7%1100))
	}
	for _, key := range want {
		put(t, b, key, []byte(key), bucket.PutOptions{})
	}
	slices.Sort(want)
	if got := keysOf(t, b, ""); !slices.Equal(got, want) {
		t.Errorf("%d keys, want %d; the first are %q", len(got), len(want), got[:min(len(got), 20)])
	}
	for _, prefix := range []string{"a", "a/", "a/c", "many/09", "many", "nothing", "many/0999/"} {
		var below []string
		for _, key := range want {
			if strings.HasPrefix(key, prefix) {
				below = append(below, key)
			}
		}
		if got := keysOf(t, b, prefix); !slices.Equal(got, below) {
			t.Errorf("below %q: %d keys, want %d", prefix, len(got), len(below))
		}
	}
	for info, err := range b.List(t.Context(), "a/c/d") {
		head, headErr := b.Head(t.Context(), "a/c/d")
		if err != nil || headErr != nil || info.Size != 5 || info.ETag != head.ETag || info.Modified.IsZero() {
			t.Errorf("%+v, %v; head: %+v, %v", info, err, head, headErr)
		}
		break // and no more is asked
	}
}

func deletes(t *testing.T, b bucket.Bucket) {
	var keys []string
	for i := range 1100 { // more than a request
		keys = append(keys, fmt.Sprintf("some/%d", i))
		if i%10 == 0 {
			put(t, b, keys[i], nil, bucket.PutOptions{})
		}
	}
	put(t, b, "kept", nil, bucket.PutOptions{})
	if err := b.Delete(t.Context(), keys...); err != nil {
		t.Error(err)
	}
	if err := b.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if got := keysOf(t, b, ""); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("left: %q", got)
	}
}

func badKeys(t *testing.T, b bucket.Bucket) {
	for _, key := range []string{"", "/", "/a", "a/", "a//b", "a/../b", "./a", "..", "a\nb", "a\x00", "\xff", strings.Repeat("k", 1025)} {
		_, head := b.Head(t.Context(), key)
		_, _, get := b.Get(t.Context(), key, 0, -1)
		_, put := try(t, b, key, nil, bucket.PutOptions{})
		for _, err := range []error{head, get, put, b.Delete(t.Context(), key)} {
			if !errors.Is(err, bucket.ErrInvalid) {
				t.Errorf("%q: %v", key, err)
			}
		}
	}
}
