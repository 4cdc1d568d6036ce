package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

// bench is a volume's place, and its KMS.
type bench struct {
	t     testing.TB
	dir   string
	state string
	kms   *fakeKMS
	mode  volume.KeyMode
	log   *bytes.Buffer
	store volume.Backing // if not the system's
}

const place = "memory:"

func newBench(t testing.TB, mode volume.KeyMode) *bench {
	t.Helper()
	at := t.TempDir()
	t.Cleanup(func() { unlock(at) })
	b := &bench{t: t, dir: filepath.Join(at, "backing"), state: filepath.Join(at, "state"), kms: newFakeKMS(), mode: mode, log: new(bytes.Buffer)}
	_, err := volume.Init(context.Background(), b.dir, volume.InitOptions{
		Keys: []kmsprovider.KeyURI{{Provider: "local", KeyID: fakeKey}}, Mode: mode, Providers: b.registry(), StateDir: b.state,
	})
	if err != nil {
		t.Fatalf("Init: %v", err)
	}
	return b
}

func (b *bench) registry() *kmsprovider.Registry {
	r := kmsprovider.NewRegistry()
	r.Register("local", func(context.Context) (kmsprovider.Provider, error) { return b.kms, nil })
	return r
}

func (b *bench) options() volume.Options {
	return volume.Options{Providers: b.registry(), StateDir: b.state, Backing: b.store, Log: slog.New(slog.NewTextHandler(&lockedWriter{w: b.log}, nil))}
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// elsewhere is the same volume on another host, where there is nothing of it yet.
func (b *bench) elsewhere() *bench {
	c, at := *b, b.t.TempDir()
	b.t.Cleanup(func() { unlock(at) })
	c.dir, c.state = filepath.Join(at, "backing"), filepath.Join(at, "state")
	return &c
}

// with opens the volume, does something, and closes it.
func (b *bench) with(do func(v *volume.Volume)) {
	b.t.Helper()
	v, err := volume.Open(context.Background(), b.dir, b.options())
	if err != nil {
		b.t.Fatalf("Open: %v", err)
	}
	do(v)
	if err := v.Close(); err != nil {
		b.t.Fatalf("Close: %v", err)
	}
}

func (b *bench) tryPush(m *memory, edit ...func(*PushOptions)) (report PushReport, err error) {
	b.t.Helper()
	o := PushOptions{Place: place, Jobs: 3}
	for _, e := range edit {
		e(&o)
	}
	v, err := volume.Open(context.Background(), b.dir, b.options())
	if err != nil {
		b.t.Fatalf("Open: %v", err)
	}
	a := v.Access()
	report, err = Push(context.Background(), b.dir, a, m, o)
	a.Close()
	if cerr := v.Close(); cerr != nil {
		b.t.Fatalf("Close: %v", cerr)
	}
	return report, err
}

func (b *bench) push(m *memory, edit ...func(*PushOptions)) PushReport {
	b.t.Helper()
	r, err := b.tryPush(m, edit...)
	if err != nil {
		b.t.Fatalf("Push: %v", err)
	}
	return r
}

func (b *bench) tryPull(m *memory, edit ...func(*PullOptions)) (PullReport, error) {
	o := PullOptions{Place: place, Volume: b.options(), Jobs: 3}
	for _, e := range edit {
		e(&o)
	}
	return Pull(context.Background(), m, b.dir, o)
}

func (b *bench) pull(m *memory, edit ...func(*PullOptions)) PullReport {
	b.t.Helper()
	r, err := b.tryPull(m, edit...)
	if err != nil {
		b.t.Fatalf("Pull: %v", err)
	}
	return r
}

// lose removes the backing directory, and what this host remembers with it.
func (b *bench) lose() {
	b.t.Helper()
	for _, dir := range []string{b.dir, b.state} {
		unlock(dir)
		if err := os.RemoveAll(dir); err != nil {
			b.t.Fatal(err)
		}
	}
}

// unlock makes directories such that they can be removed.
func unlock(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
}

// look is all that there is in a backing directory, but for what is this host's: by
// path, attributes and content.
func look(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	first := make(map[uint64]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch rel {
		case ".kmsfs", ".kmsfs/redo", ".kmsfs/sessions", ".kmsfs/reserve.0", ".kmsfs/reserve.1", ".kmsfs/reserve.2", ".kmsfs/reserve.3", ".kmsfs/volume.json.bak":
			if d.IsDir() && rel != ".kmsfs" {
				return filepath.SkipDir
			}
			return nil
		}
		if d.IsDir() && strings.HasPrefix(rel, ".kmsfs") {
			return nil // sync tools leave out empty ones
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var st unix.Statx_t
		if err := statx(fd, "", &st); err != nil {
			return err
		}
		a, err := attributesOf(fd, &st)
		if err != nil {
			return err
		}
		own := strings.HasPrefix(rel, ".kmsfs")
		kind := st.Mode & unix.S_IFMT
		s := fmt.Sprintf("%o %d:%d %v %d", st.Mode, a.UID, a.GID, a.Xattrs, unix.Mkdev(st.Rdev_major, st.Rdev_minor))
		if !own && filepath.Base(rel) != recordName && !isLongNameFile(filepath.Base(rel)) {
			s += fmt.Sprintf(" %d.%09d", a.MTime.Sec, a.MTime.Nsec)
		}
		if kind != unix.S_IFDIR && st.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			s += " as " + first[st.Ino]
		}
		switch kind {
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if errors.Is(err, os.ErrPermission) {
				if err = chmodOpen(fd, uint32(st.Mode)&0o7777|0o400); err == nil {
					content, err = os.ReadFile(path)
					_ = chmodOpen(fd, uint32(st.Mode)&0o7777)
				}
			}
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %d %x", len(content), sha256.Sum256(content))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			s += " " + target
		}
		out[rel] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// diff tells how two looks differ.
func diff(want, got map[string]string) string {
	var b strings.Builder
	for path, w := range want {
		if g, ok := got[path]; !ok {
			fmt.Fprintf(&b, "missing  %s\n", path)
		} else if g != w {
			fmt.Fprintf(&b, "differs  %s:\n  want %s\n  got  %s\n", path, w, g)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			fmt.Fprintf(&b, "too much %s\n", path)
		}
	}
	return b.String()
}

func mustBeSame(t testing.TB, want, got map[string]string) {
	t.Helper()
	if d := diff(want, got); d != "" {
		t.Fatalf("the volume is not what it was:\n%.4000s", d)
	}
}

// must panics on errors of what tests prepare.
func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

func pattern(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + seed + i>>8)
	}
	return b
}

func create(t testing.TB, dir *volume.Node, name string, content []byte) *volume.Node {
	t.Helper()
	n, _, err := dir.Create(name, 0o644, volume.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	write(t, n, content, 0)
	return n
}

func write(t testing.TB, n *volume.Node, content []byte, off int64) {
	t.Helper()
	for len(content) > 0 {
		got, err := n.WriteAt(context.Background(), content, off)
		if err != nil {
			t.Fatalf("write: %v", err)
		}
		content, off = content[got:], off+int64(got)
	}
}

func owner() volume.Owner { return volume.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())} }

// furnish makes something of every kind.
func furnish(t testing.TB, root *volume.Node) {
	t.Helper()
	ctx := context.Background()
	long := strings.Repeat("l", 200)
	create(t, root, "empty", nil)
	create(t, root, "one byte", pattern(1, 0))
	create(t, root, "small", pattern(5000, 1))
	create(t, root, "big", pattern(300*crypto.BlockSize, 2))
	write(t, create(t, root, "sparse", pattern(100, 3)), pattern(5000, 4), 4000*crypto.BlockSize)
	if err := create(t, root, "hole at the end", pattern(100, 3)).Truncate(ctx, 100<<20); err != nil {
		t.Fatal(err)
	}
	linked := create(t, root, "linked", pattern(9000, 5))
	dir, _, err := root.Mkdir("dir", 0o755, owner())
	if err != nil {
		t.Fatal(err)
	}
	must(dir.Link(linked, "other name"))
	must(root.Link(linked, long+" linked"))
	deep, _, err := dir.Mkdir(long, 0o700, owner())
	if err != nil {
		t.Fatal(err)
	}
	create(t, deep, "deep", pattern(3*crypto.BlockSize, 6))
	create(t, deep, long, pattern(10, 7))
	if _, _, err := dir.Mkdir("empty directory", 0o2711, owner()); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"symlink": "some/where", "long symlink": strings.Repeat("t", 3500)} {
		n, _, err := root.Symlink(name, target, owner())
		if err != nil {
			t.Fatal(err)
		}
		mtime := time.Unix(1234567, 89)
		if _, err := n.SetAttr(ctx, volume.Change{Mtime: &mtime}); err != nil {
			t.Fatal(err)
		}
	}
	kinds := map[string]uint32{"fifo": unix.S_IFIFO | 0o600, "socket": unix.S_IFSOCK | 0o640}
	if os.Geteuid() == 0 {
		kinds["device"], kinds["block device"] = unix.S_IFCHR|0o666, unix.S_IFBLK|0o600
	}
	for name, mode := range kinds {
		n, _, err := dir.Mknod(name, mode, 1, 3, owner())
		if err != nil {
			t.Fatal(err)
		}
		if name == "fifo" {
			must(root.Link(n, "fifo too"))
		}
	}
	x := create(t, dir, "attributes", pattern(1, 8))
	if err := x.Setxattr("user.name", []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	if err := x.Setxattr("user.large", pattern(3000, 1), 0); err != nil {
		t.Fatal(err)
	}
	if err := deep.Setxattr("user.name", []byte("another"), 0); err != nil {
		t.Fatal(err)
	}
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x01\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
	if err := x.Setxattr(volume.ACLAccess, acl, 0); err != nil {
		t.Logf("no ACLs here: %v", err)
	}
	for name, mode := range map[string]uint32{"read only": 0o400, "nobody's": 0, "suid": 0o6755} {
		n := create(t, dir, name, pattern(50, 9))
		change := volume.Change{Mode: &mode}
		mtime := time.Unix(987654321, 123456789)
		change.Mtime = &mtime
		if os.Geteuid() == 0 {
			uid, gid := uint32(1234), uint32(4321)
			change.UID, change.GID = &uid, &gid
		}
		if _, err := n.SetAttr(ctx, change); err != nil {
			t.Fatal(err)
		}
	}
	mode := uint32(0o555)
	locked, _, err := root.Mkdir("read-only directory", 0o755, owner())
	if err != nil {
		t.Fatal(err)
	}
	create(t, locked, "in it", pattern(10, 3))
	mtime := time.Unix(11111, 22222)
	if _, err := locked.SetAttr(ctx, volume.Change{Mode: &mode, Mtime: &mtime}); err != nil {
		t.Fatal(err)
	}
}
