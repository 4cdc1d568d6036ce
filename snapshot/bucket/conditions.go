package bucket

import (
	"bytes"
	"context"
	"errors"
)

// CheckConditions finds out, with an object of this key that it makes and
// removes, whether a store keeps the conditions of PutOptions. ErrInvalid is one
// that does not know them: it writes regardless. The key must be nobody else's.
func CheckConditions(ctx context.Context, b Bucket, key string) (err error) {
	first, err := b.Put(ctx, key, bytes.NewReader([]byte("first")), 5, PutOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Delete(ctx, key)) }()
	for _, o := range []PutOptions{{IfAbsent: true}, {IfMatch: `"00000000000000000000000000000000"`}} {
		_, err := b.Put(ctx, key, bytes.NewReader([]byte("other")), 5, o)
		if err == nil {
			return &Error{Op: "check conditions", Key: key, Err: ErrInvalid, Message: "the store ignores conditions of writes"}
		}
		if !errors.Is(err, ErrPrecondition) {
			return err
		}
	}
	_, err = b.Put(ctx, key, bytes.NewReader([]byte("third")), 5, PutOptions{IfMatch: first.ETag})
	return err
}
