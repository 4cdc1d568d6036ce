package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"kmsfs/snapshot/bucket"
)

// memory is a bucket in memory. It counts calls, and can fail any of them.
type memory struct {
	mu      sync.Mutex
	objects map[string]object
	calls   map[string]int
	// before, if set, is called before each call that is counted; its error is the
	// call's, which then did nothing, or, with after, did all the same.
	fail      func(n int, op, key string) error
	after     bool
	n         int
	noSums    bool          // the store vouches for nothing
	clock     time.Duration // added to times
	noPrecond bool
}

type object struct {
	b        []byte
	modified time.Time
}

func newMemory() *memory {
	return &memory{objects: make(map[string]object), calls: make(map[string]int)}
}

var _ bucket.Bucket = new(memory)

func (m *memory) call(op, key string) (after error, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls[op]++
	m.n++
	if m.fail == nil {
		return nil, nil
	}
	err = m.fail(m.n, op, key)
	if err != nil {
		err = &bucket.Error{Op: op, Bucket: "memory", Key: key, Err: err}
	}
	if m.after {
		return err, nil
	}
	return nil, err
}

func (m *memory) info(key string) (bucket.Info, error) {
	o, ok := m.objects[key]
	if !ok {
		return bucket.Info{}, &bucket.Error{Op: "head", Bucket: "memory", Key: key, Err: bucket.ErrNotFound}
	}
	sum := sha256.Sum256(o.b)
	i := bucket.Info{Key: key, Size: int64(len(o.b)), ETag: fmt.Sprintf("%q", fmt.Sprintf("%x", sum[:8])), Modified: o.modified}
	if !m.noSums {
		i.Checksum = encodeSum(sum)
	}
	return i, nil
}

func (m *memory) Head(_ context.Context, key string) (bucket.Info, error) {
	if after, err := m.call("head", key); err != nil || after != nil {
		return bucket.Info{}, errors.Join(err, after)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info(key)
}

func (m *memory) Get(_ context.Context, key string, offset, length int64) (io.ReadCloser, bucket.Info, error) {
	if after, err := m.call("get", key); err != nil || after != nil {
		return nil, bucket.Info{}, errors.Join(err, after)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.info(key)
	if err != nil {
		return nil, i, err
	}
	b := m.objects[key].b
	b = b[min(offset, int64(len(b))):]
	if length >= 0 {
		b = b[:min(length, int64(len(b)))]
	}
	return io.NopCloser(bytes.NewReader(b)), i, nil
}

func (m *memory) Put(_ context.Context, key string, body io.ReaderAt, size int64, o bucket.PutOptions) (bucket.Info, error) {
	b := make([]byte, size)
	if n, err := body.ReadAt(b, 0); int64(n) != size {
		return bucket.Info{}, err
	}
	after, err := m.call("put", key)
	if err != nil {
		return bucket.Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.objects[key]; there && o.IfAbsent && !m.noPrecond {
		return bucket.Info{}, &bucket.Error{Op: "put", Bucket: "memory", Key: key, Err: bucket.ErrPrecondition}
	}
	m.objects[key] = object{b, time.Now().Add(m.clock)}
	if after != nil {
		return bucket.Info{}, after
	}
	return m.info(key)
}

func (m *memory) Delete(_ context.Context, keys ...string) error {
	after, err := m.call("delete", strings.Join(keys, ","))
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		delete(m.objects, key)
	}
	return after
}

func (m *memory) List(_ context.Context, prefix string) iter.Seq2[bucket.Info, error] {
	return func(yield func(bucket.Info, error) bool) {
		if after, err := m.call("list", prefix); err != nil || after != nil {
			yield(bucket.Info{}, errors.Join(err, after))
			return
		}
		m.mu.Lock()
		var all []bucket.Info
		for _, key := range slices.Sorted(maps.Keys(m.objects)) {
			if strings.HasPrefix(key, prefix) {
				i, _ := m.info(key)
				i.Checksum = ""
				all = append(all, i)
			}
		}
		m.mu.Unlock()
		for _, i := range all {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// keys lists the keys that begin with a prefix.
func (m *memory) keys(prefix string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m.objects)), func(k string) bool { return !strings.HasPrefix(k, prefix) })
}

// clone is a bucket with the same objects.
func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newMemory()
	c.objects = maps.Clone(m.objects)
	return c
}
