package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// restarted is a store after a power cut: its inodes have the numbers that they had
// before, and nothing has to be durable any more.
type restarted struct {
	System
	inos map[uint64]uint64 // as they are now, to those of before
}

func (restarted) Fsync(int) error     { return nil }
func (restarted) Fdatasync(int) error { return nil }
func (restarted) Syncfs(int) error    { return nil }

// madeSince is the bit of inode numbers that were not there before.
const madeSince = 1 << 40

func (k restarted) ino(now uint64) uint64 {
	if before, ok := k.inos[now]; ok {
		return before
	}
	return now | madeSince
}

func (k restarted) Statx(dirfd int, name string, st *unix.Statx_t) error {
	err := k.System.Statx(dirfd, name, st)
	st.Ino = k.ino(st.Ino)
	return err
}

func (k restarted) Getdents(fd int, buf []byte) (int, error) {
	n, err := k.System.Getdents(fd, buf)
	for at := 0; at < n; { // struct linux_dirent64: number, offset, length of the record
		binary.NativeEndian.PutUint64(buf[at:], k.ino(binary.NativeEndian.Uint64(buf[at:])))
		at += int(binary.NativeEndian.Uint16(buf[at+16:]))
	}
	return n, err
}

// verdict is what was found in one state, or in many.
type verdict struct {
	states, files, blocks int
	settled               int // states that a check settled, to be mounted once more
	exceptions            int // blocks that were synced, then overwritten, and are unreadable
	unsynced              int // blocks that never were, and are unreadable
	violations            []string
}

func (a *verdict) add(b *verdict) {
	a.states += b.states
	a.files += b.files
	a.blocks += b.blocks
	a.settled += b.settled
	a.exceptions += b.exceptions
	a.unsynced += b.unsynced
	a.violations = append(a.violations, b.violations...)
}

// check is the look at one state.
type check struct {
	*crashLoad
	k      int // what was acknowledged before this event counts
	tree   map[*object]map[string]*object
	strict bool
	needed map[*tracked]bool // directories that synced objects are in
	// clean: the volume was not open for writing, so that all is there.
	clean  bool
	phase  string
	read   map[blockKey][sha256.Size]byte // by the first mount
	reread map[blockKey]bool              // in this phase
	verdict
}

type blockKey struct {
	f     *tracked
	block int
}

func (c *check) violation(format string, args ...any) {
	what := c.phase + fmt.Sprintf(format, args...)
	for _, letter := range []string{"x", "y"} { // of long names
		what = strings.ReplaceAll(what, strings.Repeat(letter, 200), letter+"…")
	}
	c.violations = append(c.violations, what)
}

// store is a state made a directory, with what the host remembers of it.
type store struct {
	dir    string
	inodes map[uint64]*object
}

func (s store) backing() string { return filepath.Join(s.dir, "backing") }
func (s store) hosts() string   { return filepath.Join(s.dir, "hosts") }

// restart makes the state a store: another boot, without an end.
func (s *crashState) restart(dir string) (st store, h HostState, err error) {
	st.dir = dir
	if err = os.MkdirAll(st.hosts(), 0o700); err != nil {
		return st, h, err
	}
	if st.inodes, err = s.materialize(st.backing()); err != nil {
		return st, h, err
	}
	// What the host writes, it does between two events.
	h = s.log[max(0, s.k-1)].host
	if s.seed%2 == 0 && s.k < len(s.log) {
		h = s.log[s.k].host
	}
	if h.Path = st.backing(); h.Open {
		h.Boot = "another-boot"
	}
	b, err := json.Marshal(h)
	if err != nil {
		return st, h, err
	}
	return st, h, os.WriteFile(filepath.Join(st.hosts(), h.ID.String()+".json"), b, 0o600)
}

// was gives the inodes of a store the numbers that they had before.
func (s store) was() restarted {
	inos := map[uint64]uint64{}
	for now, o := range s.inodes {
		inos[now] = o.ino
	}
	return restarted{inos: inos}
}

// options opens a store after event k.
func (l *crashLoad) optionsAfter(k int, s store, strict bool, backing Backing) Options {
	o := l.b.options()
	if l.rewrapped > 0 && k >= l.rewrapped { // the old key is gone for good
		left := *l.b
		left.kms = &fakeKMS{keys: map[string]*crypto.XAES{keyB: l.b.kms.keys[keyB]}, calls: map[string]int{}}
		o.Providers = left.registry()
	}
	o.StateDir, o.Backing, o.Strict, o.Log = s.hosts(), backing, strict, slog.New(slog.DiscardHandler)
	return o
}

// checkState makes the state in dir, mounts it, and compares it with what had been
// acknowledged before. With settle it is mounted again, settled, and mounted once
// more.
func (l *crashLoad) checkState(s *crashState, dir string, strict, settle bool) *verdict {
	c := &check{crashLoad: l, k: s.k, tree: s.tree, strict: strict}
	defer os.RemoveAll(dir)
	st, h, err := s.restart(dir)
	if err != nil {
		c.violation("the test itself: %v", err)
		return &c.verdict
	}
	c.clean = !h.Open
	c.mounts(st, h, st.was(), settle)
	return &c.verdict
}

// mounts looks at a store by one mount, and with settle by two more.
func (c *check) mounts(s store, h HostState, backing Backing, settle bool) {
	c.states++
	c.above()
	relaxed := h.Open || h.Unsettled
	open := func(relaxed bool) *Volume {
		v, err := Open(context.Background(), s.backing(), c.optionsAfter(c.k, s, c.strict, backing))
		if err != nil {
			c.violation("it does not mount: %v", err)
			return nil
		}
		if v.relaxed != relaxed {
			c.violation("mismatches are accepted: %v", v.relaxed)
		}
		c.look(v)
		return v
	}
	end := func(v *Volume) {
		if err := v.Close(); err != nil {
			c.violation("close: %v", err)
		}
	}
	v := open(relaxed)
	if v == nil {
		return
	}
	end(v)
	if !settle {
		return
	}
	c.settled++
	c.phase = "mounted a second time: "
	if v = open(relaxed); v == nil {
		return
	}
	c.phase = "settled: "
	if r, err := v.Settle(context.Background()); err != nil || relaxed && !v.settled.Load() {
		c.violation("Settle: %v, complete: %v: %s", err, r.Complete, show(r))
		relaxed = !v.settled.Load()
	} else {
		relaxed = false
	}
	c.look(v)
	end(v)
	c.phase = "settled and mounted again: "
	if v = open(relaxed); v != nil {
		end(v)
	}
}

// look compares all that is there.
func (c *check) look(v *Volume) {
	if c.phase != "" {
		c.reread = map[blockKey]bool{}
	}
	c.directory(c.root, v.Root(), true)
	if c.reread == nil {
		return
	}
	for key := range c.read {
		if !c.reread[key] {
			c.violation("block %d of file %v is not shown any more", key.block, key.f.names)
		}
	}
}

// compare sees that what could be read at first still can. Zeros in the place of a
// block that never was synced are nothing to be kept.
func (c *check) compare(key blockKey, where string, synced bool, got []byte, err error) {
	sum := sha256.Sum256(got)
	if c.reread == nil {
		if err == nil && (synced || len(bytes.Trim(got, "\x00")) > 0) {
			if c.read == nil {
				c.read = map[blockKey][sha256.Size]byte{}
			}
			c.read[key] = sum
		}
		return
	}
	c.reread[key] = true
	if before, ok := c.read[key]; ok && (err != nil || before != sum) {
		c.violation("file %s, block %d was something else before: %v", where, key.block, err)
	}
}
