package bucket

import (
	"context"
	"io"
	"iter"
	"time"
)

// Bucket holds objects by their keys, which are relative to its prefix. It is
// safe for concurrent use. Every error is or holds an *Error.
type Bucket interface {
	// Head tells what is known of an object without its content.
	Head(ctx context.Context, key string) (Info, error)

	// Get reads length bytes of an object from offset on; -1 is all to its end.
	// A range that ends behind the object's end is cut there, and one that begins
	// at its end or behind it is empty. The body ends with io.EOF only when all
	// that was promised has been read from one version of the object; else with
	// ErrUnavailable, with ErrPrecondition where the object was replaced meanwhile,
	// or with ErrMismatch where the whole of an object was read and does not have
	// the checksum that the store knows.
	// Info tells of the whole object. The caller closes the body.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Info, error)

	// Put makes an object of the first size bytes of body, which is read from
	// several places at once, and some of it more than once. The object is there
	// as a whole or not at all. A large one is sent in parts, several at a time;
	// those of an earlier Put of the same key that did not end are used again
	// where their checksums say that they are what body holds there.
	// Where a condition does not hold it fails with ErrPrecondition.
	Put(ctx context.Context, key string, body io.ReaderAt, size int64, o PutOptions) (Info, error)

	// Delete removes objects. Those that are not there are no error. The rest is
	// tried where one fails.
	Delete(ctx context.Context, keys ...string) error

	// List goes over the objects whose keys begin with prefix, by the order of
	// their keys' bytes. An error ends it.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
}

// Info is what a store says of an object.
type Info struct {
	Key  string
	Size int64 // in bytes
	// ETag names the content, as the store chooses, quotes included. It changes
	// when the object is replaced by another content.
	ETag string
	// Checksum is the SHA-256 that the store vouches for, in base64: of the whole
	// content, or, of an object sent in parts, of the checksums of its parts, with
	// a dash and their number behind. Empty where the store keeps none, and in
	// what List yields.
	Checksum string
	Modified time.Time // to the second; zero in what Put returns
}

// PutOptions are conditions under which an object is made. At most one of them
// may be set.
type PutOptions struct {
	IfAbsent bool   // only where there is no object of this key
	IfMatch  string // only where the object of this key has this ETag
}
