package bucket

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// strayAfter is how long an upload must have been unfinished before another Put
// of the key removes it: one that is younger may be somebody's.
const strayAfter = 24 * time.Hour

// Sweeper removes what Puts that were killed left behind: parts that nobody
// sees, and that cost as much as objects.
type Sweeper interface {
	// Sweep removes the uploads below the prefix that were begun before that
	// time, and returns how many. Those that still go on fail.
	Sweep(ctx context.Context, before time.Time) (int, error)
}

// Sweep removes unfinished uploads.
func (s *store) Sweep(ctx context.Context, before time.Time) (int, error) {
	n := 0
	for u, err := range s.uploads(ctx, s.prefix) {
		if err != nil {
			return n, err
		}
		if !aws.ToTime(u.Initiated).Before(before) {
			continue
		}
		if err := s.abort(ctx, *u.Key, *u.UploadId); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// unfinished finds the newest upload of a key that did not end, and its parts.
// Old ones beside it are removed. A store that may not or cannot say has none.
func (s *store) unfinished(ctx context.Context, full string) (string, map[int32]types.Part, error) {
	var all []types.MultipartUpload
	for u, err := range s.uploads(ctx, full) {
		if errors.Is(err, ErrAccessDenied) || errors.Is(err, ErrInvalid) {
			return "", nil, nil
		}
		if err != nil {
			return "", nil, err
		}
		// Others' checksums do not go together with ours; some stores do not tell.
		if *u.Key == full && (u.ChecksumAlgorithm == types.ChecksumAlgorithmSha256 || u.ChecksumAlgorithm == "") {
			all = append(all, u)
		}
	}
	newest := -1
	for i, u := range all {
		if newest < 0 || aws.ToTime(u.Initiated).After(aws.ToTime(all[newest].Initiated)) {
			newest = i
		}
	}
	for i, u := range all {
		if i != newest && time.Since(aws.ToTime(u.Initiated)) > s.o.stray {
			_ = s.abort(ctx, full, *u.UploadId) // Sweep will, too
		}
	}
	if newest < 0 {
		return "", nil, nil
	}
	parts, err := s.partsOf(ctx, full, *all[newest].UploadId)
	if errors.Is(err, ErrNotFound) {
		return "", nil, nil // it ended meanwhile
	}
	if err != nil {
		return "", nil, err
	}
	return *all[newest].UploadId, parts, nil
}

// uploads lists unfinished uploads of keys with a prefix.
func (s *store) uploads(ctx context.Context, prefix string) iter.Seq2[types.MultipartUpload, error] {
	return func(yield func(types.MultipartUpload, error) bool) {
		pages := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: &s.name, Prefix: &prefix})
		for pages.HasMorePages() {
			a := s.attempts()
			page, err := pages.NextPage(ctx, a.use)
			if err != nil {
				yield(types.MultipartUpload{}, s.translate(ctx, "list uploads", prefix, err, a))
				return
			}
			for _, u := range page.Uploads {
				if u.Key == nil || u.UploadId == nil {
					continue
				}
				if !yield(u, nil) {
					return
				}
			}
		}
	}
}

// partsOf lists the parts of an upload.
func (s *store) partsOf(ctx context.Context, full, uploadID string) (map[int32]types.Part, error) {
	parts := make(map[int32]types.Part)
	pages := s3.NewListPartsPaginator(s.client, &s3.ListPartsInput{Bucket: &s.name, Key: &full, UploadId: &uploadID})
	for pages.HasMorePages() {
		a := s.attempts()
		page, err := pages.NextPage(ctx, a.use)
		if err != nil {
			return nil, s.translate(ctx, "list parts", full, err, a)
		}
		for _, p := range page.Parts {
			parts[aws.ToInt32(p.PartNumber)] = p
		}
	}
	return parts, nil
}

// abort removes an upload. One that is not there is no error.
func (s *store) abort(ctx context.Context, full, uploadID string) error {
	a := s.attempts()
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.name, Key: &full, UploadId: &uploadID}, a.use)
	if err != nil {
		if err = s.translate(ctx, "abort upload", full, err, a); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}
