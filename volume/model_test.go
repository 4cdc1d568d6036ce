package volume

import (
	"context"
	"flag"
	"path"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/integration/model"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "seed of the model test; 0 draws one")
	modelSteps = flag.Int("model.steps", 6000, "operations of the model test")
)

// byPath makes a volume a target of the model test.
type byPath struct {
	t testing.TB
	v *Volume
}

var _ model.Target = byPath{}

// at finds the node of a path.
func (b byPath) at(p string) (*Node, error) {
	n := b.v.Root()
	for name := range strings.SplitSeq(p, "/") {
		if name == "" {
			continue
		}
		var err error
		if n, _, err = n.Lookup(name); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// in calls with the directory of a path and the name in it.
func (b byPath) in(p string, call func(*Node, string) error) error {
	dir, name := path.Split(p)
	n, err := b.at(dir)
	if err != nil {
		return err
	}
	return call(n, name)
}

func (b byPath) Create(p string) error {
	return b.in(p, func(n *Node, name string) error { _, _, err := n.Create(name, 0o640, Owner{}); return err })
}

func (b byPath) Mkdir(p string) error {
	return b.in(p, func(n *Node, name string) error { _, _, err := n.Mkdir(name, 0o755, Owner{}); return err })
}

func (b byPath) Symlink(target, p string) error {
	return b.in(p, func(n *Node, name string) error { _, _, err := n.Symlink(name, target, Owner{}); return err })
}

func (b byPath) Unlink(p string) error { return b.in(p, (*Node).Unlink) }
func (b byPath) Rmdir(p string) error  { return b.in(p, (*Node).Rmdir) }

func (b byPath) Link(old, p string) error {
	target, err := b.at(old)
	if err != nil {
		return err
	}
	return b.in(p, func(n *Node, name string) error { _, err := n.Link(target, name); return err })
}

func (b byPath) Rename(old, p string, flags uint32) error {
	return b.in(old, func(from *Node, oldName string) error {
		return b.in(p, func(to *Node, newName string) error { return from.Rename(oldName, to, newName, flags) })
	})
}

func (b byPath) WriteAt(p string, data []byte, off int64) error {
	n, err := b.at(p)
	if err == nil {
		_, err = n.WriteAt(context.Background(), data, off)
	}
	return err
}

func (b byPath) Truncate(p string, size int64) error {
	n, err := b.at(p)
	if err != nil {
		return err
	}
	return n.Truncate(context.Background(), size)
}

func (b byPath) Fallocate(p string, mode uint32, off, length int64) error {
	n, err := b.at(p)
	if err != nil {
		return err
	}
	return n.Allocate(context.Background(), off, length, mode)
}

func (b byPath) Seek(p string, off int64, whence int) (int64, error) {
	n, err := b.at(p)
	if err != nil {
		return 0, err
	}
	if whence == unix.SEEK_DATA {
		return n.SeekData(off)
	}
	return n.SeekHole(off)
}

func (b byPath) ReadAt(p string, dest []byte, off int64) (int, error) {
	n, err := b.at(p)
	if err != nil {
		return 0, err
	}
	return n.ReadAt(context.Background(), dest, off)
}

func (b byPath) Mkfifo(p string) error {
	return b.in(p, func(n *Node, name string) error {
		_, _, err := n.Mknod(name, unix.S_IFIFO|0o644, 0, 0, Owner{})
		return err
	})
}

func (b byPath) set(p string, c Change) error {
	n, err := b.at(p)
	if err == nil {
		_, err = n.SetAttr(context.Background(), c)
	}
	return err
}

func (b byPath) Chmod(p string, mode uint32) error { return b.set(p, Change{Mode: &mode}) }

func (b byPath) Chown(p string, uid, gid uint32) error { return b.set(p, Change{UID: &uid, GID: &gid}) }

func (b byPath) SetMtime(p string, mtime time.Time) error { return b.set(p, Change{Mtime: &mtime}) }

// openNode is a node that somebody has open.
type openNode struct{ n *Node }

func (o openNode) WriteAt(b []byte, off int64) (int, error) {
	return o.n.WriteAt(context.Background(), b, off)
}

func (o openNode) ReadAt(b []byte, off int64) (int, error) {
	return o.n.ReadAt(context.Background(), b, off)
}

func (o openNode) Truncate(size int64) error { return o.n.Truncate(context.Background(), size) }

func (o openNode) Link(fs model.Target, p string) error {
	return fs.(byPath).in(p, func(n *Node, name string) error { _, err := n.Link(o.n, name); return err })
}

// Close leaves the node to Volume.Close: another handle may be of the same one.
func (o openNode) Close() error { return nil }

func (b byPath) CreateTemp(dir string) (model.Handle, error) {
	n, err := b.at(dir)
	if err != nil {
		return nil, err
	}
	temp, _, err := n.CreateTemp(0o640, Owner{})
	if err != nil {
		return nil, err
	}
	return openNode{temp}, nil
}

func (b byPath) Setxattr(p, name string, value []byte, flags int) error {
	n, err := b.at(p)
	if err != nil {
		return err
	}
	return n.Setxattr(name, value, flags)
}

func (b byPath) Getxattr(p, name string) ([]byte, error) {
	n, err := b.at(p)
	if err != nil {
		return nil, err
	}
	return n.Getxattr(name)
}

func (b byPath) Removexattr(p, name string) error {
	n, err := b.at(p)
	if err != nil {
		return err
	}
	return n.Removexattr(name)
}

func (b byPath) Listxattr(p string) ([]string, error) {
	n, err := b.at(p)
	if err != nil {
		return nil, err
	}
	return n.Listxattr()
}

func (b byPath) Open(p string) (model.Handle, error) {
	n, err := b.at(p)
	if err != nil {
		return nil, err
	}
	return openNode{n}, nil
}

func (b byPath) Readlink(p string) (string, error) {
	n, err := b.at(p)
	if err != nil {
		return "", err
	}
	return n.Readlink()
}

func (b byPath) List(p string) ([]string, error) {
	n, err := b.at(p)
	if err != nil {
		return nil, err
	}
	return list(b.t, n), nil
}

func (b byPath) Stat(p string) (model.Stat, error) {
	n, err := b.at(p)
	if err != nil {
		return model.Stat{}, err
	}
	a, err := n.Attr()
	return model.Stat{
		Size: int64(a.Size), Nlink: int(a.Nlink), Kind: n.Kind(), Mode: a.Mode & 0o7777,
		UID: a.UID, GID: a.GID, Mtime: time.Unix(a.Mtime.Sec, int64(a.Mtime.Nsec)),
	}, err
}

func TestRandomOperationsAgreeWithAModelAlsoAfterReopening(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			b := newBench(t, mode)
			// Few descriptors, so that files are closed and opened all the time.
			few := func(o *Options) { o.MaxDescriptors = 8 }
			v := b.open(few)
			store, err := model.ProbeStore(b.dir)
			if err != nil {
				t.Fatal(err)
			}
			model.Run(t, byPath{t, v}, model.Options{
				Seed: *modelSeed, Steps: *modelSteps, Every: 1500, Store: store,
				Reopen: func() model.Target {
					b.close(v)
					v = b.open(few)
					return byPath{t, v}
				},
				Forget: func(p string) {
					if n, err := (byPath{t, v}).at(p); err == nil {
						n.Forget()
					}
				},
				Check: func(p string) {
					n, err := byPath{t, v}.at(p)
					if err != nil {
						t.Fatal(err)
					}
					checkSeal(t, n)
				},
			})
		})
	}
}
