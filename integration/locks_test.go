package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { processes["lock"] = lockProcess }

// lockProcess takes and drops locks.
func lockProcess(args []string) int {
	fd, err := unix.Open(args[0], unix.O_RDWR, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return serve(func(question string) string {
		var how string
		var start, length int64
		_, _ = fmt.Sscanf(question, "%s %d %d", &how, &start, &length)
		if how == "open-close" {
			return openAndClose(args[0])
		}
		return lock(fd, how, start, length)
	})
}

// openAndClose opens a file once more, and closes it.
func openAndClose(name string) string {
	fd, err := unix.Open(name, unix.O_RDWR, 0)
	if err == nil {
		err = unix.Close(fd)
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// lock does one thing to the locks of a file and tells how that ended.
func lock(fd int, how string, start, length int64) string {
	var err error
	switch how {
	case "flock-exclusive":
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	case "flock-shared":
		err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB)
	case "flock-drop":
		err = unix.Flock(fd, unix.LOCK_UN)
	case "flock-wait":
		err = unix.Flock(fd, unix.LOCK_EX)
	default:
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: start, Len: length}
		cmd := unix.F_SETLK
		switch how {
		case "ofd-write":
			cmd = unix.F_OFD_SETLK
		case "ofd-drop":
			cmd = unix.F_OFD_SETLK
			l.Type = unix.F_UNLCK
		case "read":
			l.Type = unix.F_RDLCK
		case "drop":
			l.Type = unix.F_UNLCK
		case "wait":
			cmd = unix.F_SETLKW
		case "who":
			cmd = unix.F_GETLK
		}
		err = unix.FcntlFlock(uintptr(fd), cmd, &l)
		if how == "who" && err == nil {
			if l.Type == unix.F_UNLCK {
				return "nobody"
			}
			return fmt.Sprintf("process %d, %d+%d", l.Pid, l.Start, l.Len)
		}
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func TestLocksOfTwoProcessesExcludeEachOther(t *testing.T) {
	t.Parallel()
	asRootAndAsUser(t, lightWays(), func(t *testing.T, d *daemon) {
		name := filepath.Join(d.Dir, "locked")
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		one, two := startPeer(t, "lock", name), startPeer(t, "lock", name)
		again := unix.EAGAIN.Error()
		want := func(p *peer, question, want string) {
			t.Helper()
			if got := p.ask(question); got != want {
				t.Errorf("%s: %q, want %q", question, got, want)
			}
		}
		want(one, "flock-exclusive", "ok")
		want(two, "flock-exclusive", again)
		want(two, "flock-shared", again)
		want(one, "flock-shared", "ok")
		want(two, "flock-shared", "ok")
		want(one, "flock-exclusive", again)
		want(two, "flock-drop", "ok")
		want(one, "flock-exclusive", "ok")

		// Locks of ranges have nothing to do with them.
		want(two, "write 100 50", "ok")
		want(one, "write 149 1", again)
		want(one, "write 150 10", "ok")
		want(one, "who 0 120", fmt.Sprintf("process %d, 100+50", two.cmd.Process.Pid))
		want(one, "who 0 100", "nobody")
		want(two, "read 100 50", "ok")
		want(one, "read 110 5", "ok")
		want(two, "write 100 50", again)
		want(one, "drop 110 5", "ok")
		want(two, "write 100 50", "ok")

		// Who waits goes on once the holder is gone.
		answers := make(chan string, 1)
		go func() { answers <- one.ask("wait 100 50") }()
		select {
		case got := <-answers:
			t.Fatalf("a lock that another process holds was got: %s", got)
		case <-time.After(100 * time.Millisecond):
		}
		two.kill()
		select {
		case got := <-answers:
			if got != "ok" {
				t.Errorf("wait: %s", got)
			}
		case <-time.After(patience):
			t.Fatal("still waiting for the lock of a dead process")
		}
		one.kill()
		three := startPeer(t, "lock", name)
		want(three, "flock-exclusive", "ok")
		want(three, "write 0 0", "ok")
		three.kill()
	})
}
