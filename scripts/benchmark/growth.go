package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// growth is what is measured at several sizes: whether an operation takes longer,
// or an inode more memory, the more there are.
type growth struct {
	Machine machine      `json:"machine"`
	Rounds  int          `json:"rounds"`
	Points  []point      `json:"points"`
	Sparse  []sparseFile `json:"sparse"`
	Clients []crowd      `json:"clients"`
}

// point is one round with a number of files in one directory.
type point struct {
	Subject string  `json:"subject"`
	Files   int     `json:"files"`
	Create  float64 `json:"create_us"`  // of each file, in microseconds
	Lookup  float64 `json:"lookup_us"`  // cold, in a random order
	Readdir float64 `json:"readdir_us"` // cold, of each entry
	Unlink  float64 `json:"unlink_us"`  // cold, in a random order

	// The daemon's resident memory, in KiB: mounted, with all inodes known to the
	// kernel, and after that has forgotten them. 0 where there is no daemon.
	Mounted   int64 `json:"mounted_kib"`
	Known     int64 `json:"known_kib"`
	Forgotten int64 `json:"forgotten_kib"` // 0: the kernel was not made to forget
}

// perInode is the memory that the daemon has more for each inode, in bytes.
func (p point) perInode() float64 { return float64(p.Known-p.Mounted) * 1024 / float64(p.Files) }

// fileCounts reads numbers separated by commas.
func fileCounts(text string) (counts []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q files, want numbers such as 1000,10000", part)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// measureGrowth measures all sizes on all chosen subjects that are mounted.
func measureGrowth(ctx context.Context, s settings, progress io.Writer) (_ *growth, err error) {
	m := &matrix{settings: s, prepared: make(map[string]place), progress: progress}
	if m.in.stage, err = workDir(""); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(m.in.stage)) }()
	if m.backing, err = workDir(s.backing); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(m.backing)) }()
	g := &growth{Machine: thisMachine(m.backing), Rounds: s.rounds}
	subjects := slices.DeleteFunc(slices.Clone(s.subjects), func(t subject) bool { return t.kind != mounts })
	for round := range s.rounds {
		for _, t := range subjects {
			for _, files := range s.files {
				p, err := m.grow(ctx, t, files)
				if err != nil {
					return nil, fmt.Errorf("%d files on %s: %w", files, t.name, err)
				}
				fmt.Fprintf(progress, "round %d of %d: %-14s %8d files: %.0f µs a create\n", round+1, s.rounds, t.name, files, p.Create)
				g.Points = append(g.Points, p)
			}
			f, c, err := m.growElsewhere(ctx, t)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			g.Sparse, g.Clients = append(g.Sparse, f), append(g.Clients, c...)
		}
	}
	return g, nil
}

// grow measures files in one directory, with a new mount for each thing.
func (m *matrix) grow(ctx context.Context, t subject, files int) (r point, err error) {
	r = point{Subject: t.name, Files: files}
	p, err := newPlace(m.backing, m.in.stage, t.store+"-growth")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	if err := t.make(ctx, p); err != nil {
		return r, err
	}
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprintf("entries/entry-%07d", i)
	}
	// each times a call for every file, in microseconds.
	each := func(ctx context.Context, at mount, call func(path string) error) (float64, error) {
		began := time.Now()
		for _, name := range names {
			if err := call(filepath.Join(at.dir(), name)); err != nil || ctx.Err() != nil {
				return 0, errors.Join(err, ctx.Err())
			}
		}
		return float64(time.Since(began).Microseconds()) / float64(files), nil
	}
	steps := []func(at mount) error{
		func(at mount) (err error) {
			if err := os.Mkdir(entriesDir(at), 0o755); err != nil {
				return err
			}
			r.Create, err = each(ctx, at, func(path string) error {
				fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
				if err != nil {
					return err
				}
				return unix.Close(fd)
			})
			return err
		},
		func(at mount) (err error) {
			rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			r.Mounted = resident(at)
			r.Lookup, err = each(ctx, at, func(path string) error {
				var st unix.Stat_t
				return unix.Lstat(path, &st)
			})
			r.Known = resident(at)
			if err == nil && m.forget {
				r.Forgotten, err = afterForgetting(at)
			}
			return err
		},
		func(at mount) (err error) {
			r.Readdir, err = listAll(entriesDir(at), files)
			return err
		},
		func(at mount) (err error) {
			r.Unlink, err = each(ctx, at, unix.Unlink)
			return err
		},
	}
	for _, step := range steps {
		if err := dropCaches(p.backing); err != nil {
			return r, err
		}
		if err := m.mounted(ctx, t, p, new(usage), step); err != nil {
			return r, err
		}
	}
	return r, nil
}

// listAll reads a directory, and says how long each entry took, in microseconds.
func listAll(dir string, files int) (float64, error) {
	began := time.Now()
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	names, err := d.Readdirnames(-1)
	took := time.Since(began)
	if err == nil && len(names) != files {
		err = fmt.Errorf("%d entries, want %d", len(names), files)
	}
	return float64(took.Microseconds()) / float64(files), errors.Join(err, d.Close())
}

// resident is what the daemon of a mount has in memory, in KiB.
func resident(at mount) int64 {
	if d, ok := at.(interface{ resident() int64 }); ok {
		return d.resident()
	}
	return 0
}

// afterForgetting has the kernel forget inodes, and waits until the daemon's memory
// does not shrink any more: Go gives it back over some minutes, the most of it soon.
func afterForgetting(at mount) (kib int64, err error) {
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		return 0, fmt.Errorf("make the kernel forget inodes, which only root can (or -forget=false): %w", err)
	}
	kib = resident(at)
	for quiet := 0; quiet < 5; quiet++ {
		time.Sleep(2 * time.Second)
		if now := resident(at); now < kib-kib/100 {
			kib, quiet = now, 0
		}
	}
	return kib, nil
}

// table prints medians for people.
func (g *growth) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "subject\tfiles\tcreate\tlookup\treaddir\tunlink\tmounted\tknown\tforgotten\tan inode")
	var seen []point
	for _, p := range g.Points {
		if slices.ContainsFunc(seen, func(q point) bool { return q.Subject == p.Subject && q.Files == p.Files }) {
			continue
		}
		seen = append(seen, p)
		of := func(value func(point) float64) float64 {
			var all []float64
			for _, q := range g.Points {
				if q.Subject == p.Subject && q.Files == p.Files {
					all = append(all, value(q))
				}
			}
			return median(all)
		}
		fmt.Fprintf(t, "%s\t%d\t%.1f µs\t%.1f µs\t%.2f µs\t%.1f µs\t%.1f MiB\t%.1f MiB\t%.1f MiB\t%.0f B\n", p.Subject, p.Files,
			of(func(q point) float64 { return q.Create }), of(func(q point) float64 { return q.Lookup }),
			of(func(q point) float64 { return q.Readdir }), of(func(q point) float64 { return q.Unlink }),
			of(func(q point) float64 { return float64(q.Mounted) / 1024 }), of(func(q point) float64 { return float64(q.Known) / 1024 }),
			of(func(q point) float64 { return float64(q.Forgotten) / 1024 }), of(point.perInode))
	}
	for _, f := range g.Sparse {
		fmt.Fprintf(t, "%s\ta file of %d GiB\twrite %.1f ms\tread %.1f ms\tread a hole %.1f ms\tseek %.1f ms\ttruncate %.1f ms\tstored %d KiB\n",
			f.Subject, f.Size>>30, f.Write, f.Read, f.ReadHole, f.Seek, f.Truncate, f.Stored)
	}
	for _, c := range g.Clients {
		fmt.Fprintf(t, "%s\t%d clients\t%.0f operations/s\n", c.Subject, c.Clients, c.PerSecond)
	}
	t.Flush()
}

func (g *growth) write(path string) error {
	b, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
