package volume

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Entry is one entry of a directory as a listing shows it.
type Entry struct {
	Name string // plaintext; kmsfs-broken.<hash> where it does not decrypt
	Ino  uint64
	Kind uint32 // S_IFMT bits, 0 if the backing store does not say
	Off  uint64 // position after this entry, for Listing.Seek
}

// Listing is an open directory. It is not safe for concurrent use.
type Listing struct {
	node   *Node
	id     crypto.ID
	broken bool // the directory's own record is: no name can be decrypted
	fd     int
	room   *listingRoom // buf, until Close
	buf    []byte
	rest   []byte // what is left of buf
	last   []byte // in buf: the backing name of what Next gave last, nil if it is not an ordinary one
}

// List opens the directory for reading its entries; the caller closes it. A
// directory whose record is damaged lists each entry as broken, so that it can
// be removed.
func (n *Node) List() (*Listing, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return nil, err
	}
	defer n.vol.end()
	id, err := n.dirID()
	_, broken := err.(*IntegrityError)
	if err != nil && !broken {
		return nil, err
	}
	if broken {
		n.vol.log.Error("cannot decrypt names", "error", err)
	}
	d, err := n.use()
	if err != nil {
		return nil, err
	}
	defer d.release()
	fd, err := n.openInside(d, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	room := listings.Get().(*listingRoom)
	return &Listing{node: n, id: id, broken: broken, fd: fd, room: room, buf: room[:]}, nil
}

// Bound makes the listing read no more than n bytes of the backing directory at a time,
// 4 KiB at least: who goes elsewhere soon reads the rest in vain.
func (l *Listing) Bound(n int) { l.buf = l.room[:min(max(n, 4<<10), len(l.room))] }

// Next returns the next entry, "." and ".." included, or io.EOF.
func (l *Listing) Next() (Entry, error) {
	if err := l.node.vol.begin(ordinary); err != nil {
		return Entry{}, err
	}
	defer l.node.vol.end()
	for {
		e, name, err := nextName(l.node.vol.backing, l.fd, l.buf, &l.rest)
		l.last = nil
		if err != nil {
			return Entry{}, err
		}
		out := Entry{Ino: e.ino, Kind: e.kind, Off: e.off}
		if !l.broken && isOrdinary(name) {
			var plain [MaxName + 1]byte
			if b, err := l.node.vol.names.AppendDecrypted(plain[:0], l.id, name); err == nil {
				l.last, out.Name = name, string(b)
				return out, nil
			}
		}
		backing := string(name)
		if backing == "." || backing == ".." {
			out.Name = backing
			return out, nil
		}
		if l.node.isOwn(backing) && (!l.broken || backing == recordName) {
			continue
		}
		if !l.broken {
			out.Name, err = l.node.vol.decode(l.id, l.fd, backing)
		}
		if l.broken || err != nil {
			out.Name = brokenName(backing)
		}
		return out, nil
	}
}

// isOrdinary tells whether a backing name can be an encrypted name itself: those
// have no dot, where names of kmsfs's own and short forms of long ones begin with one
// or have it second.
func isOrdinary(backing []byte) bool { return bytes.IndexByte(backing[:min(2, len(backing))], '.') < 0 }

// Expect says that the entry that Next gave last is about to be looked up: then its
// name is not encrypted again.
func (l *Listing) Expect(e Entry) {
	v := l.node.vol
	if l.last == nil || v.begin(ordinary) != nil {
		return
	}
	defer v.end()
	v.encoded.Store(&encodedName{dir: l.id, entryName: entryName{plain: e.Name, backing: string(l.last)}})
}

// Seek goes to a position that an Entry's Off gave, or to the start with 0.
func (l *Listing) Seek(off uint64) error {
	l.rest, l.last = nil, nil
	_, err := l.node.vol.backing.Seek(l.fd, int64(off), io.SeekStart)
	return err
}

// NoteListed keeps the inode numbers of a directory's entries in the order in which a
// listing gave them, for Listed. They may not be changed any more.
func (n *Node) NoteListed(inodes *[]uint64) { n.listed.Store(inodes) }

// Listed is what NoteListed was told last, or nil.
func (n *Node) Listed() *[]uint64 { return n.listed.Load() }

// Close ends the listing.
func (l *Listing) Close() error {
	if l.room != nil {
		listings.Put(l.room)
	}
	l.room, l.buf, l.rest, l.last = nil, nil, nil, nil
	return l.node.vol.backing.Close(l.fd)
}

// dirent is one entry of the backing directory.
type dirent struct {
	name string
	ino  uint64
	off  uint64
	kind uint32
}

// nextDirent takes one entry from what is left of buf, filling it first if need
// be. The layout is that of getdents64(2). What no name of an entry can be is EIO:
// an empty one would stand for the directory itself, one with a slash lead out of it.
func nextDirent(k Backing, fd int, buf []byte, rest *[]byte) (dirent, error) {
	e, name, err := nextName(k, fd, buf, rest)
	e.name = string(name)
	return e, err
}

// nextName is nextDirent that leaves the name in buf, where it stays until buf is filled
// again.
func nextName(k Backing, fd int, buf []byte, rest *[]byte) (e dirent, name []byte, err error) {
	if len(*rest) == 0 {
		n, err := k.Getdents(fd, buf)
		if err != nil {
			return dirent{}, nil, err
		}
		if n == 0 {
			return dirent{}, nil, io.EOF
		}
		*rest = buf[:n]
	}
	const fixed = 19 // ino u64, off u64, length u16, type u8
	b := *rest
	if len(b) < fixed {
		return dirent{}, nil, unix.EIO
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < fixed || size > len(b) {
		return dirent{}, nil, unix.EIO
	}
	*rest = b[size:]
	name, _, _ = bytes.Cut(b[fixed:size], []byte{0})
	if len(name) == 0 || bytes.IndexByte(name, '/') >= 0 {
		return dirent{}, nil, unix.EIO
	}
	return dirent{
		ino:  binary.NativeEndian.Uint64(b),
		off:  binary.NativeEndian.Uint64(b[8:]),
		kind: uint32(b[18]) << 12,
	}, name, nil
}

// listBacking reads a whole backing directory, which is open as dirfd (O_PATH
// will do), without "." and "..".
func (v *Volume) listBacking(dirfd int) ([]dirent, error) {
	return listDescriptor(v.backing, dirfd)
}

// listings are buffers for backing names, which are no secret.
var listings = sync.Pool{New: func() any { return new(listingRoom) }}

type listingRoom [32 << 10]byte

func listDescriptor(k Backing, dirfd int) ([]dirent, error) {
	fd, err := k.Openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer k.Close(fd)
	buf := listings.Get().(*listingRoom)
	defer listings.Put(buf)
	var rest []byte
	var all []dirent
	for {
		e, err := nextDirent(k, fd, buf[:], &rest)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if e.name != "." && e.name != ".." {
			all = append(all, e)
		}
	}
}

// findBroken returns the backing name of an entry that a listing shows as name.
func (n *Node) findBroken(d *descriptor, name string) (string, error) {
	if !strings.HasPrefix(name, brokenPrefix) {
		return "", unix.ENOENT
	}
	entries, err := n.vol.listBacking(d.fd)
	if err != nil {
		return "", err
	}
	id, dirErr := n.dirID()
	for _, e := range entries {
		if brokenName(e.name) != name {
			continue
		}
		if dirErr == nil {
			if n.isOwn(e.name) {
				continue
			}
			if _, err := n.vol.decode(id, d.fd, e.name); err == nil {
				continue
			}
		}
		return e.name, nil
	}
	return "", unix.ENOENT
}
