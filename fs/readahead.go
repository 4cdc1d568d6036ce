package fs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// requestSize is the most that one READ or WRITE carries, in bytes: 256 pages, the most that the kernel offers.
const requestSize = 1 << 20

// readAhead is how far ahead the kernel reads where a file is read from one end to the other, in bytes: several
// requests, so that all processors decrypt.
const readAhead = 4 * requestSize

// raiseReadAhead makes the kernel ask for whole requests, and for the next ones before they are needed, where a file is
// read in order. What it agrees to in INIT is 128 KiB at most; more is set where it keeps the tunables of the mount's
// backing device, which only root may.
func (m *Mount) raiseReadAhead() error {
	var st unix.Statx_t
	// No attribute is asked for, so this sends no request to the mount, which is ourselves.
	if err := unix.Statx(unix.AT_FDCWD, m.mountpoint, unix.AT_STATX_DONT_SYNC|unix.AT_SYMLINK_NOFOLLOW, 0, &st); err != nil {
		return fmt.Errorf("find mount's device: %w", err)
	}
	name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(f, readAhead>>10)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
