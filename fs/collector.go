package fs

import "golang.org/x/sys/unix"

// ballastSize is memory in bytes that a mount has and does not use. Go's collector runs when the heap has doubled: the
// few MiB of a mount at rest double within milliseconds of work, and marking them again and again would take as much
// processor time as serving does. With the ballast it is this much that has to be allocated in between, at least.
const ballastSize = 64 << 20

// newBallast takes no memory: what it may have used before is given back.
func newBallast() []byte {
	b := make([]byte, ballastSize)
	if unix.Madvise(b, unix.MADV_DONTNEED_LOCKED) != nil { // Linux 5.18; the other does not give back locked memory
		_ = unix.Madvise(b, unix.MADV_DONTNEED)
	}
	return b
}
