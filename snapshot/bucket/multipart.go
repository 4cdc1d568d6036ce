package bucket

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	managed "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// putParts makes an object in parts, with those of an unfinished upload. One that
// cannot be finished (another process removed it, another tool began it) is
// removed, and the upload begun anew.
func (s *store) putParts(ctx context.Context, full string, body io.ReaderAt, size int64, o PutOptions) (Info, error) {
	if err := s.wouldHold(ctx, full, o); err != nil {
		return Info{}, err
	}
	uploadID, parts, err := s.unfinished(ctx, full)
	if err != nil {
		return Info{}, err
	}
	info, err := s.tryParts(ctx, full, body, size, o, &resuming{s: s, key: full, uploadID: uploadID, parts: parts})
	var e *Error
	if uploadID != "" && errors.As(err, &e) && (e.Code == "NoSuchUpload" || e.Err == ErrInvalid) {
		_ = s.abort(ctx, full, uploadID) // Sweep will, too
		info, err = s.tryParts(ctx, full, body, size, o, &resuming{s: s, key: full})
	}
	return info, err
}

// wouldHold looks at a condition before everything is sent in vain.
func (s *store) wouldHold(ctx context.Context, full string, o PutOptions) error {
	if !o.IfAbsent && o.IfMatch == "" {
		return nil
	}
	info, err := s.head(ctx, full)
	switch {
	case errors.Is(err, ErrNotFound) && o.IfAbsent, err == nil && !o.IfAbsent && info.ETag == o.IfMatch:
		return nil
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	}
	return &Error{Op: "put", Bucket: s.name, Key: full, Err: ErrPrecondition}
}

func (s *store) tryParts(ctx context.Context, full string, body io.ReaderAt, size int64, o PutOptions, r *resuming) (Info, error) {
	r.S3APIClient = s.client
	manager := transfermanager.New(r, func(o *transfermanager.Options) {
		o.PartSizeBytes = partSizeOf(size)
		o.MultipartUploadThreshold = o.PartSizeBytes // it reads that much at first
		o.Concurrency = s.o.Jobs
		o.ChecksumAlgorithm = managed.ChecksumAlgorithmSha256
	})
	counted := &counting{Reader: io.NewSectionReader(body, 0, size), sum: newSum(size)}
	in := &transfermanager.UploadObjectInput{
		Bucket: &s.name, Key: &full, Body: counted, ContentLength: &size,
		Metadata: map[string]string{metaPart: strconv.FormatInt(partSizeOf(size), 10)},
	}
	if s.o.SSEKMSKey != "" {
		in.ServerSideEncryption, in.SSEKMSKeyID = managed.ServerSideEncryptionAwsKms, &s.o.SSEKMSKey
	}
	if _, err := manager.UploadObject(ctx, in); err != nil {
		if counted.err != nil {
			return Info{}, s.unread(ctx, full, counted.sum.written, counted.err)
		}
		return Info{}, s.translate(ctx, "put", full, err, nil)
	}
	if r.complete == nil || counted.sum.written != size {
		return Info{}, s.unread(ctx, full, counted.sum.written, nil)
	}
	return s.completeParts(ctx, full, r.complete, counted.sum.String(), o)
}

// completeParts makes the object of its parts.
func (s *store) completeParts(ctx context.Context, full string, in *s3.CompleteMultipartUploadInput, checksum string, o PutOptions) (Info, error) {
	in.IfNoneMatch, in.IfMatch = o.headers()
	a := s.attempts()
	out, err := s.client.CompleteMultipartUpload(ctx, in, a.use)
	if err != nil {
		failure := s.translate(ctx, "put", full, err, a)
		info, err := s.perhapsPut(ctx, full, checksum, a, failure)
		if e := failure.(*Error); err != nil && e.Err == ErrPrecondition {
			_ = s.abort(ctx, full, *in.UploadId) // nothing is to be resumed
		}
		return info, err
	}
	info := Info{ETag: aws.ToString(out.ETag), Checksum: aws.ToString(out.ChecksumSHA256)}
	return info, s.compare(full, info.Checksum, checksum)
}

// resuming stands between the transfer manager and the client: it takes an
// upload up where there is one, sends only parts that are not there, keeps the
// parts when the manager gives up, and leaves it to the caller to complete the
// upload, under conditions that the manager does not know.
type resuming struct {
	transfermanager.S3APIClient
	s        *store
	key      string
	uploadID string               // empty: begin one
	parts    map[int32]types.Part // of uploadID
	complete *s3.CompleteMultipartUploadInput
}

func (r *resuming) CreateMultipartUpload(ctx context.Context, in *s3.CreateMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CreateMultipartUploadOutput, error) {
	if r.uploadID != "" {
		return &s3.CreateMultipartUploadOutput{Bucket: in.Bucket, Key: in.Key, UploadId: &r.uploadID}, nil
	}
	a := r.s.attempts()
	in.ChecksumType = types.ChecksumTypeComposite
	out, err := r.S3APIClient.CreateMultipartUpload(ctx, in, append(opts, a.use)...)
	if err != nil {
		return nil, r.s.translate(ctx, "put", r.key, err, a)
	}
	return out, nil
}

func (r *resuming) UploadPart(ctx context.Context, in *s3.UploadPartInput, opts ...func(*s3.Options)) (*s3.UploadPartOutput, error) {
	body, ok := in.Body.(io.ReadSeeker)
	if !ok {
		return nil, fmt.Errorf("send a part: the manager's %T cannot be read twice", in.Body)
	}
	hash := sha256.New()
	n, err := io.Copy(hash, body)
	if err == nil {
		_, err = body.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	digest := hash.Sum(nil)
	checksum := base64.StdEncoding.EncodeToString(digest)
	if p, ok := r.parts[*in.PartNumber]; ok && aws.ToInt64(p.Size) == n {
		there := aws.ToString(p.ChecksumSHA256) == checksum
		if p.ChecksumSHA256 == nil {
			// The store keeps none. Its ETag is the MD5, unless a key encrypts the part.
			there, err = hasMD5(body, aws.ToString(p.ETag))
		}
		if err != nil {
			return nil, err
		}
		if there {
			return &s3.UploadPartOutput{ETag: p.ETag, ChecksumSHA256: &checksum}, nil
		}
	}
	in.ChecksumSHA256, in.ContentLength = &checksum, &n
	a := r.s.attempts()
	out, err := r.S3APIClient.UploadPart(ctx, in, append(opts, a.use, hashed(digest))...)
	if err != nil {
		return nil, r.s.translate(ctx, "put", r.key, err, a)
	}
	out.ChecksumSHA256 = &checksum // which it was compared with
	return out, nil
}

func (r *resuming) CompleteMultipartUpload(_ context.Context, in *s3.CompleteMultipartUploadInput, _ ...func(*s3.Options)) (*s3.CompleteMultipartUploadOutput, error) {
	r.complete = in
	return &s3.CompleteMultipartUploadOutput{}, nil
}

func (r *resuming) AbortMultipartUpload(context.Context, *s3.AbortMultipartUploadInput, ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error) {
	return &s3.AbortMultipartUploadOutput{}, nil
}

// hasMD5 compares a body with an ETag, and leaves it at its start.
func hasMD5(body io.ReadSeeker, etag string) (bool, error) {
	hash := md5.New()
	if _, err := io.Copy(hash, body); err != nil {
		return false, err
	}
	_, err := body.Seek(0, io.SeekStart)
	return strings.Trim(etag, `"`) == hex.EncodeToString(hash.Sum(nil)), err
}

// counting computes the checksum of what the manager reads, and keeps why it
// could not read.
type counting struct {
	io.Reader
	sum *sum
	err error
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.sum.Write(p[:n])
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}
