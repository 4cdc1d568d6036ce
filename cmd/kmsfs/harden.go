package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps keys out of core dumps, and other processes of the same user out
// of this one's memory. A new program undoes it: a daemon calls it again.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("disable core dumps: %w", err)
	}
	return nil
}
