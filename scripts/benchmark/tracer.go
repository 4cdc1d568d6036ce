package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

const traceFS = "/sys/kernel/tracing"

// tracer counts the requests that the kernel sends to a FUSE mount, by the
// kernel's own tracepoint: exact, for every mount, and only root may. It has a
// buffer of its own beside whatever else is traced.
type tracer struct {
	instance string
	mounted  bool // tracefs, by us
}

func newTracer() (_ *tracer, err error) {
	t := new(tracer)
	if _, err := os.Stat(filepath.Join(traceFS, "instances")); err != nil {
		if err := unix.Mount("tracefs", traceFS, "tracefs", 0, ""); err != nil {
			return nil, fmt.Errorf("mount tracefs, which only root can: %w", err)
		}
		t.mounted = true
	}
	if t.instance, err = os.MkdirTemp(filepath.Join(traceFS, "instances"), "kmsfs-bench."); err != nil {
		return nil, errors.Join(fmt.Errorf("make a buffer to trace into: %w", err), t.close())
	}
	if err := t.set("buffer_size_kb", "65536"); err != nil {
		return nil, errors.Join(fmt.Errorf("make room to trace into: %w", err), t.close())
	}
	return t, nil
}

func (t *tracer) close() (err error) {
	if t.instance != "" {
		err = os.Remove(t.instance)
	}
	if t.mounted {
		err = errors.Join(err, unix.Unmount(traceFS, 0))
	}
	return err
}

func (t *tracer) set(file, value string) error {
	return os.WriteFile(filepath.Join(t.instance, file), []byte(value), 0)
}

// requests returns how many requests of each kind the kernel sent to the mount
// at dir during call and until it had been quiet for a while, by name.
func (t *tracer) requests(dir string, call func() error) (_ map[string]int, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, fmt.Errorf("look at mount: %w", err)
	}
	const event = "events/fuse/fuse_request_send/"
	err = t.set(event+"filter", fmt.Sprintf("connection == %d", unix.Minor(st.Dev)))
	if err == nil {
		err = t.set("trace", "") // empties it
	}
	if err == nil {
		err = t.set(event+"enable", "1")
	}
	if err != nil {
		return nil, fmt.Errorf("trace requests: %w", err)
	}
	defer func() { err = errors.Join(err, t.set(event+"enable", "0")) }()
	if err := call(); err != nil {
		return nil, err
	}
	counts, err := t.settled()
	if err == nil {
		err = t.nothingLost()
	}
	return counts, err
}

// nothingLost is an error if there was not enough room.
func (t *tracer) nothingLost() error {
	files, err := filepath.Glob(filepath.Join(t.instance, "per_cpu/cpu*/stats"))
	for _, name := range files {
		b, rerr := os.ReadFile(name)
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		if m := overrun.FindSubmatch(b); m == nil || string(m[1]) != "0" {
			return fmt.Errorf("more requests than there is room for in the trace: %s", m)
		}
	}
	return err
}

var overrun = regexp.MustCompile(`(?m)^overrun: (\d+)`)

// settled reads the counts when they have not changed for some time.
func (t *tracer) settled() (map[string]int, error) {
	const quiet = 20
	last, same := -1, 0
	for range 1000 {
		counts, total, err := t.read()
		if err != nil {
			return nil, err
		}
		if total != last {
			last, same = total, 0
		} else if same++; same == quiet {
			return counts, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, errors.New("the kernel does not stop asking")
}

// program-12 [001] ..... 8.1: fuse_request_send: connection 64 req 6 opcode 1 (FUSE_LOOKUP) len 48
var requestLine = regexp.MustCompile(`fuse_request_send: .* \(FUSE_(\w+)\)`)

func (t *tracer) read() (counts map[string]int, total int, err error) {
	f, err := os.Open(filepath.Join(t.instance, "trace"))
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	counts = make(map[string]int)
	s := bufio.NewScanner(f)
	for s.Scan() {
		if m := requestLine.FindStringSubmatch(s.Text()); m != nil {
			counts[m[1]]++
			total++
		}
	}
	return counts, total, s.Err()
}
