package snapshot

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Limits of what a manifest says, so that nothing in one, authentic or not, makes
// us allocate without end.
const (
	maxConfig  = 1 << 18
	maxXattrs  = 1 << 12
	maxValue   = 1 << 16 // of an attribute
	maxTarget  = 1 << 13 // of a symbolic link, sealed
	maxExtents = 1 << 24
	maxBundles = 1 << 24
	maxName    = 512
)

// decoder reads what an encoder wrote. Its errors are ErrManifest or those of its
// reader. The Totals are there after the end.
type decoder struct {
	r      *bufio.Reader
	err    error
	pushes []crypto.ID
	depth  int
	rooted bool
	ended  bool
	groups uint64
	Head
	Totals
}

func newDecoder(r io.Reader) (*decoder, error) {
	d := &decoder{r: bufio.NewReaderSize(r, 1<<16)}
	d.Generation, d.Base = d.uint(), d.uint()
	d.Push = d.push()
	d.Created = d.int()
	d.Config = d.bytes(maxConfig)
	return d, d.err
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = fmt.Errorf("it ends early: %w", ErrManifest)
		}
		d.err = err
	}
}

func (d *decoder) malformed(what string) { d.fail(fmt.Errorf("%s: %w", what, ErrManifest)) }

func (d *decoder) uint() uint64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(d.r)
	if err != nil {
		d.fail(err)
		return 0
	}
	return n
}

func (d *decoder) int() int64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadVarint(d.r)
	if err != nil {
		d.fail(err)
		return 0
	}
	return n
}

func (d *decoder) byte() byte {
	if d.err != nil {
		return 0
	}
	b, err := d.r.ReadByte()
	if err != nil {
		d.fail(err)
	}
	return b
}

func (d *decoder) fixed(b []byte) {
	if d.err != nil {
		return
	}
	if _, err := io.ReadFull(d.r, b); err != nil {
		d.fail(err)
	}
}

// bytes is nil where there are none.
func (d *decoder) bytes(limit int) []byte {
	n := d.uint()
	if n > uint64(limit) {
		d.malformed(fmt.Sprintf("%d bytes where at most %d belong", n, limit))
	}
	if d.err != nil || n == 0 {
		return nil
	}
	b := make([]byte, n)
	d.fixed(b)
	return b
}

func (d *decoder) uint32() uint32 {
	n := d.uint()
	if n > 1<<32-1 {
		d.malformed("a number is too large")
	}
	return uint32(n)
}

func (d *decoder) nsec() int64 {
	n := d.uint()
	if n >= 1e9 {
		d.malformed("a time has too many nanoseconds")
	}
	return int64(n)
}

func (d *decoder) time() unix.Timespec { return unix.Timespec{Sec: d.int(), Nsec: d.nsec()} }

func (d *decoder) push() (p crypto.ID) {
	i := d.uint()
	switch n := uint64(len(d.pushes)); {
	case d.err != nil:
	case i < n:
		return d.pushes[i]
	case i > n:
		d.malformed("an unknown push")
	default:
		d.fixed(p[:])
		d.pushes = append(d.pushes, p)
	}
	return p
}

// next returns the next entry, or io.EOF at the end, which is there and is the end
// of everything.
func (d *decoder) next() (*Entry, error) {
	if d.ended {
		return nil, io.EOF
	}
	x := &Entry{Kind: Kind(d.byte())}
	switch {
	case d.err != nil:
	case x.Kind >= kinds:
		d.malformed("an unknown kind of entry")
	case x.Kind == kindEnd:
		d.end()
		if d.err == nil {
			return nil, io.EOF
		}
	case x.Kind == kindUp:
		if d.depth--; d.depth < 0 {
			d.malformed("above the root")
		}
	default:
		d.entry(x)
	}
	return x, d.err
}

func (d *decoder) entry(x *Entry) {
	x.Name = string(d.bytes(maxName))
	x.Group = d.uint()
	if root := d.depth == 0; root != (x.Name == "") || root && (d.rooted || x.Kind != KindDirectory) {
		d.malformed("an entry without a directory, or without a name")
	}
	d.rooted = true
	if !isEntryName(x.Name) {
		d.malformed("a name that no entry can have")
	}
	if x.Group > d.groups+1 || x.Kind == KindLink && (x.Group == 0 || x.Group > d.groups) || x.Kind == KindDirectory && x.Group != 0 {
		d.malformed("an unknown link group")
	}
	if x.Kind == KindLink {
		return
	}
	d.groups = max(d.groups, x.Group)
	x.Mode, x.UID, x.GID = d.uint32(), d.uint32(), d.uint32()
	x.MTime = d.time()
	n := d.uint()
	if n > maxXattrs {
		d.malformed("too many attributes")
	}
	for i := uint64(0); i < n && d.err == nil; i++ {
		x.Xattrs = append(x.Xattrs, Xattr{string(d.bytes(maxName)), d.bytes(maxValue)})
	}
	switch x.Kind {
	case KindDirectory:
		d.depth++
		x.Record = d.bytes(crypto.DirRecordSize)
	case KindFile:
		x.File = d.file()
	case KindSymlink:
		x.Target = string(d.bytes(maxTarget))
		x.Long = d.bytes(maxTarget)
	case KindCharDevice, KindBlockDevice:
		x.Device = d.uint()
	}
	if x.File != nil {
		x.File.Push = d.push()
		x.File.Sidecar.Bundle, x.File.Sidecar.Offset = d.uint(), d.uint32()
	}
	x.ATime = d.time()
}

// isEntryName tells whether a name can stand in a directory, and is none of
// kmsfs's own there.
func isEntryName(name string) bool {
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return name != "." && name != ".." && name != metaDir && !isOwn(name)
}

func (d *decoder) file() *File {
	f := new(File)
	d.fixed(f.ID[:])
	f.Generation = d.uint()
	f.Flags = d.byte()
	f.Size, f.Stored = d.uint(), d.uint()
	if f.Size > uint64(crypto.MaxFileSize) {
		d.malformed("a file is too large")
	}
	d.fixed(f.Root[:])
	d.fixed(f.Header[:])
	if n := d.uint(); n > 0 && d.err == nil {
		if n-1 > maxExtents {
			d.malformed("too many extents")
		}
		f.Extents = []Extent{}
		end := int64(0)
		for i := uint64(1); i < n && d.err == nil; i++ {
			x := Extent{int64(d.uint()), int64(d.uint())}
			if d.err == nil && (x.CipherOff < end || x.Length <= 0 || x.Length > f.CipherSize()-x.CipherOff) {
				d.malformed("extents that overlap, or lie outside of their file")
			}
			end = x.CipherOff + x.Length
			f.Extents = append(f.Extents, x)
		}
	}
	d.fixed(f.Sum[:])
	f.Checksum = string(d.bytes(maxName))
	f.Sidecar.Length = d.uint32()
	d.fixed(f.Sidecar.Sum[:])
	return f
}

func (d *decoder) end() {
	if d.depth != 0 {
		d.malformed("a directory does not end")
	}
	for _, n := range []*uint64{&d.Files, &d.Directories, &d.Others, &d.Links, &d.Bytes} {
		*n = d.uint()
	}
	n := d.uint()
	if n > maxBundles {
		d.malformed("too many bundles")
	}
	for i := uint64(0); i < n && d.err == nil; i++ {
		b := Bundle{Push: d.push()}
		d.fixed(b.Sum[:])
		b.Size, b.Live = d.uint32(), d.uint32()
		d.Bundles = append(d.Bundles, b)
	}
	d.fixed(d.Digest[:])
	if d.err == nil {
		if _, err := d.r.ReadByte(); err == nil {
			d.malformed("something follows its end")
		} else if err != io.EOF {
			d.fail(err)
		}
	}
	d.ended = d.err == nil
}
