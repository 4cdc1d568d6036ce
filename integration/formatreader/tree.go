package formatreader

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// directory reads what is in a directory of the backing directory.
func (v *volume) directory(dir, plain string, dirID id) {
	v.dirs[dir] = dirID
	encrypted := make(map[string]string)
	for _, backing := range v.archive.children[dir] {
		if backing == ".kmsfs.dir" || backing == ".kmsfs" && dir == v.backing || strings.HasPrefix(backing, ".kmsfs.tmp.") || strings.HasPrefix(backing, "L.") && strings.HasSuffix(backing, ".name") {
			continue
		}
		name, err := v.name(dir, dirID, backing)
		if err != nil {
			v.wrong(plain, "name %s: %v", backing, err)
			continue
		}
		encrypted[name] = backing
	}
	for _, name := range slices.Sorted(maps.Keys(encrypted)) {
		v.entry(path.Join(dir, encrypted[name]), strings.TrimPrefix(plain+"/"+name, "./"), name, dirID)
	}
}

// name opens the name of an entry.
func (v *volume) name(dir string, dirID id, backing string) (string, error) {
	enc := backing
	if strings.HasPrefix(backing, "L.") {
		b, mode, err := v.archive.file(path.Join(dir, backing+".name"))
		if err != nil {
			return "", err
		}
		enc = string(b)
		if sum := sha256.Sum256(b); mode != 0o600 || len(enc) <= 255 || backing != "L."+base64.RawURLEncoding.EncodeToString(sum[:]) {
			return "", fmt.Errorf("a name of %d characters, mode %o", len(enc), mode)
		}
	} else if len(enc) > 255 {
		return "", fmt.Errorf("%d characters", len(enc))
	}
	sealed, err := unbase64(enc)
	if err != nil {
		return "", err
	}
	padded, err := v.siv.DecryptDeterministically(sealed, dirID[:])
	if err != nil {
		return "", err
	}
	name := bytes.TrimRight(padded, "\x00")
	if len(name) == 0 || name[len(name)-1] != 0x80 || len(padded) != (len(name)+15)/16*16 {
		return "", fmt.Errorf("padding of %q", padded)
	}
	return string(name[:len(name)-1]), nil
}

// entry reads one entry and, of a directory, what is below.
func (v *volume) entry(backing, plain, name string, dirID id) {
	n := v.archive.inodes[backing]
	e := Entry{Path: ascii(plain), Mode: fmt.Sprintf("%04o", n.mode), Mtime: stamp(n.mtime)}
	v.plain[backing] = plain
	var own id // zeros for what is neither file nor directory
	var err error
	switch n.kind {
	case tar.TypeReg:
		e.Kind = "file"
		own, err = v.file(n, &e, backing, v.binding(dirID, name))
	case tar.TypeDir:
		e.Kind = "directory"
		own, err = v.directoryID(backing, v.binding(dirID, name))
	case tar.TypeSymlink:
		e.Kind, e.Mode = "symlink", "0777"
		e.Target, err = v.target(n.target)
	case tar.TypeFifo:
		e.Kind = "fifo"
	case socket:
		e.Kind = "socket"
	case tar.TypeChar:
		e.Kind, e.Device = "character device", fmt.Sprintf("%d:%d", n.major, n.minor)
	case tar.TypeBlock:
		e.Kind, e.Device = "block device", fmt.Sprintf("%d:%d", n.major, n.minor)
	}
	if err != nil {
		v.wrong(plain, "%v", err)
	}
	if n.names > 1 && n.kind != tar.TypeDir {
		if n.first == "" {
			n.first = e.Path
		}
		e.Links = n.first
	}
	v.attributes(n, &e, own)
	v.entries = append(v.entries, e)
	if n.kind == tar.TypeDir {
		v.directory(backing, plain, own)
	}
}

func (v *volume) file(n *inode, e *Entry, backing string, here [16]byte) (id, error) {
	file, r, err := v.readHeader(n.content)
	if err != nil {
		return file, err
	}
	v.files[file] = n
	switch {
	case r.flags&wasLinked != 0:
		if r.a != [16]byte{} || r.b != [16]byte{} {
			err = fmt.Errorf("a linked file has bindings")
		}
	case n.names > 1:
		err = fmt.Errorf("%d names, and flag 2 is not set", n.names)
	default:
		err = v.checkBindings(n, backing, here, r.a, r.b)
	}
	if err != nil {
		return file, err
	}
	v.seen(r)
	content, err := v.readContent(n.content, file, r)
	sum := sha256.Sum256(content)
	e.Size, e.SHA256 = r.size, fmt.Sprintf("%x", sum)
	return file, err
}

// directoryID opens a directory's record.
func (v *volume) directoryID(backing string, here [16]byte) (id, error) {
	b, _, err := v.archive.file(backing + "/.kmsfs.dir")
	if err != nil {
		return id{}, err
	}
	if len(b) != 112 || string(b[:8]) != "kmsfsdir" {
		return id{}, fmt.Errorf("directory record %x", b)
	}
	plain, err := open(derive(v.key, "dir"), b[24:], append(bytes.Clone(b[:24]), v.id[:]...))
	if err != nil {
		return id{}, fmt.Errorf("directory record: %w", err)
	}
	if len(plain) != 48 || !isZero(plain[32:]) {
		return id{}, fmt.Errorf("directory record %x", plain)
	}
	return id(b[8:24]), v.checkBindings(v.archive.inodes[backing], backing, here, [16]byte(plain), [16]byte(plain[16:]))
}

// target opens what a backing symlink holds.
func (v *volume) target(held string) (string, error) {
	var sealed []byte
	var err error
	if len(held) == 32 {
		var mode int64
		sealed, mode, err = v.archive.file(v.backing + "/.kmsfs/links/" + held)
		if err == nil && (mode != 0o600 || len(sealed) <= 3031+40) {
			err = fmt.Errorf("a target of %d bytes in a file of mode %o", len(sealed), mode)
		}
	} else {
		sealed, err = unbase64(held)
	}
	if err != nil {
		return "", err
	}
	target, err := open(derive(v.key, "symlink"), sealed, v.id[:])
	return ascii(string(target)), err
}

// attributes opens extended attributes.
func (v *volume) attributes(n *inode, e *Entry, own id) {
	prefix := "user.kmsfs."
	if n.kind != tar.TypeReg && n.kind != tar.TypeDir {
		prefix = "trusted.kmsfs."
	}
	for stored, value := range n.xattrs {
		name, plain := stored, []byte(value)
		if !strings.HasPrefix(stored, "system.posix_acl_") {
			enc, ok := strings.CutPrefix(stored, prefix)
			sealed, err := unbase64(enc)
			if !ok || err != nil {
				v.wrong(e.Path, "attribute %s: %v", stored, err)
				continue
			}
			raw, err := v.siv.DecryptDeterministically(sealed, []byte("xattr"))
			if err == nil {
				plain, err = open(derive(v.key, "xattr"), plain, append(own[:], raw...))
			}
			if err != nil {
				v.wrong(e.Path, "attribute %s: %v", stored, err)
				continue
			}
			name = string(raw)
		}
		if e.Xattrs == nil {
			e.Xattrs = make(map[string]string)
		}
		e.Xattrs[ascii(name)] = ascii(string(plain))
	}
}
