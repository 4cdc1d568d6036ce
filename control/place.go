package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Name is what the socket of a mount is called: by the volume's ID and the
// backing directory, since copies of a volume have the same ID.
func Name(volume string, dev, ino uint64) string {
	return fmt.Sprintf("%s-%d-%d", volume, dev, ino)
}

// Directories lists where sockets of a user's mounts may lie, the best place
// first. Not all of them need exist.
func Directories(getenv func(string) string, uid int) []string {
	var dirs []string
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "kmsfs"))
	}
	if uid == 0 {
		return append(dirs, "/run/kmsfs")
	}
	id := strconv.Itoa(uid)
	if own := "/run/user/" + id; isDir(own) {
		dirs = append(dirs, own+"/kmsfs")
	}
	return append(dirs, "/tmp/kmsfs-"+id)
}

// OthersDirectories lists where sockets of all other users may lie; only root
// can look there.
func OthersDirectories() []string {
	var dirs []string
	for _, pattern := range []string{"/run/user/*/kmsfs", "/tmp/kmsfs-*"} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	return dirs
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// Sockets lists the sockets in a directory; none where there is no directory.
func Sockets(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.Type() == fs.ModeSocket && !strings.HasSuffix(e.Name(), newSuffix) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// makeDirectory makes the directory for sockets, and refuses one that somebody
// else made or may look into.
func makeDirectory(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("directory %s is not this user's alone", dir)
	}
	return nil
}

// short is a name for path that fits into a socket address, which has 107 bytes:
// by way of a descriptor of its directory. It is good until the call of done.
func short(path string) (name string, done func(), err error) {
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", filepath.Dir(path), err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { unix.Close(fd) }, nil
}
