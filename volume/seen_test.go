package volume

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// past is the modification time of all that prepare made, so that what moved
// since shows.
var past = time.Unix(1_000_000, 5)

// set makes the stage of an operation in an open volume.
func (o *operation) set(t *testing.T, v *Volume) *stage {
	t.Helper()
	quietPool(v)
	for i := range 256 { // so that calls do not depend on what is drawn
		must(v.sidecars.shelf(crypto.ID{byte(i)}, true))(t)
	}
	s := &stage{t: t, v: v}
	o.prepare(s)
	s.rewind(v.Root())
	return s
}

func (s *stage) rewind(dir *Node) {
	for _, name := range list(s.t, dir) {
		n := lookup(s.t, dir, name)
		if n.IsDir() {
			if a := must(n.Attr())(s.t); a.Mode&0o700 == 0o700 {
				s.rewind(n)
			}
		}
		_, err := n.SetAttr(context.Background(), Change{Mtime: &past})
		s.check(err)
		if !slices.Contains(s.kept, n) {
			n.Forget()
		}
	}
}

// thing is what a program sees at a path.
type thing struct {
	kind, mode, uid, gid, nlink uint32
	moved                       bool // the modification time; not of directories
	content                     []byte
	target                      string
	xattrs                      map[string][]byte
	linked                      bool
	twice                       bool  // bound to two names
	err                         error // reading it failed
}

// seen is all that a program sees in a volume, by path. Everything is read, and
// the seals of files are checked. What cannot be read is there with the error.
func seen(t *testing.T, v *Volume) map[string]thing {
	t.Helper()
	return look(t, v, true)
}

// look is seen; without sealed, of a store where the seals of files may not fit
// for a while.
func look(t *testing.T, v *Volume, sealed bool) map[string]thing {
	t.Helper()
	out := map[string]thing{}
	var look func(dir *Node, above string)
	look = func(dir *Node, above string) {
		for _, name := range list(t, dir) {
			n := lookup(t, dir, name)
			a := must(n.Attr())(t)
			x := thing{
				kind: n.Kind(), mode: a.Mode & 0o7777, uid: a.UID, gid: a.GID, nlink: a.Nlink,
				moved: !n.IsDir() && (a.Mtime.Sec != past.Unix() || int(a.Mtime.Nsec) != past.Nanosecond()),
			}
			switch {
			case n.IsRegular():
				if x.content, x.err = tryReadAll(n); x.err != nil {
					break
				}
				if sealed {
					checkSeal(t, n)
				}
				x.xattrs = must(n.xattrMap())(t)
				f := must(n.openFile(false))(t)
				x.linked = f.rec.Linked()
				x.twice = f.rec.BindingB != ([16]byte{})
				f.release()
			case n.IsSymlink():
				x.target = must(n.Readlink())(t)
			case n.IsDir():
				x.xattrs = must(n.xattrMap())(t)
				x.twice = must(n.readRecord())(t).BindingB != ([16]byte{})
				if a.Mode&0o700 == 0o700 {
					look(n, above+name+"/")
				}
			}
			out[above+name] = x
		}
	}
	look(v.Root(), "")
	return out
}

// agree tells what in got is neither old nor new. With steps, each block of a
// file, its size, and each attribute may be of either by itself.
func agree(got, old, new map[string]thing, steps bool) error {
	if reflect.DeepEqual(got, old) || reflect.DeepEqual(got, new) {
		return nil
	}
	if !steps {
		return fmt.Errorf("neither old nor new:\ngot %v\nold %v\nnew %v", brief(got), brief(old), brief(new))
	}
	paths := slices.Sorted(maps.Keys(got))
	if !slices.Equal(paths, slices.Sorted(maps.Keys(old))) && !slices.Equal(paths, slices.Sorted(maps.Keys(new))) {
		return fmt.Errorf("paths %q", paths)
	}
	return agreeEach(got, old, new)
}

// agreeEach is agree for the entries by themselves.
func agreeEach(got, old, new map[string]thing) error {
	for p, g := range got {
		o, n := old[p], new[p]
		if g.err != nil {
			return g.err
		}
		if g.mode != o.mode && g.mode != n.mode || g.linked != o.linked && g.linked != n.linked {
			return fmt.Errorf("%q: %v, old %v, new %v", p, brief(got)[p], brief(old)[p], brief(new)[p])
		}
		for off := 0; off < len(g.content); off += blk {
			b := g.content[off:min(len(g.content), off+blk)]
			if !bytes.Equal(b, blockOf(o.content, off, len(b))) && !bytes.Equal(b, blockOf(n.content, off, len(b))) {
				return fmt.Errorf("%q: block %d is neither old nor new", p, off/blk)
			}
		}
		if lo, hi := min(len(o.content), len(n.content)), max(len(o.content), len(n.content)); len(g.content) < lo || len(g.content) > hi {
			return fmt.Errorf("%q: %d bytes, want %d to %d", p, len(g.content), lo, hi)
		}
	}
	return nil
}

func brief(m map[string]thing) map[string]string {
	out := map[string]string{}
	for p, x := range m {
		if len(p) > 20 {
			p = p[:20] + "…"
		}
		sum := crypto.ID{}
		for i, b := range x.content {
			sum[i%16] = sum[i%16]*31 + b
		}
		if x.err != nil {
			out[p] = x.err.Error()
			continue
		}
		out[p] = fmt.Sprintf("%o %o nlink %d moved %v linked %v twice %v size %d sum %x target %d xattrs %q", x.kind, x.mode, x.nlink, x.moved, x.linked, x.twice, len(x.content), sum[:4], len(x.target), x.xattrs)
	}
	return out
}

// leftovers lists what lies in a backing directory though nothing needs it, and
// counts the sidecars among that. live is the session that has it open.
func leftovers(t *testing.T, b *bench, v *Volume) (left []string, sidecars int) {
	t.Helper()
	used := map[string]bool{}
	var ids func(dir *Node)
	ids = func(dir *Node) {
		for _, name := range list(t, dir) {
			switch n := lookup(t, dir, name); {
			case n.IsDir():
				ids(n)
			case n.IsRegular():
				if f, err := n.openFile(false); err == nil {
					used[f.id.String()] = true
					f.release()
				}
			case n.IsSymlink():
				used[must(n.readBackingLink())(t)] = true
			}
		}
	}
	ids(v.Root())
	for _, k := range v.pool.ready {
		used[k.id.String()] = true
	}
	err := filepath.WalkDir(b.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == b.dir {
			return err
		}
		name := e.Name()
		rel := strings.TrimPrefix(p, b.dir+"/")
		switch {
		case strings.HasPrefix(rel, ".kmsfs/keys/"):
			if !e.IsDir() && !used[name] {
				if strings.HasSuffix(name, tmpSuffix) {
					left = append(left, rel)
				} else {
					sidecars++
				}
			}
		case strings.HasPrefix(rel, ".kmsfs/links/") && !used[name],
			strings.HasPrefix(rel, ".kmsfs/redo/") && !strings.HasPrefix(name, v.session.id.String()),
			strings.HasPrefix(rel, ".kmsfs/sessions/") && name != v.session.id.String(),
			isTemporary(name):
			left = append(left, rel)
		case isLongNameFile(name):
			if _, err := os.Lstat(strings.TrimSuffix(p, crypto.LongSuffix)); err != nil {
				left = append(left, rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return left, sidecars
}

// userStore is a store on which root has no more rights than an ordinary user
// who owns everything: opening asks for the owner's bits, and writing takes suid
// and sgid away.
type userStore struct{ System }

// search asks for the right to search a directory.
func (k userStore) search(dirfd int) error {
	var st unix.Statx_t
	if err := k.System.Statx(dirfd, "", &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Mode&0o100 == 0 {
		return unix.EACCES
	}
	return nil
}

func (k userStore) Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	if err := k.search(dirfd); err != nil {
		return -1, err
	}
	var st unix.Statx_t
	if flags&unix.O_PATH == 0 && k.System.Statx(dirfd, name, &st) == nil {
		if write := flags&unix.O_ACCMODE != unix.O_RDONLY; write && st.Mode&0o200 == 0 {
			return -1, unix.EACCES
		}
		if read := flags&unix.O_ACCMODE != unix.O_WRONLY; read && st.Mode&0o400 == 0 {
			return -1, unix.EACCES
		}
	}
	return k.System.Openat(dirfd, name, flags, mode)
}

func (k userStore) Pwrite(fd int, b []byte, off int64) (int, error) {
	n, err := k.System.Pwrite(fd, b, off)
	var st unix.Statx_t
	if err == nil && k.System.Statx(fd, "", &st) == nil && st.Mode&0o6000 != 0 {
		err = k.System.Fchmodat(fd, "", uint32(st.Mode)&0o1777)
	}
	return n, err
}

func (k userStore) Renameat2(od int, on string, nd int, nn string, flags uint) error {
	if err := k.search(od); err != nil {
		return err
	}
	return k.System.Renameat2(od, on, nd, nn, flags)
}

func (k userStore) Unlinkat(dirfd int, name string, flags int) error {
	if err := k.search(dirfd); err != nil {
		return err
	}
	return k.System.Unlinkat(dirfd, name, flags)
}

func (k userStore) Fsetxattr(fd int, name string, value []byte, flags int) error {
	var st unix.Statx_t
	if err := k.System.Statx(fd, "", &st); err != nil {
		return err
	}
	if st.Mode&0o200 == 0 {
		return unix.EACCES
	}
	return k.System.Fsetxattr(fd, name, value, flags)
}
