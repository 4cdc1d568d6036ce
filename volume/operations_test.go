package volume

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// operation is something that a program can ask of a volume. It is run in a
// volume that holds what prepare made and nothing else, and is then killed, or
// made to fail, at each of its calls on the backing directory.
type operation struct {
	name    string
	prepare func(s *stage)
	run     func(s *stage) error
	// steps: it is several changes one after the other, so that each block may be
	// of before or after, not all of them of one.
	steps bool
	// displaces: it takes two steps to replace an empty directory; in between, that is
	// under the old name.
	displaces bool
	// user: by an ordinary user, who owns everything.
	user bool
	// mayLeave are leftovers that FORMAT.md names, beside sidecars.
	mayLeave string
}

// stage is the volume that an operation is run in.
type stage struct {
	t *testing.T
	v *Volume
	// kept are nodes that are in use, as by an open file.
	kept []*Node
}

func (s *stage) root() *Node                { return s.v.Root() }
func (s *stage) node(p string) *Node        { return must(byPath{s.t, s.v}.at(p))(s.t) }
func (s *stage) file(p string, n int)       { s.fill(p, pattern(n, byte(len(p)))) }
func (s *stage) check(err error)            { s.t.Helper(); must(0, err)(s.t) }
func (s *stage) dir(p string)               { s.check(byPath{s.t, s.v}.Mkdir(p)) }
func (s *stage) link(old, p string)         { s.check(byPath{s.t, s.v}.Link(old, p)) }
func (s *stage) symlink(target, p string)   { s.check(byPath{s.t, s.v}.Symlink(target, p)) }
func (s *stage) chmod(p string, m uint32)   { s.check(byPath{s.t, s.v}.Chmod(p, m)) }
func (s *stage) truncate(p string, n int64) { s.check(byPath{s.t, s.v}.Truncate(p, n)) }

func (s *stage) fill(p string, content []byte) {
	s.check(byPath{s.t, s.v}.Create(p))
	if len(content) > 0 {
		s.check(byPath{s.t, s.v}.WriteAt(p, content, 0))
	}
}

// in makes an operation on a directory and a name out of a path.
func in(p string, call func(dir *Node, name string) error) func(*stage) error {
	return func(s *stage) error { return byPath{s.t, s.v}.in(p, call) }
}

// on makes an operation on what is at a path.
func on(p string, call func(ctx context.Context, n *Node) error) func(*stage) error {
	return func(s *stage) error {
		n, err := byPath{s.t, s.v}.at(p)
		if err != nil {
			return err
		}
		return call(context.Background(), n)
	}
}

func renaming(old, p string, flags uint32) func(*stage) error {
	return func(s *stage) error { return byPath{s.t, s.v}.Rename(old, p, flags) }
}

func writing(p string, n int, off int64) func(*stage) error {
	return on(p, func(ctx context.Context, f *Node) error { _, err := f.WriteAt(ctx, pattern(n, 99), off); return err })
}

func allocating(p string, off, length int64, mode uint32) func(*stage) error {
	return on(p, func(ctx context.Context, f *Node) error { return f.Allocate(ctx, off, length, mode) })
}

func cutting(p string, size int64) func(*stage) error {
	return on(p, func(ctx context.Context, f *Node) error { return f.Truncate(ctx, size) })
}

var (
	longOne = strings.Repeat("l", 200)
	longTwo = strings.Repeat("m", 255)
)

const blk = crypto.BlockSize

// operations are all that a program can ask for, in the ways that differ.
func operations() []operation {
	none := func(*stage) {}
	sized := func(n int) func(*stage) { return func(s *stage) { s.file("f", n) } }
	sparse := func(s *stage) {
		s.file("f", blk+100)
		s.truncate("f", 6*blk+50)
		s.check(byPath{s.t, s.v}.WriteAt("f", pattern(blk, 3), 4*blk))
	}
	two := func(s *stage) { s.file("f", 5000); s.file("g", 7000) }
	dirs := func(s *stage) {
		s.dir("a")
		s.dir("b")
		s.file("a/f", 5000)
		s.file("b/g", 100)
	}
	create := func(mode uint32, owner Owner) func(*Node, string) error {
		return func(d *Node, name string) error { _, _, err := d.Create(name, mode, owner); return err }
	}
	mkdir := func(mode uint32, owner Owner) func(*Node, string) error {
		return func(d *Node, name string) error { _, _, err := d.Mkdir(name, mode, owner); return err }
	}
	symlink := func(n int, owner Owner) func(*Node, string) error {
		return func(d *Node, name string) error {
			_, _, err := d.Symlink(name, strings.Repeat("t", n), owner)
			return err
		}
	}
	fifo := func(owner Owner) func(*Node, string) error {
		return func(d *Node, name string) error {
			_, _, err := d.Mknod(name, unix.S_IFIFO|0o644, 0, 0, owner)
			return err
		}
	}
	link := func(old string) func(s *stage) error {
		return func(s *stage) error { return byPath{s.t, s.v}.Link(old, "linked") }
	}
	temp := func(name string) func(s *stage) error {
		return func(s *stage) error {
			n, _, err := s.root().CreateTemp(0o640, Owner{})
			if err != nil {
				return err
			}
			defer n.Forget()
			if _, err := n.WriteAt(context.Background(), pattern(5000, 1), 0); err != nil {
				return err
			}
			_, err = s.root().Link(n, name)
			return err
		}
	}
	setattr := func(c Change) func(s *stage) error {
		return on("f", func(ctx context.Context, n *Node) error { _, err := n.SetAttr(ctx, c); return err })
	}
	open := func(prepare func(*stage), p string) func(*stage) {
		return func(s *stage) {
			prepare(s)
			n := s.node(p)
			readAll(s.t, n)
			s.kept = append(s.kept, n)
		}
	}
	other := Owner{Set: true, UID: 1000, GID: 1000}
	mode, size, id := uint32(0o4711), int64(3000), uint32(1000)
	when := time.Unix(5_000_000, 7)

	ops := []operation{
		{name: "create", prepare: none, run: in("f", create(0o640, Owner{}))},
		{name: "create a long name", prepare: none, run: in(longOne, create(0o640, Owner{}))},
		{name: "create in a directory", prepare: func(s *stage) { s.dir("a") }, run: in("a/f", create(0o640, Owner{}))},
		{name: "create an unreadable file", prepare: none, run: in("f", create(0, Owner{}))},
		{name: "make a file without a name and link it", prepare: none, run: temp("f"), steps: true},
		{name: "make a file without a name and link it under a long one", prepare: none, run: temp(longTwo), steps: true},
		{name: "mkdir", prepare: none, run: in("a", mkdir(0o755, Owner{}))},
		{name: "mkdir a long name", prepare: none, run: in(longTwo, mkdir(0o755, Owner{}))},
		{name: "mkdir without permissions", prepare: none, run: in("a", mkdir(0, Owner{}))},
		{name: "symlink", prepare: none, run: in("s", symlink(20, Owner{}))},
		{name: "symlink to a long target", prepare: none, run: in("s", symlink(4000, Owner{}))},
		{name: "symlink of a long name to a long target", prepare: none, run: in(longOne, symlink(4000, Owner{}))},
		{name: "mkfifo", prepare: none, run: in("p", fifo(Owner{}))},
		{name: "mkfifo of a long name", prepare: none, run: in(longOne, fifo(Owner{}))},

		{name: "write into an empty file", prepare: sized(0), run: writing("f", 5000, 0)},
		{name: "overwrite whole blocks", prepare: sized(5 * blk), run: writing("f", 2*blk, blk)},
		{name: "overwrite parts of blocks", prepare: sized(5 * blk), run: writing("f", 2*blk, blk+17)},
		{name: "overwrite the first block in part", prepare: sized(5 * blk), run: writing("f", 10, 5)},
		{name: "append to a short tail", prepare: sized(blk + 100), run: writing("f", 3*blk, blk+100)},
		{name: "append at a block's end", prepare: sized(2 * blk), run: writing("f", 3*blk, 2*blk)},
		{name: "write beyond a short tail", prepare: sized(blk + 100), run: writing("f", 3*blk, 5*blk+10)},
		{name: "write into a hole", prepare: sparse, run: writing("f", 100, 3*blk+10)},
		{name: "write a mebibyte at an odd place", prepare: sized(3 * blk), run: writing("f", maxWrite, 333)},
		{name: "write more than a mebibyte", prepare: sized(3 * blk), run: writing("f", maxWrite+5000, 333), steps: true},
		{name: "write back", prepare: sized(3 * blk), run: on("f", func(ctx context.Context, n *Node) error {
			_, err := n.WriteBack(ctx, pattern(5000, 99), 300)
			return err
		})},
		{name: "write to an open file", prepare: open(sized(3*blk), "f"), run: writing("f", 500, 300)},

		{name: "truncate to nothing", prepare: sized(5000), run: cutting("f", 0)},
		{name: "truncate inside a block", prepare: sized(5 * blk), run: cutting("f", 2*blk+77)},
		{name: "truncate inside the tail", prepare: sized(blk + 100), run: cutting("f", blk+50)},
		{name: "truncate to a block's end", prepare: sized(5*blk + 5), run: cutting("f", 2*blk)},
		{name: "truncate a sparse file", prepare: sparse, run: cutting("f", 4*blk+50)},
		{name: "grow a tail", prepare: sized(blk + 100), run: cutting("f", blk+200)},
		{name: "grow beyond a tail", prepare: sized(blk + 100), run: cutting("f", 9*blk+200)},
		{name: "grow from a block's end", prepare: sized(2 * blk), run: cutting("f", 9*blk+200)},
		{name: "truncate to the same size", prepare: sized(5000), run: cutting("f", 5000)},

		{name: "allocate", prepare: sized(5000), run: allocating("f", 1000, 40_000, 0), steps: true},
		{name: "allocate, keep size", prepare: sized(5000), run: allocating("f", 1000, 40_000, KeepSize)},
		{name: "punch whole blocks", prepare: sized(6*blk + 20), run: allocating("f", blk, 3*blk, punchHole)},
		{name: "punch to the end", prepare: sized(6*blk + 20), run: allocating("f", 3*blk, 9*blk, punchHole)},
		{name: "punch parts of blocks", prepare: sized(6*blk + 20), run: allocating("f", blk-50, 3*blk+100, punchHole), steps: true},
		{name: "punch inside a block", prepare: sized(6*blk + 20), run: allocating("f", blk+50, 100, punchHole)},
		{name: "zero parts of blocks", prepare: sized(6*blk + 20), run: allocating("f", blk-50, 3*blk+100, ZeroRange), steps: true},
		{name: "zero beyond the end", prepare: sized(6*blk + 20), run: allocating("f", 5*blk-50, 3*blk+100, ZeroRange), steps: true},

		{name: "rename", prepare: two, run: renaming("f", "h", 0)},
		{name: "rename to a long name", prepare: two, run: renaming("f", longOne, 0)},
		{name: "rename from a long name", prepare: func(s *stage) { s.file(longOne, 5000) }, run: renaming(longOne, "f", 0)},
		{name: "rename from one long name to another", prepare: func(s *stage) { s.file(longOne, 5000) }, run: renaming(longOne, longTwo, RenameNoReplace)},
		{name: "rename to another directory", prepare: dirs, run: renaming("a/f", "b/f", 0)},
		{name: "rename over a file", prepare: two, run: renaming("f", "g", 0)},
		{name: "rename over a file with a long name", prepare: func(s *stage) { s.file("f", 10); s.file(longTwo, 100) }, run: renaming("f", longTwo, 0)},
		{name: "rename from a long name over a file", prepare: func(s *stage) { s.file("f", 10); s.file(longTwo, 100) }, run: renaming(longTwo, "f", 0)},
		{name: "rename over an open file", prepare: open(two, "g"), run: renaming("f", "g", 0)},
		{name: "rename over a linked file", prepare: func(s *stage) { two(s); s.link("g", "g2") }, run: renaming("f", "g", 0)},
		{name: "rename a linked file", prepare: func(s *stage) { two(s); s.link("f", "f2") }, run: renaming("f", "h", 0)},
		{name: "rename over a symlink to a long target", prepare: func(s *stage) { s.file("f", 10); s.symlink(strings.Repeat("t", 4000), "s") }, run: renaming("f", "s", 0)},
		{name: "rename a symlink", prepare: func(s *stage) { s.symlink(strings.Repeat("t", 4000), "s") }, run: renaming("s", longOne, 0)},
		{name: "rename a directory", prepare: dirs, run: renaming("a", "c", 0)},
		{name: "rename a directory into another", prepare: dirs, run: renaming("a", "b/a", 0)},
		{name: "rename a directory from a long name to another", prepare: func(s *stage) { s.dir(longOne); s.file(longOne+"/f", 100) }, run: renaming(longOne, longTwo, 0)},
		{name: "rename a directory over an empty one", displaces: true, prepare: func(s *stage) { dirs(s); s.dir("e") }, run: renaming("a", "e", 0)},
		{name: "rename a directory over an empty one elsewhere", displaces: true, prepare: func(s *stage) { dirs(s); s.dir("b/e") }, run: renaming("a", "b/e", 0)},
		{name: "rename a directory of a long name over an empty one of a long name", displaces: true, prepare: func(s *stage) {
			s.dir(longOne)
			s.file(longOne+"/f", 100)
			s.dir(longTwo)
		}, run: renaming(longOne, longTwo, 0)},
		{name: "exchange files", prepare: dirs, run: renaming("a/f", "b/g", RenameExchange)},
		{name: "exchange directories", prepare: dirs, run: renaming("a", "b", RenameExchange)},
		{name: "exchange a file and a directory", prepare: func(s *stage) { dirs(s); s.file(longOne, 30) }, run: renaming("a", longOne, RenameExchange)},
		{name: "exchange a linked file and a symlink", prepare: func(s *stage) { two(s); s.link("f", "f2"); s.symlink("x", "s") }, run: renaming("f", "s", RenameExchange)},

		{name: "link", prepare: two, run: link("f")},
		{name: "link a linked file", prepare: func(s *stage) { two(s); s.link("f", "f2") }, run: link("f")},
		{name: "link to a long name", prepare: two, run: func(s *stage) error { return byPath{s.t, s.v}.Link("f", longOne) }},
		{name: "unlink", prepare: two, run: in("f", (*Node).Unlink)},
		{name: "unlink an open file", prepare: open(two, "f"), run: in("f", (*Node).Unlink)},
		{name: "unlink a long name", prepare: func(s *stage) { s.file(longOne, 300) }, run: in(longOne, (*Node).Unlink)},
		{name: "unlink one of two links", prepare: func(s *stage) { two(s); s.link("f", "f2") }, run: in("f", (*Node).Unlink)},
		{name: "unlink a symlink to a long target", prepare: func(s *stage) { s.symlink(strings.Repeat("t", 4000), longOne) }, run: in(longOne, (*Node).Unlink)},
		{name: "rmdir", prepare: func(s *stage) { s.dir("a") }, run: in("a", (*Node).Rmdir)},
		{name: "rmdir a long name", prepare: func(s *stage) { s.dir("a"); s.dir("a/" + longOne) }, run: in("a/"+longOne, (*Node).Rmdir)},
		{name: "unlink, forget and reap", prepare: two, run: func(s *stage) error {
			n, _, err := s.root().Lookup("f")
			if err != nil {
				return err
			}
			if err := s.root().Unlink("f"); err != nil {
				return err
			}
			n.Forget()
			s.v.reaper.flush()
			return nil
		}},

		{name: "chmod", prepare: sized(5000), run: setattr(Change{Mode: &mode})},
		{name: "set times", prepare: sized(5000), run: setattr(Change{Mtime: &when, Atime: &when})},
		{name: "truncate and chmod", prepare: sized(5000), run: setattr(Change{Size: &size, Mode: &mode}), steps: true},
		{name: "drop privileges", prepare: func(s *stage) { s.file("f", 5000); s.chmod("f", 0o6755) }, run: setattr(Change{DropPrivileges: true})},
		{name: "set an attribute", prepare: sized(5000), run: on("f", func(_ context.Context, n *Node) error {
			return n.Setxattr("user.a", []byte("value"), 0)
		})},
		{name: "replace an attribute of a directory", prepare: func(s *stage) { s.dir("a"); s.check(s.node("a").Setxattr("user.a", []byte("old"), 0)) },
			run: on("a", func(_ context.Context, n *Node) error {
				return n.Setxattr("user.a", []byte("value"), unix.XATTR_REPLACE)
			})},
		{name: "remove an attribute", prepare: func(s *stage) { s.file("f", 5000); s.check(s.node("f").Setxattr("user.a", []byte("old"), 0)) },
			run: on("f", func(_ context.Context, n *Node) error { return n.Removexattr("user.a") })},
		{name: "fsync", prepare: dirs, run: on("a/f", func(_ context.Context, n *Node) error { return n.Sync(false) })},
		{name: "fsync a directory", prepare: dirs, run: on("a", func(_ context.Context, n *Node) error { return n.Sync(false) })},
		{name: "read", prepare: dirs, run: on("a/f", func(_ context.Context, n *Node) error { _, err := tryReadAll(n); return err })},
		{name: "give files new data keys", prepare: dirs, steps: true, mayLeave: dataTmpPrefix, run: func(s *stage) error {
			_, err := s.v.Reencrypt(context.Background(), ReencryptOptions{})
			return err
		}},

		{name: "rename a read-only file", user: true, prepare: func(s *stage) { two(s); s.chmod("f", 0o444) }, run: renaming("f", "h", 0)},
		{name: "rename a suid file", user: true, prepare: func(s *stage) { two(s); s.chmod("f", 0o6755) }, run: renaming("f", "h", 0)},
		{name: "link a file without permissions", user: true, prepare: func(s *stage) { two(s); s.chmod("f", 0) }, run: link("f")},
		{name: "rename a directory without permissions", user: true, prepare: func(s *stage) { dirs(s); s.chmod("a", 0) }, run: renaming("a", "c", 0)},
		{name: "remove a directory without permissions", user: true, prepare: func(s *stage) { s.dir("a"); s.chmod("a", 0) }, run: in("a", (*Node).Rmdir)},
		{name: "write to an open file that is read-only", user: true, prepare: func(s *stage) { open(two, "f")(s); s.chmod("f", 0o444) }, run: writing("f", 500, 300)},
		{name: "set an attribute of a read-only file", user: true, prepare: func(s *stage) { two(s); s.chmod("f", 0o444) }, run: on("f", func(_ context.Context, n *Node) error {
			return n.Setxattr("user.a", []byte("value"), 0)
		})},
	}
	if os.Geteuid() == 0 {
		ops = append(ops,
			operation{name: "create for another user", prepare: none, run: in("f", create(0o6755, other))},
			operation{name: "mkdir for another user", prepare: none, run: in("a", mkdir(0o755, other))},
			operation{name: "symlink to a long target for another user", prepare: none, run: in("s", symlink(4000, other))},
			operation{name: "mkfifo for another user", prepare: none, run: in(longOne, fifo(other))},
			operation{name: "chown", prepare: sized(5000), run: setattr(Change{UID: &id, GID: &id})},
			operation{name: "rename, leaving a whiteout", prepare: two, run: renaming("f", "h", RenameWhiteout)},
			operation{name: "rename over a file, leaving a whiteout", prepare: two, run: renaming("f", longOne, RenameWhiteout)},
			operation{name: "rename a directory over an empty one, leaving a whiteout", displaces: true, prepare: func(s *stage) { dirs(s); s.dir("e") }, run: renaming("a", "e", RenameWhiteout)},
		)
	}
	return ops
}
