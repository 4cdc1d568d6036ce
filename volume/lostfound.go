package volume

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// lostFoundDir, in .kmsfs, is where fsck sets aside what nobody can read: each
// thing in a directory of its own, under the name that it had, beside a file that
// says where below BACKING it was. Nothing in it is ever changed or removed.
const (
	lostFoundDir = "lost+found"
	originName   = "origin"
	tailPrefix   = "tail." // the last block of a file; its index follows
)

// openLostFound opens .kmsfs/lost+found, making it again if need be.
func (v *Volume) openLostFound() (int, error) {
	k := v.backing
	fd, err := k.Openat(v.meta, lostFoundDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if isNoDirectory(err) && !v.readOnly { // checkMeta sets it aside
		if err = k.Renameat2(v.meta, lostFoundDir, v.meta, lostFoundDir+".not", unix.RENAME_NOREPLACE); err == nil {
			err = unix.ENOENT
		}
	}
	if err == unix.ENOENT && !v.readOnly {
		if err = k.Mkdirat(v.meta, lostFoundDir, 0o700); err == nil {
			fd, err = k.Openat(v.meta, lostFoundDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
	}
	return fd, err
}

// isNoDirectory tells that something else is in the place of a directory.
func isNoDirectory(err error) bool { return err == unix.ENOTDIR || err == unix.ELOOP }

// newLostPlace makes a directory in lost+found for something that was at backing,
// a path below BACKING. The caller closes it.
func (v *Volume) newLostPlace(backing string) (fd int, where string, err error) {
	k := v.backing
	lost, err := v.openLostFound()
	if err != nil {
		return -1, "", fmt.Errorf("open %s/%s: %w", metaDir, lostFoundDir, err)
	}
	defer k.Close(lost)
	id, err := crypto.NewID(v.random)
	if err != nil {
		return -1, "", err
	}
	if err := k.Mkdirat(lost, id.String(), 0o700); err != nil {
		return -1, "", err
	}
	if fd, err = k.Openat(lost, id.String(), unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return -1, "", err
	}
	if err := writeNew(k, fd, originName, 0o600, []byte(backing+"\n")); err != nil {
		k.Close(fd)
		return -1, "", err
	}
	return fd, metaDir + "/" + lostFoundDir + "/" + id.String(), nil
}

// setAside moves name below dirfd, which is at backing below BACKING, to
// lost+found, and tells where it is then. What has a long name takes that along.
// unix.ENOENT if it is not there.
func (v *Volume) setAside(dirfd int, name, backing string) (where string, err error) {
	var st unix.Statx_t
	if err := v.backing.Statx(dirfd, name, &st); err != nil {
		return "", err
	}
	fd, where, err := v.newLostPlace(backing)
	if err != nil {
		return "", err
	}
	defer v.backing.Close(fd)
	if isLongName(name) {
		// A copy first: if this ends between the two, it still has its name.
		b, err := readSmall(v.backing, dirfd, name+crypto.LongSuffix, maxLongName)
		if err == nil {
			err = writeNew(v.backing, fd, name+crypto.LongSuffix, 0o600, b)
		}
		if isStoreError(err) {
			return "", fmt.Errorf("copy its long name to %s: %w", where, err)
		}
	}
	if err := v.backing.Renameat2(dirfd, name, fd, name, 0); err != nil {
		return "", fmt.Errorf("move it to %s: %w", where, err)
	}
	if isLongName(name) {
		err := v.backing.Renameat2(dirfd, name+crypto.LongSuffix, fd, name+crypto.LongSuffix, 0)
		if err != nil && err != unix.ENOENT {
			return "", fmt.Errorf("move its long name to %s: %w", where, err)
		}
	}
	return where, nil
}

// setAside moves an entry of the tree to lost+found.
func (c *fsck) setAside(f *Finding, e *fsckEntry) {
	d, err := e.dir.use()
	if err != nil {
		f.mended(err, "")
		return
	}
	defer d.release()
	var where string
	err = c.vol.searching(e.dir, d, func() (err error) {
		where, err = c.vol.setAside(d.fd, e.backing, e.backingPath())
		return err
	})
	if err == nil {
		e.aside = true
		e.node.dropPlace(e.dir, e.backing)
		e.node.Forget()
	}
	f.mended(err, "nobody can read it; it is set aside in %s", where)
	for _, s := range e.spoiled {
		if e.aside {
			s.repaired("%s", f.Note)
		}
	}
}

// lostUses tells which file IDs and link targets what was set aside needs, and
// whether some of it may need any.
func (v *Volume) lostUses(ids map[crypto.ID]bool, links map[string]bool) (known bool, err error) {
	fd, err := v.openLostFound()
	if err == unix.ENOENT || isNoDirectory(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s/%s: %w", metaDir, lostFoundDir, err)
	}
	defer v.backing.Close(fd)
	known = true
	b := beneath{backing: v.backing, closed: func(err error) error { return err }}
	b.visit = func(dirfd int, e dirent, _ int) (into bool, err error) {
		switch e.kind {
		case unix.S_IFLNK:
			buf := make([]byte, unix.PathMax)
			n, err := v.backing.Readlinkat(dirfd, e.name, buf)
			if err == nil {
				links[string(buf[:n])] = true
			}
			known = known && err == nil
		case unix.S_IFREG:
			known = v.usedBy(dirfd, e.name, ids) && known
		case 0:
			known = false
		}
		return e.kind == unix.S_IFDIR, nil
	}
	if err := b.walk(fd); err != nil {
		return false, fmt.Errorf("look at what is in %s/%s: %w", metaDir, lostFoundDir, err)
	}
	return known, nil
}

// usedBy reads the file ID of something that was set aside. False if it may be a
// data file whose ID nobody knows, or that is not what it says.
func (v *Volume) usedBy(dirfd int, name string, ids map[crypto.ID]bool) bool {
	if name == originName || strings.HasPrefix(name, tailPrefix) || name == recordName || isLongNameFile(name) {
		return true
	}
	fd, err := v.backing.Openat(dirfd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer v.backing.Close(fd)
	var header [crypto.HeaderSize]byte
	var st unix.Statx_t
	if _, err := preadFull(v.backing, fd, header[:], 0); err != nil || v.backing.Statx(fd, "", &st) != nil {
		return false
	}
	if id, err := crypto.HeaderFileID(header[:]); err == nil {
		ids[id] = true
		records := crypto.NewRecordCipher(v.vk, v.id, id)
		defer records.Wipe()
		if _, err := records.Open(header[:]); err == nil {
			return true
		}
	}
	return st.Size <= crypto.HeaderSize // no content
}
