package volume

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// acl is a POSIX ACL in its binary form, with an entry for user 12345.
func acl(user, group, named, mask, other uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	const none = 0xffffffff
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, user, none}, {0x02, named, 12345}, {0x04, group, none}, {0x10, mask, none}, {0x20, other, none}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func TestWhatIsMadeUnderADefaultACLIsAsWithoutEncryption(t *testing.T) {
	b := newBench(t, ModeFile)
	needXattrs(t, b.dir)
	v := b.open()
	owners := []Owner{{}}
	if os.Geteuid() == 0 {
		owners = append(owners, Owner{Set: true, UID: 4711, GID: 4712})
	}
	for _, d := range [][]byte{acl(7, 5, 7, 7, 0), acl(5, 0, 6, 4, 4), acl(0, 7, 7, 7, 7), nil} {
		for _, dirMode := range []uint32{0o755, 0o2775} {
			plain := filepath.Join(t.TempDir(), "plain")
			if err := os.Mkdir(plain, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Chmod(plain, dirMode); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("%x-%o", d, dirMode)
			enc, _, err := v.Root().Mkdir(name, 0o755, Owner{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := enc.SetAttr(context.Background(), Change{Mode: &dirMode}); err != nil {
				t.Fatal(err)
			}
			if d != nil {
				if err := unix.Setxattr(plain, ACLDefault, d, 0); err == unix.EOPNOTSUPP {
					t.Skip("no POSIX ACLs here; a temporary directory on ext4, xfs or btrfs runs this")
				} else if err != nil {
					t.Fatal(err)
				}
				setXattr(t, enc, ACLDefault, d)
			}
			for _, owner := range owners {
				compareMade(t, b, enc, plain, owner)
			}
		}
	}
}

// compareMade makes files and directories of many modes in both directories.
func compareMade(t *testing.T, b *bench, enc *Node, plain string, owner Owner) {
	t.Helper()
	defer unix.Umask(unix.Umask(0))
	for _, mode := range []uint32{0o777, 0o666, 0o640, 0o500, 0o070, 0, 0o1755, 0o4755, 0o2755} {
		name := fmt.Sprintf("%d-%o", owner.UID, mode)
		fd, err := unix.Open(filepath.Join(plain, "f"+name), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, mode)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if err := unix.Mkdir(filepath.Join(plain, "d"+name), mode&0o1777); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(filepath.Join(plain, "p"+name), mode); err != nil {
			t.Fatal(err)
		}
		file, _, err := enc.Create("f"+name, mode, owner)
		if err != nil {
			t.Fatal(err)
		}
		dir, _, err := enc.Mkdir("d"+name, mode&0o1777, owner)
		if err != nil {
			t.Fatal(err)
		}
		fifo, _, err := enc.Mknod("p"+name, unix.S_IFIFO|mode, 0, 0, owner)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []*Node{file, dir, fifo} {
			path := filepath.Join(plain, filepath.Base(n.Path()))
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil {
				t.Fatal(err)
			}
			a, err := n.Attr()
			if err != nil {
				t.Fatal(err)
			}
			got := backingXattrs(t, b.backingFile(n))
			if want := backingXattrs(t, path); a.Mode != st.Mode || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%q: mode %o, ACLs %x; without encryption %o, %x", n.Path(), a.Mode, got, st.Mode, want)
			}
			if n == dir && os.Geteuid() != 0 {
				all := uint32(0o700) // so that it can be removed when the test ends
				if _, err := n.SetAttr(context.Background(), Change{Mode: &all}); err != nil {
					t.Fatal(err)
				}
			}
			if owner.Set && a.UID != owner.UID {
				t.Errorf("%q belongs to %d", n.Path(), a.UID)
			}
		}
	}
}
