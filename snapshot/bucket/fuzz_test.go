package bucket

import (
	"fmt"
	"strings"
	"testing"
)

// What a store answers must not be taken for another range than it says.
func FuzzContentRange(f *testing.F) {
	for _, seed := range []string{"bytes 0-0/1", "bytes 5-99/100", "bytes 0-99/*", "bytes */100", "bytes 5-4/100", "bytes 0-100/100", "bytes  1-2/3", "bytes 1-2/3 ", "bytes +1-2/3", "bytes 01-2/3", "bytes 0-9223372036854775807/9223372036854775807", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, end, size, err := parseRange(s)
		if err != nil {
			return
		}
		if first < 0 || end <= first || size < end || s != fmt.Sprintf("bytes %d-%d/%d", first, end-1, size) {
			t.Errorf("%q: %d to %d of %d", s, first, end, size)
		}
	})
}

// What is no key of ours must not become one, and no part of it may lead elsewhere.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{"s3://b/p", "s3://b", "s3://b/p/../q", "s3://b//", "s3://b/%2e%2e/x", "s3:b", "http://b", "s3://b/\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, prefix, err := parseURL(s)
		if err != nil {
			return
		}
		if name == "" || strings.Contains(name, "/") || prefix != "" && (checkKey(prefix) != nil || !strings.HasSuffix(prefix, "/")) {
			t.Errorf("%q: %q, %q", s, name, prefix)
		}
		for part := range strings.SplitSeq(strings.TrimSuffix(prefix, "/"), "/") {
			if prefix != "" && (part == "" || part == "." || part == "..") {
				t.Errorf("%q: %q", s, prefix)
			}
		}
	})
}
