package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// matrix is a measurement under way.
type matrix struct {
	settings
	in       input
	backing  string           // directory of the backing directories
	prepared map[string]place // by store and preparation
	progress io.Writer
}

// newMatrix makes the directories to work in, and what the chosen workloads work with.
func newMatrix(ctx context.Context, s settings, progress io.Writer) (m *matrix, err error) {
	m = &matrix{settings: s, prepared: make(map[string]place), progress: progress}
	m.in.scale = s.scale
	if m.in.stage, err = workDir(""); err == nil {
		m.backing, err = workDir(s.backing)
	}
	if err == nil {
		err = m.prepareInput(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, m.remove())
	}
	return m, nil
}

func (m *matrix) remove() error {
	return errors.Join(os.RemoveAll(m.in.stage), os.RemoveAll(m.backing))
}

// measure runs every workload on every subject, round after round. Each run has
// a mount of its own, so nothing is cached from the one before.
func measure(ctx context.Context, s settings, progress io.Writer) (_ *results, err error) {
	m, err := newMatrix(ctx, s, progress)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.remove()) }()
	r := newResults(s, m.in, m.backing)
	for round := range s.rounds {
		for _, w := range s.workloads {
			able := s.able(w)
			for i := range able {
				// Every subject comes first, in turn.
				t := able[(i+round)%len(able)]
				seconds, u, err := m.one(ctx, w, t)
				if err != nil {
					return nil, fmt.Errorf("%s on %s: %w", w.name, t.name, err)
				}
				fmt.Fprintf(progress, "round %d of %d: %-14s %-20s %6.2f s\n", round+1, s.rounds, w.name, t.name, seconds)
				r.add(w.name, t.name, seconds, u)
			}
		}
	}
	r.finish()
	return r, nil
}

// able are the chosen subjects that can do a workload.
func (s *settings) able(w workload) (able []subject) {
	for _, t := range s.subjects {
		if t.kind == w.kind {
			able = append(able, t)
		}
	}
	return able
}

// prepareInput makes what the chosen workloads work with.
func (m *matrix) prepareInput(ctx context.Context) (err error) {
	of := func(k kind) bool {
		return slices.ContainsFunc(m.workloads, func(w workload) bool { return w.kind == k && len(m.able(w)) > 0 })
	}
	if of(mounts) {
		if m.tree == "" {
			var goroot strings.Builder
			if err := command(ctx, &goroot, "go", "env", "GOROOT"); err != nil {
				return err
			}
			m.tree = filepath.Join(strings.TrimSpace(goroot.String()), "src")
		}
		m.in.tar = filepath.Join(m.in.stage, "tree.tar")
		if m.in.tree, err = pack(ctx, m.tree, m.in.tar); err != nil {
			return err
		}
	}
	if of(commands) {
		m.in.plain, m.in.size = filepath.Join(m.in.stage, "plain"), int64(m.size)<<20
		return writeRandom(m.in.plain, m.in.size)
	}
	return nil
}

// one runs a workload once, and says how long it took and what the mount cost.
func (m *matrix) one(ctx context.Context, w workload, t subject) (seconds float64, u usage, err error) {
	err = m.ready(ctx, w, t, &u, func(at mount) error {
		began := time.Now()
		err := w.run(ctx, m.in, at)
		seconds = time.Since(began).Seconds()
		return err
	})
	return seconds, u, err
}

// ready calls f with a mount that has what the workload wants, and nothing cached.
func (m *matrix) ready(ctx context.Context, w workload, t subject, u *usage, f func(at mount) error) error {
	p, kept, err := m.place(ctx, w, t)
	if err == nil {
		err = dropCaches(p.backing)
	}
	if err == nil {
		err = m.mounted(ctx, t, p, u, f)
	}
	if !kept {
		err = errors.Join(err, p.remove())
	}
	return err
}

// place is a volume with what the workload wants there: one that is kept for
// other runs, or one to remove.
func (m *matrix) place(ctx context.Context, w workload, t subject) (p place, kept bool, err error) {
	name := t.store + "-" + w.name
	if kept = w.on != nil && !w.on.usedUp; kept {
		name = t.store + "-" + w.on.name
		if p, ok := m.prepared[name]; ok {
			return p, kept, nil
		}
	}
	if p, err = newPlace(m.backing, m.in.stage, name); err == nil {
		err = t.make(ctx, p)
	}
	if err == nil && w.on != nil {
		err = m.mounted(ctx, t, p, new(usage), func(at mount) error { return w.on.fill(ctx, m.in, at) })
	}
	if kept && err == nil {
		m.prepared[name] = p
	}
	return p, kept, err
}

// mounted calls f with a mount, which is gone when it returns.
func (m *matrix) mounted(ctx context.Context, t subject, p place, u *usage, f func(at mount) error) error {
	mnt, err := t.mount(ctx, p)
	if err != nil {
		return err
	}
	err = f(mnt)
	var uerr error
	*u, uerr = mnt.unmount()
	return errors.Join(err, uerr)
}
