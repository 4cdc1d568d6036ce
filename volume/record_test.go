package volume

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// recorder is a Backing that writes down, in order, every change of the store and
// every barrier, with the object that each is about. crashstate_test.go makes of it
// what a power cut may leave. The redo slots change without a call; their pages are
// looked at before each event, so that what was written to them counts as written
// some time before.
type recorder struct {
	Backing
	t     testing.TB
	hosts string // file of the host state

	mu      sync.Mutex
	log     []event
	objects []*object
	byIno   map[uint64]*object
	byFD    map[int]*object
	root    *object
	redo    map[int]*redoImage // by descriptor
	off     bool
	// noShelves makes the fsync of directories of sidecars fail.
	noShelves bool
	// lies says of a barrier that it is not made: the code without it.
	lies func(class string) bool
	seen map[string]int // barriers by class
}

// object is an inode that the recorder has seen.
type object struct {
	id     int
	ino    uint64
	mode   uint32
	target string
	path   string // where it was first, below BACKING; for messages and classes

	// Initial content, durable from the start.
	data    []byte
	entries map[string]*object
	xattrs  map[string][]byte

	events []int // of the log, about its content, attributes or entries
}

type eventKind int

const (
	evEntry  eventKind = iota // name of dir becomes obj
	evGone                    // name of dir goes
	evRename                  // name of dir becomes name2 of dir2
	evWrite                   // data of obj at off; with nil data, n zeros
	evSize                    // obj gets size n
	evMode                    // obj gets mode
	evXattr                   // obj gets the attribute name, or loses it with nil data
	evSync                    // data, size and, unless dataOnly, attributes of obj, or its entries
	evAll                     // everything
)

// event is a change or a barrier.
type event struct {
	kind        eventKind
	obj         *object
	dir, dir2   *object
	name, name2 string
	flags       uint
	off, n      int64
	data        []byte
	mode        uint32
	dataOnly    bool
	host        HostState // when it happened
}

// redoImage is a file of redo slots as it was when last looked at; a page that is
// missing was zeros.
type redoImage struct {
	obj   *object
	pages map[int64][pageSize]byte
}

// newRecorder records what happens to the volume in dir, through backing.
func newRecorder(t testing.TB, backing Backing, dir, hosts string) *recorder {
	r := &recorder{
		Backing: backing, t: t,
		byIno: map[uint64]*object{}, byFD: map[int]*object{}, redo: map[int]*redoImage{}, seen: map[string]int{},
	}
	entries, err := filepath.Glob(filepath.Join(hosts, "*.json"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("host states %v, %v", entries, err)
	}
	r.hosts = entries[0]
	r.root = r.scan(dir, "")
	return r
}

// scan takes in what is there at the start.
func (r *recorder) scan(dir, path string) *object {
	var st unix.Stat_t
	full := filepath.Join(dir, path)
	if err := unix.Lstat(full, &st); err != nil {
		r.t.Fatal(err)
	}
	if o := r.byIno[st.Ino]; o != nil {
		return o // another name of it
	}
	o := r.newObject(st.Ino, st.Mode, path)
	o.xattrs = userAttributes(r.t, full)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		entries, err := os.ReadDir(full)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range entries {
			o.entries[e.Name()] = r.scan(dir, filepath.Join(path, e.Name()))
		}
	case unix.S_IFREG:
		var err error
		if o.data, err = os.ReadFile(full); err != nil {
			r.t.Fatal(err)
		}
	case unix.S_IFLNK:
		var err error
		if o.target, err = os.Readlink(full); err != nil {
			r.t.Fatal(err)
		}
	}
	return o
}

// userAttributes reads the attributes that the volume may have set.
func userAttributes(t testing.TB, path string) map[string][]byte {
	names, value := make([]byte, 1<<16), make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, name := range strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "user.") {
			if n, err = unix.Lgetxattr(path, name, value); err != nil {
				t.Fatal(err)
			}
			found[name] = bytes.Clone(value[:n])
		}
	}
	return found
}

func (r *recorder) newObject(ino uint64, mode uint32, path string) *object {
	o := &object{id: len(r.objects), ino: ino, mode: mode, path: path, entries: map[string]*object{}}
	r.objects = append(r.objects, o)
	r.byIno[ino] = o
	return o
}

// stop ends the recording; calls go on.
func (r *recorder) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off = true
}

func (r *recorder) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// now is how many events there are.
func (r *recorder) now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookAtRedo()
	return len(r.log)
}

// change makes a call and, if it does what it should, notes the event that made
// tells.
func (r *recorder) change(call func() error, made func() event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off {
		return call()
	}
	r.lookAtRedo()
	if err := call(); err != nil {
		return err
	}
	r.note(made())
	return nil
}

func (r *recorder) note(e event) {
	b, err := os.ReadFile(r.hosts)
	if err == nil {
		err = json.Unmarshal(b, &e.host)
	}
	if err != nil {
		r.t.Errorf("recorder: host state: %v", err)
	}
	i := len(r.log)
	r.log = append(r.log, e)
	for _, o := range []*object{e.obj, e.dir, e.dir2} {
		if o != nil && (len(o.events) == 0 || o.events[len(o.events)-1] != i) {
			o.events = append(o.events, i)
		}
	}
}

// lookAtRedo notes which pages of the redo slots changed since it last looked.
func (r *recorder) lookAtRedo() {
	if r.off {
		return
	}
	for fd, im := range r.redo {
		for at := int64(0); ; {
			from, err := unix.Seek(fd, at, unix.SEEK_DATA)
			if err != nil {
				break // no more data
			}
			if at, err = unix.Seek(fd, from, unix.SEEK_HOLE); err != nil {
				break
			}
			for page := from / pageSize; page*pageSize < at; page++ {
				r.lookAtPage(fd, im, page)
			}
		}
	}
}

func (r *recorder) lookAtPage(fd int, im *redoImage, page int64) {
	var now [pageSize]byte
	if n, _ := unix.Pread(fd, now[:], page*pageSize); n < pageSize || now == im.pages[page] {
		return
	}
	im.pages[page] = now
	r.note(event{kind: evWrite, obj: im.obj, off: page * pageSize, data: bytes.Clone(now[:])})
}

func (r *recorder) object(dirfd int) *object {
	if o := r.byFD[dirfd]; o != nil {
		return o
	}
	var st unix.Stat_t
	if err := unix.Fstat(dirfd, &st); err != nil {
		r.t.Errorf("recorder: descriptor %d: %v", dirfd, err)
		return nil
	}
	o := r.byIno[st.Ino]
	if o == nil {
		r.t.Errorf("recorder: unknown inode %d", st.Ino)
	}
	return o
}

// at is the object of an entry, nil if there is none.
func (r *recorder) at(dirfd int, name string) *object {
	if dirfd < 0 {
		return nil
	}
	if name == "" {
		return r.object(dirfd)
	}
	var st unix.Stat_t
	if unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil
	}
	return r.byIno[st.Ino]
}

// fresh makes the object of an entry that was just made.
func (r *recorder) fresh(dirfd int, name string) *object {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		r.t.Errorf("recorder: %q: %v", name, err)
	}
	return r.newObject(st.Ino, st.Mode, filepath.Join(r.object(dirfd).path, name))
}

func (r *recorder) Openat(dirfd int, name string, flags int, mode uint32) (fd int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.at(dirfd, name)
	if flags&unix.O_TRUNC != 0 {
		r.t.Errorf("recorder: open with O_TRUNC")
	}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		r.lookAtRedo()
	}
	if fd, err = r.Backing.Openat(dirfd, name, flags, mode); err != nil || r.off {
		return fd, err
	}
	switch {
	case flags&unix.O_TMPFILE == unix.O_TMPFILE:
		var st unix.Stat_t
		_ = unix.Fstat(fd, &st)
		r.byFD[fd] = r.newObject(st.Ino, st.Mode, "tmpfile")
	case flags&unix.O_CREAT != 0 && before == nil:
		o := r.fresh(dirfd, name)
		r.byFD[fd] = o
		r.note(event{kind: evEntry, dir: r.object(dirfd), name: name, obj: o})
		if strings.HasPrefix(o.path, metaDir+"/redo/") {
			r.redo[fd] = &redoImage{o, map[int64][pageSize]byte{}}
		}
	default:
		delete(r.byFD, fd)
		if o := r.object(fd); o != nil {
			r.byFD[fd] = o
		}
	}
	return fd, nil
}

func (r *recorder) Close(fd int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookAtRedo()
	delete(r.byFD, fd)
	delete(r.redo, fd)
	return r.Backing.Close(fd)
}

func (r *recorder) Pwrite(fd int, b []byte, off int64) (n int, err error) {
	err = r.change(func() (err error) { n, err = r.Backing.Pwrite(fd, b, off); return err }, func() event {
		return event{kind: evWrite, obj: r.object(fd), off: off, data: bytes.Clone(b[:n])}
	})
	return n, err
}

func (r *recorder) Ftruncate(fd int, size int64) error {
	return r.change(func() error { return r.Backing.Ftruncate(fd, size) }, func() event {
		return event{kind: evSize, obj: r.object(fd), n: size}
	})
}

func (r *recorder) Fallocate(fd int, mode uint32, off, length int64) error {
	return r.change(func() error { return r.Backing.Fallocate(fd, mode, off, length) }, func() event {
		switch mode {
		case 0:
			return event{kind: evSize, obj: r.object(fd), n: off + length}
		case punchHole:
			return event{kind: evWrite, obj: r.object(fd), off: off, n: length}
		}
		return event{kind: evWrite, obj: r.object(fd), off: off, data: []byte{}}
	})
}

func (r *recorder) barrier(fd int, dataOnly bool, call func() error) error {
	by := barrierCallers()
	return r.change(call, func() event {
		e := event{kind: evAll}
		if fd >= 0 {
			e = event{kind: evSync, obj: r.object(fd), dataOnly: dataOnly}
		}
		class := barrierClass(&e) + ", by " + by
		r.seen[class]++
		if r.lies != nil && r.lies(class) {
			e = event{kind: evWrite, obj: r.root, data: []byte{}} // nothing
		}
		return e
	})
}

func (r *recorder) Fsync(fd int) error {
	return r.barrier(fd, false, func() error {
		if o := r.object(fd); r.noShelves && o.mode&unix.S_IFMT == unix.S_IFDIR && strings.HasPrefix(o.path, metaDir+"/keys/") {
			return unix.EIO
		}
		return nil
	})
}

func (r *recorder) Fdatasync(fd int) error {
	return r.barrier(fd, true, func() error { return nil })
}

func (r *recorder) Syncfs(int) error { return r.barrier(-1, false, func() error { return nil }) }

func (r *recorder) entry(dirfd int, name string, call func() error) error {
	return r.change(call, func() event {
		return event{kind: evEntry, dir: r.object(dirfd), name: name, obj: r.fresh(dirfd, name)}
	})
}

func (r *recorder) Mkdirat(dirfd int, name string, mode uint32) error {
	return r.entry(dirfd, name, func() error { return r.Backing.Mkdirat(dirfd, name, mode) })
}

func (r *recorder) Mknodat(dirfd int, name string, mode uint32, dev int) error {
	return r.entry(dirfd, name, func() error { return r.Backing.Mknodat(dirfd, name, mode, dev) })
}

func (r *recorder) Symlinkat(target string, dirfd int, name string) error {
	err := r.entry(dirfd, name, func() error { return r.Backing.Symlinkat(target, dirfd, name) })
	if err == nil {
		r.mu.Lock()
		r.at(dirfd, name).target = target
		r.mu.Unlock()
	}
	return err
}

func (r *recorder) Linkat(od int, on string, nd int, nn string) error {
	return r.change(func() error { return r.Backing.Linkat(od, on, nd, nn) }, func() event {
		return event{kind: evEntry, dir: r.object(nd), name: nn, obj: r.at(nd, nn)}
	})
}

func (r *recorder) LinkDescriptor(fd, nd int, nn string) error {
	return r.change(func() error { return r.Backing.LinkDescriptor(fd, nd, nn) }, func() event {
		return event{kind: evEntry, dir: r.object(nd), name: nn, obj: r.at(nd, nn)}
	})
}

func (r *recorder) Unlinkat(dirfd int, name string, flags int) error {
	return r.change(func() error { return r.Backing.Unlinkat(dirfd, name, flags) }, func() event {
		return event{kind: evGone, dir: r.object(dirfd), name: name}
	})
}

func (r *recorder) Renameat2(od int, on string, nd int, nn string, flags uint) error {
	return r.change(func() error { return r.Backing.Renameat2(od, on, nd, nn, flags) }, func() event {
		return event{kind: evRename, dir: r.object(od), name: on, dir2: r.object(nd), name2: nn, flags: flags, obj: r.at(nd, nn)}
	})
}

func (r *recorder) Fsetxattr(fd int, name string, value []byte, flags int) error {
	return r.change(func() error { return r.Backing.Fsetxattr(fd, name, value, flags) }, func() event {
		return event{kind: evXattr, obj: r.object(fd), name: name, data: append([]byte{}, value...)}
	})
}

func (r *recorder) Fremovexattr(fd int, name string) error {
	return r.change(func() error { return r.Backing.Fremovexattr(fd, name) }, func() event {
		return event{kind: evXattr, obj: r.object(fd), name: name}
	})
}

func (r *recorder) Fchmodat(dirfd int, name string, mode uint32) error {
	return r.change(func() error { return r.Backing.Fchmodat(dirfd, name, mode) }, func() event {
		return event{kind: evMode, obj: r.at(dirfd, name), mode: mode}
	})
}
