package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	kmsfs "kmsfs/fs"
	"kmsfs/kmsprovider/local"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kmsfs": main, "mount.kmsfs": main})
}

// The scripts run the command in processes of its own, on real mounts. Besides
// testscript's commands they have those of scriptCommands. What opens a file of a
// mount is run by exec: what this process has open, a program that it starts at
// that moment has too, and the mount is in use.
func TestScripts(t *testing.T) {
	if signal.Ignored(unix.SIGHUP) { // under nohup: what a process ignores, those that it starts do, too
		signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setupScript,
		Condition:           scriptCondition,
		Cmds:                scriptCommands,
	})
}

const testPassphrase = "correct horse battery staple"

// patience is how long tests wait for what must happen: a busy machine takes its
// time.
const patience = time.Minute

// scriptState is what a script holds.
type scriptState struct {
	held    *os.File // a file in the mount
	process int      // pidfd of the process that signal was sent to
}

type stateKey struct{}

func setupScript(env *testscript.Env) error {
	// A path with a space in it, since users have such.
	for name, value := range map[string]string{
		"HOME": "home", "XDG_STATE_HOME": "state dir", "XDG_DATA_HOME": "data", "KMSFS_PASSPHRASE_FILE": "pw",
		"XDG_RUNTIME_DIR": "run",
	} {
		env.Setenv(name, filepath.Join(env.WorkDir, value))
	}
	env.Setenv("KMSFS_KEYSTORE", "")
	env.Setenv("GORACE", "atexit_sleep_ms=0") // or each command takes a second more under -race
	env.Setenv("CREDENTIALS_DIRECTORY", "")
	state := &scriptState{process: -1}
	env.Values[stateKey{}] = state
	env.Defer(func() {
		state.release()
		unmountBelow(env.WorkDir)
	})
	if err := os.Mkdir(filepath.Join(env.WorkDir, "run"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(env.WorkDir, "pw"), []byte(testPassphrase+"\n"), 0o600); err != nil {
		return err
	}
	switch filepath.Base(env.WorkDir) {
	case "script-init", "script-kms": // they show that it is made
		return nil
	}
	return makeCheapKeystore(filepath.Join(env.WorkDir, "data", "kmsfs", "keystore.json"))
}

// makeCheapKeystore makes a keystore whose passphrase is fast to check.
func makeCheapKeystore(path string) error {
	k, err := local.Create(context.Background(), local.Options{
		Path:       path,
		Passphrase: func() ([]byte, error) { return []byte(testPassphrase), nil },
		KDF:        &local.KDFParams{Time: 1, MemoryKiB: 8, Threads: 1},
	})
	if err != nil {
		return err
	}
	return k.Close()
}

func (s *scriptState) release() {
	if s.held != nil {
		s.held.Close()
		s.held = nil
	}
	if s.process >= 0 {
		unix.Close(s.process)
		s.process = -1
	}
}

// unmountBelow ends what mounts a script has left, if need be with force, and
// waits for those who served them.
func unmountBelow(dir string) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer f.Close()
	entries, _ := parseMountinfo(f)
	for _, m := range entries {
		if !strings.HasPrefix(m.mountpoint, dir+"/") {
			continue
		}
		w := watch(m.device)
		if unix.Unmount(m.mountpoint, 0) != nil {
			_ = unix.Unmount(m.mountpoint, unix.MNT_DETACH)
		}
		_ = w.wait(patience)
		w.close()
	}
}

func scriptCondition(name string) (bool, error) {
	switch name {
	case "mounts": // root may mount here
		return canMount() == nil, nil
	case "cpulatency": // the kernel has a device for wishes about wake-ups
		return unix.Access(kmsfs.LatencyDevice, unix.W_OK) == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

func canMount() error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err
}

var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// exits CODE PROGRAM ARG...: the program exits with the code.
	"exits": func(ts *testscript.TestScript, _ bool, args []string) {
		want, err := strconv.Atoi(args[0])
		ts.Check(err)
		err = ts.Exec(args[1], args[2:]...)
		got := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			ts.Fatalf("%v", err)
		}
		if got != want {
			ts.Fatalf("exit code %d, want %d", got, want)
		}
	},
	"profile": scriptProfile,
	"field":   scriptField,
	"blob":    scriptBlob,
	"wrapkey": scriptWrapKey,
	"rsakey":  scriptRSAKey,
	// [!] mounted DIR: waits until DIR is a kmsfs mount, or is none any more.
	"mounted": func(ts *testscript.TestScript, neg bool, args []string) {
		dir := realDir(ts, args[0])
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			m, ok, err := findMount(dir)
			ts.Check(err)
			if (ok && m.fsType == fsType) != neg {
				return
			}
			if time.Now().After(deadline) {
				ts.Fatalf("%s: mounted is %v after %v", dir, neg, patience)
			}
		}
	},
	// source DIR TEXT: DIR's mount shows TEXT as its source.
	"source": func(ts *testscript.TestScript, _ bool, args []string) {
		m, _, err := findMount(realDir(ts, args[0]))
		ts.Check(err)
		if m.source != args[1] {
			ts.Fatalf("source is %q, want %q", m.source, args[1])
		}
	},
	// signal NAME [DIR]: signals the process that serves the mount at DIR, or
	// the one of last time.
	"signal": func(ts *testscript.TestScript, _ bool, args []string) {
		s := ts.Value(stateKey{}).(*scriptState)
		if len(args) > 1 {
			m, ok, err := findMount(realDir(ts, args[1]))
			ts.Check(err)
			w := watch(m.device)
			for deadline := time.Now().Add(patience); w == nil && time.Now().Before(deadline); { // one in the foreground has just begun
				time.Sleep(time.Millisecond)
				w = watch(m.device)
			}
			if !ok || w == nil {
				ts.Fatalf("%s: no mount, or nobody who serves it", args[1])
			}
			defer w.close()
			if s.process >= 0 {
				unix.Close(s.process)
			}
			s.process, err = unix.PidfdOpen(w.pid, 0)
			ts.Check(err)
		}
		ts.Check(unix.PidfdSendSignal(s.process, unix.SignalNum("SIG"+args[0]), nil, 0))
	},
	// [!] ended: the process that was signalled ends, or still runs.
	"ended": func(ts *testscript.TestScript, neg bool, args []string) {
		s := ts.Value(stateKey{}).(*scriptState)
		timeout := int(patience.Milliseconds())
		if neg {
			timeout = 300
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.process), Events: unix.POLLIN}}, timeout)
		ts.Check(err)
		if (n == 1) == neg {
			ts.Fatalf("process ended: %v", n == 1)
		}
	},
	// hold FILE, letgo: opens the file in the test's process, and closes it.
	"hold": func(ts *testscript.TestScript, _ bool, args []string) {
		f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
		ts.Check(err)
		ts.Value(stateKey{}).(*scriptState).held = f
	},
	"letgo": func(ts *testscript.TestScript, _ bool, _ []string) {
		s := ts.Value(stateKey{}).(*scriptState)
		// A program that is being started has it until its exec.
		syscall.ForkLock.RLock()
		err := s.held.Close()
		syscall.ForkLock.RUnlock()
		ts.Check(err)
		s.held = nil
	},
	// heldwrite TEXT, heldread TEXT: through the file that is held.
	"heldwrite": func(ts *testscript.TestScript, _ bool, args []string) {
		f := ts.Value(stateKey{}).(*scriptState).held
		_, err := f.WriteAt([]byte(args[0]), 0)
		ts.Check(err)
		ts.Check(f.Sync())
	},
	"heldread": func(ts *testscript.TestScript, _ bool, args []string) {
		b := make([]byte, len(args[0]))
		_, err := ts.Value(stateKey{}).(*scriptState).held.ReadAt(b, 0)
		ts.Check(err)
		if string(b) != args[0] {
			ts.Fatalf("read %q, want %q", b, args[0])
		}
	},
}

func realDir(ts *testscript.TestScript, path string) string {
	dir, err := resolveMountpoint(ts.MkAbs(path))
	ts.Check(err)
	return dir
}
