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
