package bucket

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// List goes over objects.
func (s *store) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		full, last := s.prefix+prefix, ""
		pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.name, Prefix: &full})
		for pages.HasMorePages() {
			a := s.attempts()
			page, err := pages.NextPage(ctx, a.use)
			if err != nil {
				yield(Info{}, s.translate(ctx, "list", full, err, a))
				return
			}
			for _, o := range page.Contents {
				key := aws.ToString(o.Key)
				// A page that is lost or comes twice would show here.
				if !strings.HasPrefix(key, full) || (last != "" && key <= last) {
					yield(Info{}, &Error{Op: "list", Bucket: s.name, Key: full, Err: ErrUnavailable, Message: fmt.Sprintf("the store lists %q after %q", key, last)})
					return
				}
				last = key
				if strings.HasSuffix(key, "/") {
					continue // what consoles make of a folder
				}
				info := Info{Key: key[len(s.prefix):], Size: aws.ToInt64(o.Size), ETag: aws.ToString(o.ETag), Modified: aws.ToTime(o.LastModified)}
				if !yield(info, nil) {
					return
				}
			}
		}
	}
}

// maxDelete is how many objects one request may remove.
const maxDelete = 1000

// Delete removes objects.
func (s *store) Delete(ctx context.Context, keys ...string) error {
	objects := make([]types.ObjectIdentifier, 0, len(keys))
	for _, key := range keys {
		full, err := s.full("delete", key)
		if err != nil {
			return err
		}
		objects = append(objects, types.ObjectIdentifier{Key: &full})
	}
	var failures []error
	for some := range slices.Chunk(objects, maxDelete) {
		if err := s.delete(ctx, some); err != nil {
			failures = append(failures, err)
			if e := new(Error); errors.As(err, &e) && e.Key == "" {
				break // not about one object: the others would fail too
			}
		}
	}
	return errors.Join(failures...)
}

// delete removes up to maxDelete objects.
func (s *store) delete(ctx context.Context, objects []types.ObjectIdentifier) error {
	a := s.attempts()
	out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &s.name, Delete: &types.Delete{Objects: objects, Quiet: aws.Bool(true)}, ChecksumAlgorithm: types.ChecksumAlgorithmSha256,
	}, a.use)
	if err != nil {
		return s.translate(ctx, "delete", "", err, a)
	}
	var failures []error
	for _, f := range out.Errors {
		e := &Error{Op: "delete", Bucket: s.name, Key: aws.ToString(f.Key), Code: bounded(aws.ToString(f.Code)), Message: bounded(aws.ToString(f.Message))}
		if e.judge(0); e.Err != ErrNotFound {
			failures = append(failures, e)
		}
	}
	return errors.Join(failures...)
}
