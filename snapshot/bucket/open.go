package bucket

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Options of a Bucket. The zero value will do.
type Options struct {
	// SSEKMSKey, where it is set, is the KMS key under which the store encrypts
	// what is put: its ID, alias or ARN. An upload that is resumed keeps the key
	// that it was begun with.
	SSEKMSKey string
	// BytesPerSecond limits the content that is sent and received, all of a
	// Bucket together; 0 is no limit.
	BytesPerSecond int64
	// Jobs is how many parts of one object are sent at a time; 0 is 4. Each takes
	// as much memory as the part has bytes: 8 MiB, more in objects above 80 GB.
	Jobs int

	stall  time.Duration  // of a connection; 0 is stallTimeout
	stray  time.Duration  // 0 is strayAfter
	client aws.HTTPClient // nil is the SDK's
}

// store is the Bucket of an S3 store.
type store struct {
	client *s3.Client
	name   string // the bucket's
	prefix string // empty, or it ends with a slash
	renew  func() // makes the chain of credentials forget what it has
	o      Options
}

var _ interface {
	Bucket
	Sweeper
} = (*store)(nil)

// Open finds the bucket of a URL, "s3://BUCKET/PREFIX", and asks for it once.
// What it returns is a Sweeper too.
func Open(ctx context.Context, bucketURL string, o Options) (Bucket, error) {
	name, prefix, err := parseURL(bucketURL)
	if err != nil {
		return nil, &Error{Op: "open", Bucket: bucketURL, Err: ErrInvalid, Message: err.Error()}
	}
	if o.Jobs <= 0 {
		o.Jobs = 4
	}
	if o.stall == 0 {
		o.stall = stallTimeout
	}
	if o.stray == 0 {
		o.stray = strayAfter
	}
	s := &store{name: name, prefix: prefix, o: o}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// parseURL reads s3://BUCKET/PREFIX. The prefix gets a slash behind it.
func parseURL(s string) (name, prefix string, err error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", "", err
	case u.Scheme != "s3" || u.Host == "" || u.User != nil || u.Port() != "" || u.RawQuery != "" || u.Fragment != "":
		return "", "", fmt.Errorf("%q is not of the form s3://BUCKET/PREFIX", s)
	}
	prefix = strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
		if err := checkKey(prefix); err != nil {
			return "", "", err
		}
	}
	return u.Host, prefix, nil
}

// maxKey is S3's limit of a key, in bytes.
const maxKey = 1024

// checkKey refuses keys that a store may refuse, or take for another.
func checkKey(key string) error {
	switch {
	case key == "" || key[0] == '/' || len(key) > maxKey || !utf8.ValidString(key):
		return fmt.Errorf("%q is no key", key)
	case strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("the key %q has control characters", key)
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(key, "/"), "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("the key %q has a part %q", key, part)
		}
	}
	return nil
}

// full is a key with the prefix.
func (s *store) full(op, key string) (string, error) {
	full := s.prefix + key
	if err := checkKey(full); err != nil || strings.HasSuffix(key, "/") || key == "" {
		if err == nil {
			err = fmt.Errorf("%q is no key", key)
		}
		return "", &Error{Op: op, Bucket: s.name, Key: full, Err: ErrInvalid, Message: err.Error()}
	}
	return full, nil
}
