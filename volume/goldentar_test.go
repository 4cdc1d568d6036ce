package volume

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Golden volumes lie in tar archives, since git keeps neither modes and times nor
// extended attributes and special files. tar itself has no sockets: they are FIFOs
// with a record that says so.
const (
	tarXattr  = "SCHILY.xattr."
	tarSocket = "KMSFS.socket"
	tarInode  = "KMSFS.inode" // number of what slots and intents name
)

// packTar writes all below place to w. edit gives the content that a file has in the
// archive.
func packTar(t *testing.T, w io.Writer, place string, edit func(path string, b []byte) []byte) {
	t.Helper()
	zip, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	ok(t, err)
	out := tar.NewWriter(zip)
	first := make(map[uint64]string)
	ok(t, filepath.WalkDir(place, func(path string, _ os.DirEntry, err error) error {
		if err != nil || path == place {
			return err
		}
		name, _ := filepath.Rel(place, path)
		var st unix.Stat_t
		ok(t, unix.Lstat(path, &st))
		h, content := tarHeader(t, path, name, &st)
		if other := first[st.Ino]; other != "" && h.Typeflag != tar.TypeDir {
			h.Typeflag, h.Linkname, h.PAXRecords, content = tar.TypeLink, other, nil, nil
		}
		first[st.Ino] = name
		if h.Typeflag == tar.TypeReg {
			content = edit(name, content)
			h.Size = int64(len(content))
		}
		ok(t, out.WriteHeader(h))
		_, err = out.Write(content)
		return err
	}))
	ok(t, errors.Join(out.Close(), zip.Close()))
}

func tarHeader(t *testing.T, path, name string, st *unix.Stat_t) (h *tar.Header, content []byte) {
	t.Helper()
	h = &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Format: tar.FormatPAX, PAXRecords: make(map[string]string),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, content = tar.TypeReg, readPath(t, path)
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		ok(t, err)
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFSOCK:
		h.Typeflag = tar.TypeFifo
		h.PAXRecords[tarSocket] = "1"
	default:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	h.PAXRecords[tarInode] = strconv.FormatUint(st.Ino, 10)
	for name, value := range storedXattrs(t, path) {
		h.PAXRecords[tarXattr+name] = string(value)
	}
	return h, content
}

// storedXattrs are the attributes of an entry of the backing directory that a volume
// may have set.
func storedXattrs(t *testing.T, path string) map[string][]byte {
	t.Helper()
	all := xattrsOf(t, path)
	for _, name := range []string{ACLAccess, ACLDefault} {
		b := make([]byte, 4096)
		if n, err := unix.Lgetxattr(path, name, b); err == nil {
			all[name] = b[:n]
		}
	}
	return all
}

// unpackTar makes below place what r has. Without root it leaves out what needs it:
// devices, and attributes of the namespace trusted. It returns the inode numbers that
// things have now, by those that they had, of an archive that tells them.
func unpackTar(t *testing.T, r io.Reader, place string) (inodes map[uint64]uint64) {
	t.Helper()
	inodes = make(map[uint64]uint64)
	zip, err := gzip.NewReader(r)
	ok(t, err)
	in := tar.NewReader(zip)
	var dirs []*tar.Header
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		ok(t, err)
		path := filepath.Join(place, h.Name)
		if !unpackEntry(t, in, h, place, path) {
			continue
		}
		if was, err := strconv.ParseUint(h.PAXRecords[tarInode], 10, 64); err == nil {
			var st unix.Stat_t
			ok(t, unix.Lstat(path, &st))
			inodes[was] = st.Ino
		}
		for record, value := range h.PAXRecords {
			name, isXattr := strings.CutPrefix(record, tarXattr)
			if isXattr && (os.Geteuid() == 0 || !strings.HasPrefix(name, "trusted.")) {
				ok(t, unix.Lsetxattr(path, name, []byte(value), 0))
			}
		}
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, h) // a mode and time of its own, once all is in it
			continue
		}
		setStatus(t, path, h)
	}
	slices.Reverse(dirs)
	for _, h := range dirs {
		setStatus(t, filepath.Join(place, h.Name), h)
	}
	t.Cleanup(func() { // or the directory could not be removed
		for _, h := range slices.Backward(dirs) {
			_ = os.Chmod(filepath.Join(place, h.Name), 0o700)
		}
	})
	return inodes
}

// unpackEntry makes one entry, and tells whether it has its own status.
func unpackEntry(t *testing.T, in io.Reader, h *tar.Header, place, path string) bool {
	t.Helper()
	switch h.Typeflag {
	case tar.TypeReg:
		b, err := io.ReadAll(in)
		ok(t, err)
		ok(t, os.WriteFile(path, b, 0o600))
	case tar.TypeDir:
		ok(t, os.MkdirAll(path, 0o700))
	case tar.TypeSymlink:
		ok(t, os.Symlink(h.Linkname, path))
	case tar.TypeLink:
		ok(t, os.Link(filepath.Join(place, h.Linkname), path))
		return false
	case tar.TypeFifo:
		kind := uint32(unix.S_IFIFO)
		if h.PAXRecords[tarSocket] != "" {
			kind = unix.S_IFSOCK
		}
		ok(t, unix.Mknod(path, kind|0o600, 0))
	case tar.TypeChar, tar.TypeBlock:
		if os.Geteuid() != 0 {
			return false
		}
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		ok(t, unix.Mknod(path, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))))
	default:
		t.Fatalf("%s: of type %q", h.Name, h.Typeflag)
	}
	return true
}

func setStatus(t *testing.T, path string, h *tar.Header) {
	t.Helper()
	if h.Typeflag != tar.TypeSymlink {
		ok(t, unix.Chmod(path, uint32(h.Mode)))
	}
	stamp, err := unix.TimeToTimespec(h.ModTime)
	ok(t, err)
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{stamp, stamp}, unix.AT_SYMLINK_NOFOLLOW))
}
