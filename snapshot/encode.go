package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"

	"kmsfs/crypto"
)

// encoder writes the plaintext of a manifest: uvarints, and strings and bytes each
// after its length as a uvarint. What is decoded again encodes to the same bytes.
//
//	head   generation, base, push ID, seconds, volume.json
//	entry  kind u8; but for end and up: name, group; but for a link: mode, uid, gid,
//	       mtime (seconds zigzag, nanoseconds), number of attributes and each with
//	       name and value; what its kind has; where in the bucket a file is; atime
//	end    kind 0, the totals, digest 32
//
// A push ID is its index among those that came before, or their number and then
// the 16 bytes.
type encoder struct {
	w      *bufio.Writer
	digest hash.Hash
	pushes map[crypto.ID]uint64
	b      []byte
	Totals
}

func newEncoder(w io.Writer, h *Head) (*encoder, error) {
	e := &encoder{w: bufio.NewWriterSize(w, 1<<16), digest: sha256.New(), pushes: make(map[crypto.ID]uint64)}
	e.uint(h.Generation)
	e.uint(h.Base)
	e.push(h.Push)
	e.int(h.Created)
	e.bytes(h.Config)
	e.digest.Write(h.Config)
	return e, e.flush()
}

func (e *encoder) flush() error {
	_, err := e.w.Write(e.b)
	e.b = e.b[:0]
	return err
}

func (e *encoder) uint(n uint64)   { e.b = binary.AppendUvarint(e.b, n) }
func (e *encoder) int(n int64)     { e.b = binary.AppendVarint(e.b, n) }
func (e *encoder) fixed(b []byte)  { e.b = append(e.b, b...) }
func (e *encoder) bytes(b []byte)  { e.uint(uint64(len(b))); e.fixed(b) }
func (e *encoder) string(s string) { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) push(p crypto.ID) {
	i, known := e.pushes[p]
	if !known {
		i = uint64(len(e.pushes))
		e.pushes[p] = i
	}
	e.uint(i)
	if !known {
		e.fixed(p[:])
	}
}

// put writes an entry.
func (e *encoder) put(x *Entry) error {
	e.b = append(e.b, byte(x.Kind))
	switch x.Kind {
	case kindUp:
		e.digest.Write(e.b)
		return e.flush()
	case KindDirectory:
		e.Directories++
	case KindFile:
		e.Files++
		e.Bytes += uint64(x.File.ObjectSize())
	case KindLink:
		e.Links++
	default:
		e.Others++
	}
	e.string(x.Name)
	e.uint(x.Group)
	if x.Kind == KindLink {
		e.digest.Write(e.b)
		return e.flush()
	}
	e.uint(uint64(x.Mode))
	e.uint(uint64(x.UID))
	e.uint(uint64(x.GID))
	e.int(x.MTime.Sec)
	e.uint(uint64(x.MTime.Nsec))
	e.uint(uint64(len(x.Xattrs)))
	for _, a := range x.Xattrs {
		e.string(a.Name)
		e.bytes(a.Value)
	}
	switch x.Kind {
	case KindDirectory:
		e.bytes(x.Record)
	case KindFile:
		e.file(x.File)
	case KindSymlink:
		e.string(x.Target)
		e.bytes(x.Long)
	case KindCharDevice, KindBlockDevice:
		e.uint(x.Device)
	}
	e.digest.Write(e.b)
	if x.Kind == KindFile { // where in the bucket it is
		e.push(x.File.Push)
		e.uint(x.File.Sidecar.Bundle)
		e.uint(uint64(x.File.Sidecar.Offset))
	}
	e.int(x.ATime.Sec)
	e.uint(uint64(x.ATime.Nsec))
	return e.flush()
}

func (e *encoder) file(f *File) {
	e.fixed(f.ID[:])
	e.uint(f.Generation)
	e.b = append(e.b, f.Flags)
	e.uint(f.Size)
	e.uint(f.Stored)
	e.fixed(f.Root[:])
	e.fixed(f.Header[:])
	if f.Extents == nil {
		e.uint(0)
	} else {
		e.uint(uint64(len(f.Extents)) + 1)
	}
	for _, x := range f.Extents {
		e.uint(uint64(x.CipherOff))
		e.uint(uint64(x.Length))
	}
	e.fixed(f.Sum[:])
	e.string(f.Checksum)
	e.uint(uint64(f.Sidecar.Length))
	e.fixed(f.Sidecar.Sum[:])
}

// end writes the end; Bundles and counts are what they are by then.
func (e *encoder) end() error {
	e.Digest = [32]byte(e.digest.Sum(nil))
	e.b = append(e.b, byte(kindEnd))
	for _, n := range []uint64{e.Files, e.Directories, e.Others, e.Links, e.Bytes} {
		e.uint(n)
	}
	e.uint(uint64(len(e.Bundles)))
	for i := range e.Bundles {
		b := &e.Bundles[i]
		e.push(b.Push)
		e.fixed(b.Sum[:])
		e.uint(uint64(b.Size))
		e.uint(uint64(b.Live))
	}
	e.fixed(e.Digest[:])
	if err := e.flush(); err != nil {
		return err
	}
	return e.w.Flush()
}
