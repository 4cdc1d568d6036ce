package volume

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttributesOfAnUnlinkedFileStay(t *testing.T) {
	b := newBench(t, ModeFile)
	needXattrs(t, b.dir)
	v := b.open()
	n := createFile(t, v.Root(), "file", []byte("content"))
	setXattr(t, n, "user.a", []byte("1"))
	if err := v.Root().Unlink("file"); err != nil {
		t.Fatal(err)
	}
	wantXattr(t, n, "user.a", []byte("1"))
	setXattr(t, n, "user.b", []byte("2"))
	wantXattr(t, n, "user.b", []byte("2"))
	wantXattrs(t, n, "user.a", "user.b")
}

func TestAttributesGoWithARename(t *testing.T) {
	b := newBench(t, ModeFile)
	needXattrs(t, b.dir)
	v := b.open()
	dir, _, err := v.Root().Mkdir("dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	createFile(t, v.Root(), "file", []byte("content"))
	for _, name := range []string{"user.a", capabilityXattr} {
		setXattr(t, lookup(t, v.Root(), "file"), name, []byte("1"))
		setXattr(t, dir, name, []byte("2"))
	}
	if err := v.Root().Rename("file", dir, "moved", 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Root().Rename("dir", v.Root(), "elsewhere", 0); err != nil {
		t.Fatal(err)
	}
	v = b.reopened(v)
	dir = lookup(t, v.Root(), "elsewhere")
	for _, name := range []string{"user.a", capabilityXattr} {
		wantXattr(t, dir, name, []byte("2"))
		wantXattr(t, lookup(t, dir, "moved"), name, []byte("1"))
	}
}

func TestCapabilityIsDroppedByTruncationAndChangeOfOwner(t *testing.T) {
	b := newBench(t, ModeFile)
	needXattrs(t, b.dir)
	v := b.open()
	createFile(t, v.Root(), "file", []byte("content"))
	size, mode, id := int64(3), uint32(0o755), uint32(os.Getuid())
	for _, c := range []struct {
		what   string
		change Change
		drops  bool
	}{
		{"truncate", Change{Size: &size}, true},
		{"chown", Change{UID: &id}, true},
		{"chgrp", Change{GID: &id}, true},
		{"write by a stranger", Change{DropPrivileges: true}, true},
		{"chmod", Change{Mode: &mode}, false},
		{"touch", Change{MtimeNow: true}, false},
	} {
		for _, known := range []bool{true, false} {
			n := lookup(t, v.Root(), "file")
			setXattr(t, n, capabilityXattr, []byte("caps"))
			if !known {
				v = b.reopened(v)
				n = lookup(t, v.Root(), "file")
			}
			if _, err := n.SetAttr(context.Background(), c.change); err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			_, err := n.Getxattr(capabilityXattr)
			if dropped := err == unix.ENODATA; dropped != c.drops || err != nil && !dropped {
				t.Errorf("%s: %v, want dropped %v", c.what, err, c.drops)
			}
		}
	}
	// A new file's absence is known without a look, until one is set.
	n := createFile(t, v.Root(), "new", nil)
	if _, err := n.Getxattr(capabilityXattr); err != unix.ENODATA {
		t.Error(err)
	}
	setXattr(t, n, capabilityXattr, []byte("caps"))
	wantXattr(t, n, capabilityXattr, []byte("caps"))
}
