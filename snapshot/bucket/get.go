package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// metaPart is the metadata of an object that Put sent in parts: the size of the
// parts, in bytes, without which its checksum cannot be compared.
const metaPart = "kmsfs-part"

// Head tells what is known of an object without its content.
func (s *store) Head(ctx context.Context, key string) (Info, error) {
	full, err := s.full("head", key)
	if err != nil {
		return Info{}, err
	}
	info, err := s.head(ctx, full)
	if err != nil {
		return Info{}, err
	}
	info.Key = key
	return info, nil
}

// head is Head of a key with the prefix.
func (s *store) head(ctx context.Context, full string) (Info, error) {
	in := &s3.HeadObjectInput{Bucket: &s.name, Key: &full, ChecksumMode: types.ChecksumModeEnabled}
	var out *s3.HeadObjectOutput
	err := s.ask(ctx, "head", full, func(a *attempts) (err error) { out, err = s.client.HeadObject(ctx, in, a.use); return err })
	if e, ok := err.(*Error); ok && e.Err == ErrNotFound {
		if _, gone := s.headBucket(ctx); errors.Is(gone, ErrNoBucket) {
			e.Err, e.hint = ErrNoBucket, hintBucket
		}
	}
	if err != nil {
		return Info{}, err
	}
	if out.ContentLength == nil {
		return Info{}, &Error{Op: "head", Bucket: s.name, Key: full, Err: ErrUnavailable, Message: "the answer does not say how long the object is"}
	}
	info := Info{Size: *out.ContentLength, ETag: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified)}
	info.Checksum = checksumOf(out.ChecksumSHA256, out.Metadata, info.Size)
	return info, nil
}

// Get reads a range of an object.
func (s *store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Info, error) {
	full, err := s.full("get", key)
	if err != nil {
		return nil, Info{}, err
	}
	if offset < 0 || length < -1 {
		return nil, Info{}, &Error{Op: "get", Bucket: s.name, Key: full, Err: ErrInvalid, Message: fmt.Sprintf("a range of %d bytes from %d on", length, offset)}
	}
	if length == 0 {
		info, err := s.Head(ctx, key)
		return http.NoBody, info, err
	}
	b := &body{s: s, ctx: ctx, key: full, at: offset, end: -1}
	if length > 0 {
		b.end = offset + length
	}
	info, err := b.open()
	if e, ok := err.(*Error); ok && e.Code == "InvalidRange" { // at the end, or behind it
		info, err := s.Head(ctx, key)
		if err == nil && info.Size > offset {
			err = e // it has grown meanwhile
		}
		return http.NoBody, info, err
	}
	if err != nil {
		return nil, Info{}, err
	}
	info.Key = key
	return b, info, nil
}

// maxLost is how many times in a row a body may be lost without one more byte,
// and lostPause the first pause between two of them; each is twice that before.
const (
	maxLost   = 6
	lostPause = 100 * time.Millisecond
)

// body reads at and onwards to end, over as many answers as it takes.
type body struct {
	s       *store
	ctx     context.Context
	key     string // with the prefix
	at, end int64  // end: -1 before the first answer, if it is the object's
	etag    string // of the first answer
	begun   bool   // there was one
	now     io.ReadCloser
	lost    int
	err     error

	sum  *sum // nil where there is nothing to compare
	want string
}

// open asks for what is left, and says what the answer tells of the object.
func (b *body) open() (Info, error) {
	in := &s3.GetObjectInput{Bucket: &b.s.name, Key: &b.key}
	ranged := b.at > 0 || b.end >= 0
	if ranged {
		last := ""
		if b.end >= 0 {
			last = strconv.FormatInt(b.end-1, 10)
		}
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%s", b.at, last))
	}
	if b.etag != "" {
		in.IfMatch = &b.etag
	}
	a := b.s.attempts()
	out, err := b.s.client.GetObject(b.ctx, in, a.use, withChecksum)
	if err != nil {
		return Info{}, b.s.translate(b.ctx, "get", b.key, err, a)
	}
	info := Info{ETag: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified)}
	end, complaint := int64(-1), ""
	switch {
	case out.ContentLength == nil || *out.ContentLength < 0:
		complaint = "the answer does not say how long it is"
	case ranged:
		var first int64
		first, end, info.Size, err = parseRange(aws.ToString(out.ContentRange))
		if err != nil || first != b.at || end-first != *out.ContentLength || (b.end >= 0 && end > b.end) || (end < b.end && end != info.Size) {
			complaint = fmt.Sprintf("asked for %q, the answer has %d bytes of %q", *in.Range, *out.ContentLength, aws.ToString(out.ContentRange))
		}
	default:
		end, info.Size = *out.ContentLength, *out.ContentLength
	}
	info.Checksum = checksumOf(out.ChecksumSHA256, out.Metadata, info.Size)
	if complaint == "" && b.begun && info.ETag != b.etag {
		out.Body.Close()
		return Info{}, b.fail(ErrPrecondition, "it was replaced while it was read")
	}
	if complaint != "" {
		out.Body.Close()
		return Info{}, b.fail(ErrUnavailable, complaint)
	}
	if !b.begun {
		b.begin(info, out.Metadata)
	}
	b.now, b.etag, b.end, b.begun = out.Body, info.ETag, end, true
	return info, nil
}

// begin prepares to compare the checksum of a whole object.
func (b *body) begin(info Info, metadata map[string]string) {
	if b.at != 0 || (b.end >= 0 && b.end < info.Size) || info.Checksum == "" {
		return
	}
	part := partOf(metadata)
	if strings.Contains(info.Checksum, "-") != (part != 0) {
		return // somebody else's parts
	}
	b.sum, b.want = newSumOf(part), info.Checksum
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.read(p)
	b.err = err
	return n, err
}

func (b *body) read(p []byte) (int, error) {
	for b.at < b.end {
		if b.now == nil {
			if err := b.reopen(); err != nil {
				return 0, err
			}
		}
		n, err := b.now.Read(p[:min(int64(len(p)), b.end-b.at)])
		b.at += int64(n)
		if b.sum != nil {
			b.sum.Write(p[:n])
		}
		if n > 0 {
			b.lost = 0
		}
		if err != nil {
			b.now.Close()
			b.now = nil
		}
		if n > 0 || err == nil {
			return n, nil
		}
	}
	if b.sum != nil && b.sum.String() != b.want {
		return 0, b.fail(ErrMismatch, fmt.Sprintf("SHA-256 is %s and not %s", b.sum, b.want))
	}
	return 0, io.EOF
}

// reopen asks again, after a pause, for what is left after an answer was lost.
func (b *body) reopen() error {
	if b.lost++; b.lost > maxLost {
		return b.fail(ErrUnavailable, fmt.Sprintf("the answer broke off after %d bytes, again and again", b.at))
	}
	select {
	case <-time.After(lostPause << (b.lost - 1)):
	case <-b.ctx.Done():
	}
	if b.ctx.Err() != nil {
		return b.s.translate(b.ctx, "get", b.key, b.ctx.Err(), nil)
	}
	_, err := b.open()
	return err
}

func (b *body) fail(cause error, message string) error {
	return &Error{Op: "get", Bucket: b.s.name, Key: b.key, Err: cause, Message: message, ended: b.ctx.Err()}
}

// Close drops what was not read.
func (b *body) Close() error {
	if b.now == nil {
		return nil
	}
	err := b.now.Close()
	b.now = nil
	if b.err == nil {
		b.err = io.ErrClosedPipe
	}
	return err
}

// withChecksum has the store tell the checksum, and the SDK not look at it.
func withChecksum(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return smithyhttp.AddHeaderValue("X-Amz-Checksum-Mode", "ENABLED")(stack)
	})
}

// parseRange reads a Content-Range, "bytes FIRST-LAST/SIZE". end is behind LAST.
func parseRange(s string) (first, end, size int64, err error) {
	var last int64
	if _, err := fmt.Sscanf(s, "bytes %d-%d/%d", &first, &last, &size); err != nil {
		return 0, 0, 0, err
	}
	if first < 0 || last < first || size <= last || s != fmt.Sprintf("bytes %d-%d/%d", first, last, size) {
		return 0, 0, 0, fmt.Errorf("%q is no range", s)
	}
	return first, last + 1, size, nil
}

// partOf is the size of an object's parts; 0 if it is in none, or not in ours.
func partOf(metadata map[string]string) int64 {
	part, err := strconv.ParseInt(metadata[metaPart], 10, 64)
	if err != nil || part < 0 {
		return 0
	}
	return part
}

// checksumOf is the checksum that an answer has. Where that is of parts, some
// stores leave their number out.
func checksumOf(said *string, metadata map[string]string, size int64) string {
	checksum, part := aws.ToString(said), partOf(metadata)
	if checksum != "" && part != 0 && !strings.Contains(checksum, "-") {
		checksum += "-" + strconv.FormatInt((size+part-1)/part, 10)
	}
	return checksum
}
