package snapshot

import (
	"os"

	"kmsfs/crypto"
	"kmsfs/volume"
)

// contentID names the content of a data file: a header is never written twice.
type contentID struct {
	file   crypto.ID
	header [8]byte
}

func (f *File) content() contentID { return contentID{f.ID, f.Header} }

// known is what the state that a push goes out from has of files, as small as it
// can be: there may be millions.
type known struct {
	files    map[contentID]knownFile
	sidecars map[crypto.ID]Slice
	pushes   []crypto.ID
	bundles  []Bundle
	digest   [32]byte
}

type knownFile struct {
	push uint32
	sum  [32]byte
	more *knownMore // where there is more
}

type knownMore struct {
	extents  []Extent
	checksum string
}

// learn reads a manifest whose end is d.
func learn(a *volume.Access, f *os.File, d *decoder) (known, error) {
	k := known{
		files: make(map[contentID]knownFile, d.Files), sidecars: make(map[crypto.ID]Slice, d.Files),
		bundles: d.Bundles, digest: d.Digest,
	}
	index := make(map[crypto.ID]uint32)
	err := each(a, f, d.Generation, func(x *Entry) error {
		if x.Kind != KindFile {
			return nil
		}
		i, ok := index[x.File.Push]
		if !ok {
			i = uint32(len(k.pushes))
			index[x.File.Push] = i
			k.pushes = append(k.pushes, x.File.Push)
		}
		kf := knownFile{push: i, sum: x.File.Sum}
		if x.File.Extents != nil || x.File.Checksum != "" {
			kf.more = &knownMore{x.File.Extents, x.File.Checksum}
		}
		k.files[x.File.content()] = kf
		if x.File.Sidecar.Length > 0 {
			k.sidecars[x.File.ID] = x.File.Sidecar
		}
		return nil
	})
	return k, err
}

// fill completes what a header says of a file with what is known of its object, or
// is false.
func (k *known) fill(f *File) bool {
	kf, ok := k.files[f.content()]
	if !ok {
		return false
	}
	f.Push, f.Sum = k.pushes[kf.push], kf.sum
	f.Extents, f.Checksum = nil, ""
	if kf.more != nil {
		f.Extents, f.Checksum = kf.more.extents, kf.more.checksum
	}
	return true
}
