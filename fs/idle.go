package fs

import (
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// UnmountWhenIdle ends the mount once the kernel has asked nothing for d and
// nobody holds a file or a working directory in it. Programs that only read
// what the kernel has cached ask nothing, but they hold files. Wait returns then.
func (m *Mount) UnmountWhenIdle(d time.Duration) {
	go func() {
		last, since := m.counts.total(), time.Now()
		tick := time.NewTicker(max(d/8, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-m.ended:
				return
			case <-tick.C:
			}
			if now := m.counts.total(); now != last {
				last, since = now, time.Now()
				continue
			}
			if time.Since(since) < d {
				continue
			}
			if m.unmountUnused() {
				m.log.Info("unmounted after it was idle", "mountpoint", m.mountpoint, "idle", d)
				return
			}
			since = time.Now() // in use: ask again after another d
		}
	}()
}

// unmountUnused unmounts unless somebody uses the mount.
func (m *Mount) unmountUnused() bool {
	if os.Geteuid() == 0 {
		return unix.Unmount(m.mountpoint, unix.UMOUNT_NOFOLLOW) == nil
	}
	return exec.Command("fusermount3", "-u", "-q", "--", m.mountpoint).Run() == nil
}
