package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
)

// Put makes an object.
func (s *store) Put(ctx context.Context, key string, body io.ReaderAt, size int64, o PutOptions) (Info, error) {
	full, err := s.full("put", key)
	if err != nil {
		return Info{}, err
	}
	if size < 0 || (o.IfAbsent && o.IfMatch != "") {
		return Info{}, &Error{Op: "put", Bucket: s.name, Key: full, Err: ErrInvalid, Message: fmt.Sprintf("%d bytes under %+v", size, o)}
	}
	var info Info
	if size <= partSize {
		info, err = s.putWhole(ctx, full, io.NewSectionReader(body, 0, size), o)
	} else {
		info, err = s.putParts(ctx, full, body, size, o)
	}
	if err != nil {
		return Info{}, err
	}
	info.Key, info.Size = key, size
	return info, nil
}

// putWhole makes an object with one request.
func (s *store) putWhole(ctx context.Context, full string, body *io.SectionReader, o PutOptions) (Info, error) {
	hash := sha256.New()
	n, err := io.Copy(hash, body)
	if err != nil || n != body.Size() {
		return Info{}, s.unread(ctx, full, n, err)
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return Info{}, s.unread(ctx, full, 0, err)
	}
	digest := hash.Sum(nil)
	checksum := base64.StdEncoding.EncodeToString(digest)
	in := &s3.PutObjectInput{
		Bucket: &s.name, Key: &full, Body: body, ContentLength: aws.Int64(body.Size()),
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumSHA256: &checksum,
	}
	in.IfNoneMatch, in.IfMatch = o.headers()
	if s.o.SSEKMSKey != "" {
		in.ServerSideEncryption, in.SSEKMSKeyId = types.ServerSideEncryptionAwsKms, &s.o.SSEKMSKey
	}
	a := s.attempts()
	out, err := s.client.PutObject(ctx, in, a.use, hashed(digest))
	if err != nil {
		return s.perhapsPut(ctx, full, checksum, a, s.translate(ctx, "put", full, err, a))
	}
	info := Info{ETag: aws.ToString(out.ETag), Checksum: aws.ToString(out.ChecksumSHA256)}
	return info, s.compare(full, info.Checksum, checksum)
}

// headers are the conditions as S3 takes them.
func (o PutOptions) headers() (ifNoneMatch, ifMatch *string) {
	if o.IfAbsent {
		ifNoneMatch = aws.String("*")
	}
	if o.IfMatch != "" {
		ifMatch = &o.IfMatch
	}
	return ifNoneMatch, ifMatch
}

// perhapsPut is for a Put that failed after an answer was lost: the store may
// have made the object before, and then refuses to make it again.
func (s *store) perhapsPut(ctx context.Context, full, checksum string, a *attempts, failure error) (Info, error) {
	e := failure.(*Error)
	if !a.open || (e.Err != ErrPrecondition && e.Err != ErrNotFound) {
		return Info{}, failure
	}
	info, err := s.head(ctx, full)
	if err != nil || info.Checksum != checksum {
		return Info{}, failure
	}
	return info, nil
}

// compare refuses an object that has another checksum than what was sent.
func (s *store) compare(full, got, want string) error {
	if got == "" || got == want {
		return nil // a store that keeps none has compared each request
	}
	return &Error{Op: "put", Bucket: s.name, Key: full, Err: ErrMismatch, Message: fmt.Sprintf("the store has SHA-256 %s, %s was sent", got, want)}
}

// unread is for a body that cannot be read to its end.
func (s *store) unread(ctx context.Context, full string, n int64, err error) error {
	if err == nil {
		err = fmt.Errorf("it ends after %d bytes", n)
	}
	return &Error{Op: "put", Bucket: s.name, Key: full, Err: fmt.Errorf("read what is to be sent: %w", err), ended: ctx.Err()}
}

// hashed tells the signer the SHA-256 of the body: it need not read it too.
func hashed(digest []byte) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("kmsfsPayloadHash",
				func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
					return next.HandleInitialize(v4.SetPayloadHash(ctx, hex.EncodeToString(digest)), in)
				}), middleware.Before)
		})
	}
}
