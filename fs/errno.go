package fs

import (
	"context"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

// errnoOf is the one place that decides which errno a program sees. Integrity
// and KMS failures are logged here, since the errno cannot carry them; backing
// errors are passed on as they are.
func (m *Mount) errnoOf(op string, err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := err.(syscall.Errno); ok { // the usual case, without a search
		return errno
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, volume.ErrIntegrity):
		errno = unix.EIO
	case errors.Is(err, volume.ErrLocked):
		errno = unix.ENOKEY
	case errors.Is(err, kmsprovider.ErrAccessDenied):
		errno = unix.EACCES
	case errors.Is(err, kmsprovider.ErrKeyDisabled), errors.Is(err, kmsprovider.ErrKeyNotFound):
		errno = unix.EKEYREVOKED
	case errors.Is(err, kmsprovider.ErrThrottled), errors.Is(err, kmsprovider.ErrUnavailable),
		errors.Is(err, context.DeadlineExceeded):
		errno = unix.ETIMEDOUT
	case errors.As(err, &errno):
		return errno
	default:
		errno = unix.EIO
	}
	m.failures.log(m.log, op, errno, err)
	return errno
}
