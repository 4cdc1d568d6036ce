package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// operation is something small that a program does, whose requests are counted.
type operation struct {
	what string
	// warm is done on the same mount before; nil where it is to be the first.
	warm func(dir string) error
	run  func(dir string) error
	// units is what the count is divided by: pages or MiB; 0 is 1.
	units int
}

const (
	requestMiB   = 64
	requestPages = 2000
)

// operations are those of the table in docs/PERFORMANCE.md. Before each, the mount is new, and the
// directory has the files "small", "old" and "warm", and "big" where there are units.
var operations = []operation{
	{what: "create, write 4 KiB, close", warm: makeSmall("first"), run: makeSmall("new")},
	{what: "the same as tar does", warm: makeAsTar("first"), run: makeAsTar("new")},
	{what: "cold open, read, close", warm: readSmall("warm"), run: readSmall("small")},
	{what: "warm open, read, close", warm: readSmall("small"), run: readSmall("small")},
	{what: "warm stat", warm: lookAt("small"), run: lookAt("small")},
	{what: "cold stat", warm: lookAt("warm"), run: lookAt("small")},
	{what: "stat of a name that is not there", warm: lookAt("warm"), run: lookForNone("none")},
	{what: "random overwrite, per page", warm: readSmall("warm"), run: overwriteSome, units: requestPages},
	{what: "sequential write, per MiB", warm: makeSmall("first"), run: writeMiB, units: requestMiB},
	{what: "sequential read, per MiB", warm: readSmall("warm"), run: readMiB, units: requestMiB},
	{what: "rename", warm: readSmall("warm"), run: func(dir string) error {
		return unix.Rename(filepath.Join(dir, "small"), filepath.Join(dir, "renamed"))
	}},
	{what: "unlink", warm: readSmall("warm"), run: func(dir string) error { return unix.Unlink(filepath.Join(dir, "old")) }},
	{what: "mkdir", warm: readSmall("warm"), run: func(dir string) error { return unix.Mkdir(filepath.Join(dir, "dir"), 0o755) }},
	{what: "symlink", warm: readSmall("warm"), run: func(dir string) error { return unix.Symlink("small", filepath.Join(dir, "link")) }},
}

// requestCounts prints how many requests each operation is on each subject, and each workload if some are named.
func requestCounts(ctx context.Context, s settings, stdout, progress io.Writer) (err error) {
	t, err := newTracer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	m, err := newMatrix(ctx, s, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.remove()) }()
	for _, sub := range s.subjects {
		if sub.kind == commands || sub.store == nativeStore {
			continue
		}
		if !s.named {
			err = m.countOperations(ctx, t, sub, stdout)
		} else {
			err = m.countWorkloads(ctx, t, sub, stdout)
		}
		if err != nil {
			return fmt.Errorf("count requests of %s: %w", sub.name, err)
		}
	}
	return nil
}

func (m *matrix) countWorkloads(ctx context.Context, t *tracer, sub subject, stdout io.Writer) error {
	for _, w := range m.workloads {
		if w.kind != mounts {
			continue
		}
		var counts map[string]int
		err := m.ready(ctx, w, sub, new(usage), func(at mount) (err error) {
			counts, err = t.requests(at.dir(), func() error { return w.run(ctx, m.in, at) })
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		printCount(stdout, w.name, sub, counts, 1)
	}
	return nil
}

func printCount(stdout io.Writer, what string, sub subject, counts map[string]int, units int) {
	fmt.Fprintf(stdout, "%-34s %-18s %s\n", what, sub.name, describe(counts, units))
}

// countOperations does each operation on a mount of its own of one volume, in a directory of its own.
func (m *matrix) countOperations(ctx context.Context, t *tracer, sub subject, stdout io.Writer) (err error) {
	p, err := newPlace(m.backing, m.in.stage, sub.name+"-requests")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	if err := sub.make(ctx, p); err != nil {
		return err
	}
	dir := func(at mount, i int) string { return filepath.Join(at.dir(), fmt.Sprintf("operation-%d", i)) }
	err = m.mounted(ctx, sub, p, new(usage), func(at mount) error {
		for i, op := range operations {
			if err := op.fill(dir(at, i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, op := range operations {
		var counts map[string]int
		err := m.mounted(ctx, sub, p, new(usage), func(at mount) (err error) {
			if err := op.warm(dir(at, i)); err != nil {
				return err
			}
			time.Sleep(50 * time.Millisecond) // what comes after a close
			counts, err = t.requests(at.dir(), func() error { return op.run(dir(at, i)) })
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", op.what, err)
		}
		printCount(stdout, op.what, sub, counts, max(op.units, 1))
	}
	return nil
}

// unawaited are the requests that the kernel sends without a program waiting.
var unawaited = []string{"RELEASE", "RELEASEDIR", "FORGET", "BATCH_FORGET", "INTERRUPT"}

func describe(counts map[string]int, units int) string {
	var total int
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[kind]; !slices.Contains(unawaited, kind) {
			total += n
			if n == 1 {
				kinds = append(kinds, kind)
			} else {
				kinds = append(kinds, fmt.Sprintf("%s×%d", kind, n))
			}
		}
	}
	if units == 1 {
		return fmt.Sprintf("%6d  %s", total, strings.Join(kinds, " "))
	}
	return fmt.Sprintf("%6.2f  %s", float64(total)/float64(units), strings.Join(kinds, " "))
}

// fill makes the directory and the files that the operation works on.
func (op operation) fill(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"small", "old", "warm"} {
		if err := makeSmall(name)(dir); err != nil {
			return err
		}
	}
	if op.units == 0 {
		return nil
	}
	f, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		return err
	}
	return errors.Join(writeTo(f), f.Close())
}

func writeTo(f *os.File) error {
	b := make([]byte, 1<<20)
	for range requestMiB {
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func makeSmall(name string) func(dir string) error {
	return func(dir string) error {
		return withFile(filepath.Join(dir, name), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, func(fd int) error {
			_, err := unix.Write(fd, make([]byte, page))
			return err
		})
	}
}

func makeAsTar(name string) func(dir string) error {
	return func(dir string) error {
		return withFile(filepath.Join(dir, name), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, func(fd int) error {
			_, err := unix.Write(fd, make([]byte, page))
			if err == nil {
				err = unix.Futimes(fd, []unix.Timeval{{Sec: 1e9}, {Sec: 1e9}})
			}
			if err == nil {
				err = unix.Fchown(fd, 1, 1)
			}
			if err == nil {
				err = unix.Fchmod(fd, 0o644)
			}
			return err
		})
	}
}

func readSmall(name string) func(dir string) error {
	return func(dir string) error {
		return withFile(filepath.Join(dir, name), unix.O_RDONLY, func(fd int) error {
			_, err := unix.Read(fd, make([]byte, page))
			return err
		})
	}
}

func lookAt(name string) func(dir string) error {
	return func(dir string) error { return unix.Lstat(filepath.Join(dir, name), new(unix.Stat_t)) }
}

func lookForNone(name string) func(dir string) error {
	return func(dir string) error {
		if err := lookAt(name)(dir); !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s is there: %w", name, err)
		}
		return nil
	}
}

func overwriteSome(dir string) error {
	return withFile(filepath.Join(dir, "big"), unix.O_WRONLY, func(fd int) error {
		pages := rand.New(rand.NewPCG(1, 2)).Perm(requestMiB << 20 / page)
		for _, i := range pages[:requestPages] {
			if _, err := unix.Pwrite(fd, make([]byte, page), int64(i)*page); err != nil {
				return err
			}
		}
		return nil
	})
}

func writeMiB(dir string) error {
	f, err := os.Create(filepath.Join(dir, "new"))
	if err != nil {
		return err
	}
	return errors.Join(writeTo(f), f.Close())
}

func readMiB(dir string) error {
	return withFile(filepath.Join(dir, "big"), unix.O_RDONLY, func(fd int) error {
		b := make([]byte, 1<<20)
		for {
			if n, err := unix.Read(fd, b); n == 0 || err != nil {
				return err
			}
		}
	})
}

// withFile opens and closes with no call besides, as os.Open makes some.
func withFile(path string, flags int, call func(fd int) error) error {
	fd, err := unix.Open(path, flags, 0o644)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	return errors.Join(call(fd), unix.Close(fd))
}
