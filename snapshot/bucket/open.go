package bucket

import (
	"context"
	"errors"
)

// Options of a Bucket. The zero value will do.
type Options struct {
	// SSEKMSKey, where it is set, is the KMS key that the store encrypts under
	// what is put: its ID, alias or ARN.
	SSEKMSKey string
	// BytesPerSecond limits what is sent and received, all of a Bucket together;
	// 0 is no limit.
	BytesPerSecond int64
	// Jobs is how many parts of one object are sent at a time; 0 is 4.
	Jobs int
}

// Open finds the bucket of a URL, "s3://BUCKET/PREFIX".
func Open(ctx context.Context, url string, o Options) (Bucket, error) {
	return nil, errors.New("not yet")
}
