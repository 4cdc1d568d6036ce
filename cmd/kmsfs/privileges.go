package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// kept are root's capabilities that a mount needs, or the programs that it runs.
var kept = []int{
	unix.CAP_SYS_ADMIN,                                                 // mount, unmount, trusted attributes
	unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_SETFCAP, // what users' files get
	unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_MKNOD,
	unix.CAP_SYS_RESOURCE, unix.CAP_IPC_LOCK, // limits on memory and descriptors, space kept for root
	unix.CAP_SYS_PTRACE,              // groups of who asks, where /proc hides processes
	unix.CAP_SETUID, unix.CAP_SETGID, // a credential_process of AWS's that runs as a user
}

// startWithLess starts a program that can neither gain privileges nor use those
// of root that a mount has no use for. An ordinary user has none, and must be
// able to run fusermount3, which gains some; so for him it is Start.
func startWithLess(c *exec.Cmd) error {
	if os.Geteuid() != 0 {
		return c.Start()
	}
	result := make(chan error)
	go func() {
		// All this is the thread's, and its children's. It stays locked, so it
		// ends with the goroutine.
		runtime.LockOSThread()
		err := giveUp()
		if err == nil {
			err = c.Start()
		}
		result <- err
	}()
	return <-result
}

// giveUp takes from the thread what it starts need not have: capabilities, from
// the sets that the kernel fills root's from at an exec, and gaining any.
func giveUp() error {
	for c := 0; ; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil { // the kernel knows no more
			break
		}
		if has == 0 || slices.Contains(kept, c) {
			continue
		}
		err = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err == unix.EPERM { // root of a container that may not even give up
			break
		}
		if err != nil {
			return fmt.Errorf("give up capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	sets[0].Inheritable, sets[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("give up inheritable capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up gaining privileges: %w", err)
	}
	return nil
}
