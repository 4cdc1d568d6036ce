package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Sentinels, wrapped with what went wrong where.
var (
	// ErrNotVolume: the directory is missing, or has no .kmsfs/volume.json.
	// It is an fs.ErrNotExist as well.
	ErrNotVolume error = notVolume{}
	// ErrIntegrity: something is not what kmsfs wrote; see IntegrityError. For
	// volume.json also: no wrapped key in it fits the key that it names.
	ErrIntegrity = errors.New("integrity")
	// ErrFormat: a version or feature of the format that this kmsfs does not know.
	ErrFormat = errors.New("volume format not known to this kmsfs")
	// ErrFingerprint: the volume is not the one that this host knows.
	ErrFingerprint = errors.New("fingerprint changed")
	// ErrOlder: the volume's configuration is older than one that this host has seen,
	// so it may name keys that were given up.
	ErrOlder = errors.New("older configuration")
	// ErrInUse: another live mount has the volume open; see InUseError.
	ErrInUse = errors.New("volume is in use")
	// ErrLocked: the volume's keys were given up by Lock.
	ErrLocked = errors.New("volume is locked")
	// ErrExists: the directory that a volume is to be made in is not empty.
	ErrExists = errors.New("directory is not empty")
	// ErrIsVolume: the directory that a volume is to be made in holds one.
	ErrIsVolume = errors.New("directory holds a kmsfs volume already")
)

type notVolume struct{}

func (notVolume) Error() string { return "not a kmsfs volume" }
func (notVolume) Unwrap() error { return fs.ErrNotExist }

// InUseError says which mount has the volume open for writing. It matches
// ErrInUse. All of it is what that mount wrote into its session file; where the
// file cannot be read, only Session is known.
type InUseError struct {
	Session    crypto.ID
	Host       string
	PID        int // on Host; 0 if not known
	Mountpoint string
	Since      time.Time
}

func (e *InUseError) Error() string {
	var b strings.Builder
	b.WriteString("volume is in use")
	// Quoted: the file lies on untrusted storage, the message on a terminal.
	if e.Mountpoint != "" {
		fmt.Fprintf(&b, ": mounted at %q", e.Mountpoint)
	}
	if e.PID == 0 {
		fmt.Fprintf(&b, " (session %s)", e.Session)
		return b.String()
	}
	fmt.Fprintf(&b, " (process %d on host %q since %s)", e.PID, e.Host, e.Since.Format(time.RFC3339))
	return b.String()
}

// Is makes errors.Is(err, ErrInUse) true.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// isStoreError tells that the backing store did not give something: that says nothing
// of what it would have given. That something is not there, or is of another kind
// than it should be, is no such error.
func isStoreError(err error) bool {
	var no unix.Errno
	if !errors.As(err, &no) {
		return false
	}
	switch no {
	case unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EINVAL:
		return false
	}
	return true
}
