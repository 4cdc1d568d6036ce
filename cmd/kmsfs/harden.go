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

// lockMemory keeps all of the process's memory from being swapped out: keys in
// use are expanded in many places of it. That is left alone where a limit holds,
// which ordinary users have: to come up against it later would end the process.
func lockMemory() error {
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil {
		var lim unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim) != nil || lim.Cur != unix.RLIM_INFINITY {
			return fmt.Errorf("lock memory: the limit on it (RLIMIT_MEMLOCK) is %d bytes", lim.Cur)
		}
	}
	// On fault: what Go reserves and does not use takes no memory.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	return nil
}
