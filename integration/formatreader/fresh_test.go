package formatreader

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/age"
	"kmsfs/kmsprovider/local"
	kmsfs "kmsfs/volume"
)

const (
	passphrase = "of a volume made on the spot"
	recipient  = "age1ypjzz82lmxrvy750wuf6zwyvxxvu9zw9y5ry5xucuc6cul3zk5vqxep23w"
	identity   = "AGE-SECRET-KEY-1X2R35T4SSH8V7UMGG0SAXV8NYZ6XVY6TH80D9URMKXHLEXUL8T5SNSJHN9"
)

// fresh is a volume that the current code makes, in place/backing, with what belongs to
// it beside it.
type fresh struct {
	t     *testing.T
	place string
	vol   *kmsfs.Volume
	// renaming, if set, is called once, when a rename is about to be made, and again when
	// it is.
	renaming func(made bool)
	want     []Entry
}

// stopping is the system, with a look at what a rename is in the middle of.
type stopping struct {
	kmsfs.System
	f *fresh
}

func (s stopping) Renameat2(od int, on string, nd int, nn string, flags uint) error {
	look := s.f.renaming
	if s.f.renaming = nil; look == nil {
		return s.System.Renameat2(od, on, nd, nn, flags)
	}
	look(false)
	err := s.System.Renameat2(od, on, nd, nn, flags)
	look(true)
	return err
}

func makeFresh(t *testing.T, mode kmsfs.KeyMode) *fresh {
	f := &fresh{t: t, place: t.TempDir()}
	f.check(os.WriteFile(filepath.Join(f.place, "age.txt"), []byte(identity+"\n"), 0o600))
	options := local.Options{
		Path: filepath.Join(f.place, "keystore.json"), AuditLog: filepath.Join(t.TempDir(), "audit"),
		Passphrase: func() ([]byte, error) { return []byte(passphrase), nil },
		KDF:        &local.KDFParams{Time: 1, MemoryKiB: 1024, Threads: 2},
	}
	k, err := local.Create(t.Context(), options)
	f.check(err)
	_, err = k.EnsureDefaultKey(t.Context())
	f.check(err)
	f.check(k.Close())
	providers := kmsprovider.NewRegistry()
	providers.Register("local", func(ctx context.Context) (kmsprovider.Provider, error) { return local.Open(ctx, options) })
	providers.Register("age", func(context.Context) (kmsprovider.Provider, error) {
		return age.New(age.FromFile(filepath.Join(f.place, "age.txt"))), nil
	})
	backing, state := filepath.Join(f.place, "backing"), filepath.Join(f.place, "state")
	_, err = kmsfs.Init(t.Context(), backing, kmsfs.InitOptions{
		Keys: []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/kmsfs"}, {Provider: "age", KeyID: recipient}},
		Mode: mode, Providers: providers, StateDir: state,
	})
	f.check(err)
	f.vol, err = kmsfs.Open(t.Context(), backing, kmsfs.Options{Providers: providers, StateDir: state, Backing: stopping{f: f}})
	f.check(err)
	return f
}

func (f *fresh) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fresh) dir(parent *kmsfs.Node, name string) *kmsfs.Node {
	n, _, err := parent.Mkdir(name, 0o750, kmsfs.Owner{})
	f.check(err)
	return n
}

// file makes a file of these bytes, each part where it says.
func (f *fresh) file(parent *kmsfs.Node, name string, size int, parts map[int64][]byte) *kmsfs.Node {
	n, _, err := parent.Create(name, 0o640, kmsfs.Owner{})
	f.check(err)
	for off, b := range parts {
		_, err := n.WriteAt(f.t.Context(), b, off)
		f.check(err)
	}
	f.check(n.Truncate(f.t.Context(), int64(size)))
	return n
}

// expect gives what is at a plaintext path a time, and notes it down.
func (f *fresh) expect(n *kmsfs.Node, path string, e Entry) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 800_000_000+len(f.want), time.UTC)
	_, err := n.SetAttr(f.t.Context(), kmsfs.Change{Mtime: &at})
	f.check(err)
	e.Path, e.Mtime = path, at.Format(time.RFC3339Nano)
	f.want = append(f.want, e)
}

func (f *fresh) expectFile(n *kmsfs.Node, path string, content []byte) {
	f.expect(n, path, Entry{Kind: "file", Mode: "0640", Size: uint64(len(content)), SHA256: fmt.Sprintf("%x", sha256.Sum256(content))})
}

func TestTheDocumentIsEnoughToReadAVolumeMadeOnTheSpot(t *testing.T) {
	for _, mode := range []kmsfs.KeyMode{kmsfs.ModeFile, kmsfs.ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			f := makeFresh(t, mode)
			root := f.vol.Root()
			dir := f.dir(root, strings.Repeat("d", 170))
			under := strings.Repeat("d", 170) + "/"
			for i, size := range []int{0, 1, 4095, 4096, 4097, 70_000} {
				content := bytes.Repeat([]byte{byte(i + 1)}, size)
				n := f.file(dir, fmt.Sprint(size), size, map[int64][]byte{0: content})
				f.expectFile(n, under+fmt.Sprint(size), content)
			}
			holes := make([]byte, 50_000)
			copy(holes[20_000:], "in the middle of nothing")
			f.expectFile(f.file(dir, "holes", len(holes), map[int64][]byte{20_000: holes[20_000:20_024]}), under+"holes", holes)
			n, _, err := root.Symlink("link", strings.Repeat("/t", 1700), kmsfs.Owner{})
			f.check(err)
			f.expect(n, "link", Entry{Kind: "symlink", Mode: "0777", Target: strings.Repeat("/t", 1700)})
			n, _, err = root.Mknod("fifo", unix.S_IFIFO|0o600, 0, 0, kmsfs.Owner{})
			f.check(err)
			f.expect(n, "fifo", Entry{Kind: "fifo", Mode: "0600"})
			n = f.file(root, "linked", 10, nil)
			_, err = dir.Link(n, "other name")
			f.check(err)
			f.check(n.Setxattr("user.name", []byte("value"), 0))
			first := under + "other name"
			sum := fmt.Sprintf("%x", sha256.Sum256(make([]byte, 10)))
			f.expect(n, "linked", Entry{Kind: "file", Mode: "0640", Size: 10, SHA256: sum, Links: first, Xattrs: map[string]string{"user.name": "value"}})
			again := f.want[len(f.want)-1]
			again.Path = first
			f.want = append(f.want, again)
			f.check(root.Rename("link", dir, "link", 0))
			f.want[7].Path = under + "link"
			f.expect(dir, strings.TrimSuffix(under, "/"), Entry{Kind: "directory", Mode: "0750"})
			f.expect(root, ".", Entry{Kind: "directory", Mode: "0700"})
			f.check(f.vol.Close())

			v, err := read(readPlace(t, f.place), passphrase)
			f.check(err)
			for _, c := range v.complaints {
				t.Error(c)
			}
			mustAgree(t, v.entries, f.want)
			mustBeRenamed(t, v, nil)
			if v.config.KeyMode != string(mode) || v.older != 0 || v.config.Generation != 1 {
				t.Errorf("key mode %s, generation %d, %d sidecars of other keys", v.config.KeyMode, v.config.Generation, v.older)
			}
		})
	}
}

// TestARenameHasTheOldBindingInAAndTheNewOneInB looks at a file and at a directory while
// they are renamed, and after.
func TestARenameHasTheOldBindingInAAndTheNewOneInB(t *testing.T) {
	for _, mode := range []kmsfs.KeyMode{kmsfs.ModeFile, kmsfs.ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			f := makeFresh(t, mode)
			root := f.vol.Root()
			dir := f.dir(root, "to")
			f.file(root, "file", 5000, nil)
			f.file(f.dir(root, "directory"), "within", 10, nil)
			looks := 0
			for _, name := range []string{"file", "directory"} {
				f.renaming = func(made bool) {
					looks++
					v, err := read(readPlace(t, f.place), passphrase)
					f.check(err)
					_, intents, err := v.readSlots(f.session())
					f.check(err)
					where := name
					if made {
						where = "to/new " + name
					}
					for _, c := range v.complaints {
						t.Error(c)
					}
					mustBeRenamed(t, v, intents, where)
				}
				f.check(root.Rename(name, dir, "new "+name, 0))
			}
			f.check(f.vol.Close())
			v, err := read(readPlace(t, f.place), passphrase)
			f.check(err)
			for _, c := range v.complaints {
				t.Error(c)
			}
			mustBeRenamed(t, v, nil)
			if looks != 4 {
				t.Errorf("%d looks", looks)
			}
		})
	}
}

// session is the one file of redo slots that there is.
func (f *fresh) session() string {
	names, err := filepath.Glob(filepath.Join(f.place, "backing/.kmsfs/redo/*"))
	f.check(err)
	if len(names) != 1 {
		f.t.Fatalf("redo slots %q", names)
	}
	return filepath.Base(names[0])
}
