package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// warden is a Backing that tells of every open that reaches what kmsfs has no
// business with: anything outside of the backing directory, and what is neither
// a file nor a directory. To open a device may already do something.
type warden struct {
	System
	dir   string
	mu    sync.Mutex
	wrong []string
}

func (w *warden) Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	fd, err := w.System.Openat(dirfd, name, flags, mode)
	if err != nil {
		return fd, err
	}
	path, _ := os.Readlink(procDescriptor(fd))
	var st unix.Stat_t
	_ = unix.Fstat(fd, &st)
	kind := st.Mode & unix.S_IFMT
	w.mu.Lock()
	defer w.mu.Unlock()
	if path != w.dir && !strings.HasPrefix(path, w.dir+"/") {
		w.wrong = append(w.wrong, "outside: "+path)
	}
	if flags&unix.O_PATH == 0 && kind != unix.S_IFREG && kind != unix.S_IFDIR {
		w.wrong = append(w.wrong, fmt.Sprintf("of kind %o: %s", kind, path))
	}
	return fd, nil
}

// To make anything durable is not what this is about, and takes its time.
func (w *warden) Fsync(int) error     { return nil }
func (w *warden) Fdatasync(int) error { return nil }
func (w *warden) Syncfs(int) error    { return nil }

// plants are what may stand where a file or directory of kmsfs should. Each gets
// the path, and where what was there has been moved to, outside.
var plants = map[string]func(path, moved string) error{
	"a symlink to the very thing": func(path, moved string) error { return os.Symlink(moved, path) },
	"a symlink to nothing":        func(path, moved string) error { return os.Symlink(moved+".not", path) },
	"a symlink to itself":         func(path, _ string) error { return os.Symlink(filepath.Base(path), path) },
	"a FIFO":                      func(path, _ string) error { return unix.Mkfifo(path, 0o666) },
	"a socket":                    func(path, _ string) error { return unix.Mknod(path, unix.S_IFSOCK|0o666, 0) },
	"a device":                    func(path, _ string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
	"a directory":                 func(path, _ string) error { return os.Mkdir(path, 0o777) },
	"an empty file":               func(path, _ string) error { return os.WriteFile(path, nil, 0o666) },
	"a file of a tebibyte": func(path, _ string) error {
		if err := os.WriteFile(path, []byte("x"), 0o666); err != nil {
			return err
		}
		return os.Truncate(path, 1<<40)
	},
}

// plantedBench is a volume with something of every kind, whose last mount was
// killed, and the places in it by what they are.
func plantedBench(t *testing.T) (*bench, map[string]string) {
	b := newBench(t, ModeFile)
	v := b.open(func(o *Options) { o.Backing = &warden{} })
	places := map[string]string{}
	rel := func(n *Node) string { return n.BackingPath() }
	file := createFile(t, v.Root(), "file", pattern(10_000, 1))
	dir, _, err := v.Root().Mkdir("dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	createFile(t, dir, "inside", pattern(100, 2))
	long := createFile(t, v.Root(), strings.Repeat("long", 60), pattern(100, 3))
	link, _, err := v.Root().Symlink("link", strings.Repeat("/target", 500), Owner{})
	if err != nil {
		t.Fatal(err)
	}
	places["a data file"] = rel(file)
	places["a directory"] = rel(dir)
	places["a directory record"] = rel(dir) + "/" + recordName
	places["the file of a long name"] = rel(long) + crypto.LongSuffix
	places["a symlink"] = rel(link)
	id := fileID(t, file)
	places["a sidecar"] = sidecarPath(id)
	places["a shelf of sidecars"] = filepath.Dir(sidecarPath(id))
	target, err := os.Readlink(b.backingFile(link))
	if err != nil {
		t.Fatal(err)
	}
	places["a long target"] = filepath.Join(metaDir, "links", target)
	for _, name := range []string{"keys", "links", "redo", "sessions", configName, configBackup, configName + tmpSuffix, "reserve.0"} {
		places[name] = filepath.Join(metaDir, name)
	}
	places[metaDir] = metaDir
	session := v.session.id
	places["redo slots"] = filepath.Join(metaDir, "redo", session.String())
	places["a session"] = filepath.Join(metaDir, sessionsDir, crypto.ID{9}.String())
	places["a temporary"] = tmpPrefix + "x"
	places["a temporary sidecar"] = sidecarPath(id) + tmpSuffix
	b.powerCut(v)
	hosts := must(openHostStore(b.state))(t)
	boot := must(bootID())(t)
	if _, err := hosts.update(v.id, func(h *HostState) { h.Boot, h.Session = boot, session }); err != nil {
		t.Fatal(err)
	}
	return b, places
}

// exercise does to a volume whatever may look at a file of it, whether it
// succeeds or not, and returns the errors of what met the file.
func (b *bench) exercise(w *warden) (errs []error) {
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	_, err := ReadInfo(b.dir)
	note(err)
	ctx := context.Background()
	for _, readOnly := range []bool{true, false} {
		v, err := b.tryOpen(func(o *Options) { o.Backing = w; o.ReadOnly = readOnly })
		if err != nil {
			note(err)
			continue
		}
		buf := make([]byte, 20_000)
		var visit func(n *Node, depth int)
		visit = func(n *Node, depth int) {
			l, err := n.List()
			if err != nil {
				note(err)
				return
			}
			defer l.Close()
			for {
				e, err := l.Next()
				if err != nil {
					return
				}
				if e.Name == "." || e.Name == ".." {
					continue
				}
				child, _, err := n.Lookup(e.Name)
				if err != nil {
					note(err)
					continue
				}
				_, err = child.Attr()
				note(err)
				_, err = child.Listxattr()
				note(err)
				switch {
				case child.IsDir() && depth < 5:
					visit(child, depth+1)
					if !readOnly {
						_, _, err = child.Create("new", 0o644, Owner{})
						note(err)
					}
				case child.IsSymlink():
					_, err = child.Readlink()
					note(err)
				case child.IsRegular():
					_, err = child.ReadAt(ctx, buf, 0)
					note(err)
					if !readOnly {
						_, err = child.WriteAt(ctx, buf[:100], 5)
						note(err)
						note(child.Sync(false))
					}
				}
				if !readOnly {
					if err := n.Rename(e.Name, n, e.Name+"2", 0); err == nil {
						note(n.Rename(e.Name+"2", n, e.Name, 0))
					} else {
						note(err)
					}
				}
			}
		}
		visit(v.Root(), 0)
		if !readOnly {
			_, err = v.Reencrypt(ctx, ReencryptOptions{})
			note(err)
		}
		note(v.Close())
	}
	_, err = b.rewrap(uriA, uriB, func(o *RewrapOptions) { o.Backing = w })
	note(err)
	return errs
}

func TestWhateverIsPlantedInABackingDirectoryNothingLeavesItBlocksOrFillsMemory(t *testing.T) {
	_, places := plantedBench(t)
	for place := range places {
		for what, plant := range plants {
			t.Run(place+" is "+what, func(t *testing.T) {
				if what == "a device" && os.Geteuid() != 0 {
					t.Skip("making a device needs root, who runs this")
				}
				b, places := plantedBench(t)
				outside := t.TempDir()
				path, moved := filepath.Join(b.dir, places[place]), filepath.Join(outside, "moved")
				if err := os.Rename(path, moved); errors.Is(err, os.ErrNotExist) {
					err = os.WriteFile(moved, []byte("victim"), 0o600) // was not there, but could be
					if err != nil {
						t.Fatal(err)
					}
				} else if err != nil {
					t.Fatal(err)
				}
				if err := plant(path, moved); err != nil {
					t.Fatal(err)
				}
				before := hashTree(t, outside, func(string) bool { return true })
				w := &warden{dir: b.dir}
				var memory, after runtime.MemStats
				runtime.ReadMemStats(&memory)
				done := make(chan []error, 1)
				go func() { done <- b.exercise(w) }()
				select {
				case errs := <-done:
					for _, err := range errs {
						for _, strange := range []unix.Errno{unix.ESPIPE, unix.ENXIO, unix.ENODEV} {
							if errors.Is(err, strange) && !errors.Is(err, ErrIntegrity) {
								t.Errorf("it is told as %v", err)
							}
						}
					}
				case <-time.After(time.Minute):
					// Whoever waits for the other end of a FIFO gets one.
					if fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
						defer unix.Close(fd)
					}
					t.Fatal("it is still waited for after a minute")
				}
				runtime.ReadMemStats(&after)
				if used := after.TotalAlloc - memory.TotalAlloc; used > 256<<20 {
					t.Errorf("%d MiB were allocated", used>>20)
				}
				for _, wrong := range w.wrong {
					t.Errorf("opened %s", wrong)
				}
				if now := hashTree(t, outside, func(string) bool { return true }); !maps.Equal(now, before) {
					t.Errorf("outside there is %v, was %v", now, before)
				}
			})
		}
	}
}
