package fs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

func TestEveryCauseHasItsErrno(t *testing.T) {
	m := &Mount{log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{unix.ENOENT, unix.ENOENT},
		{fmt.Errorf("write record: %w", unix.ENOSPC), unix.ENOSPC},
		{fmt.Errorf("write sidecar: %w", unix.EDQUOT), unix.EDQUOT},
		{unix.EROFS, unix.EROFS},
		{&volume.IntegrityError{Path: "a", Block: 3, Err: io.ErrUnexpectedEOF}, unix.EIO},
		{fmt.Errorf("x: %w", &volume.IntegrityError{Block: -1, Err: unix.ENOENT}), unix.EIO},
		{fmt.Errorf("x: %w", volume.ErrLocked), unix.ENOKEY},
		{fmt.Errorf("volume key: %w", kmsprovider.ErrKeyDisabled), unix.EKEYREVOKED},
		{fmt.Errorf("x: %w", kmsprovider.ErrAccessDenied), unix.EACCES},
		{fmt.Errorf("x: %w", kmsprovider.ErrKeyDisabled), unix.EKEYREVOKED},
		{fmt.Errorf("x: %w", kmsprovider.ErrKeyNotFound), unix.EKEYREVOKED},
		{fmt.Errorf("x: %w", kmsprovider.ErrThrottled), unix.ETIMEDOUT},
		{fmt.Errorf("x: %w", kmsprovider.ErrUnavailable), unix.ETIMEDOUT},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), unix.ETIMEDOUT},
		{io.ErrShortWrite, unix.EIO},
	} {
		if got := m.errnoOf("test", c.err); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
}

func TestAFailureIsLoggedOnceWithItsCause(t *testing.T) {
	var out bytes.Buffer
	m := &Mount{log: slog.New(slog.NewTextHandler(&out, nil))}
	bad := &volume.IntegrityError{Path: "dir/file", Backing: "abc/def", Block: 7, Err: io.ErrUnexpectedEOF}
	for range 3 {
		m.errnoOf("read", bad)
	}
	m.errnoOf("read", unix.ENOENT) // an answer, not a failure
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines were logged, want 1:\n%s", n, out.String())
	}
	for _, want := range []string{"dir/file", "abc/def", "block 7", "unexpected EOF", "read"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the line does not say %q: %s", want, out.String())
		}
	}
	m.errnoOf("read", &volume.IntegrityError{Path: "dir/file", Backing: "abc/def", Block: 8, Err: io.ErrUnexpectedEOF})
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines after another failure, want 2", n)
	}
}

func TestMountOptionsBecomeFlags(t *testing.T) {
	flags, rest := mountFlags([]string{"default_permissions", "ro", "suid", "noexec", "max_read=1"})
	if flags != unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOEXEC {
		t.Errorf("flags %#x", flags)
	}
	if len(rest) != 2 || rest[0] != "default_permissions" || rest[1] != "max_read=1" {
		t.Errorf("left are %q", rest)
	}
	if flags, _ := mountFlags([]string{"suid", "dev"}); flags != unix.MS_MGC_VAL {
		t.Errorf("no flags at all: %#x", flags)
	}
}
