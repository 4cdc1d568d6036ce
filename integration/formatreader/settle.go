package formatreader

import (
	"archive/tar"
	"fmt"
	"path"
	"slices"
	"strings"
)

// settle does in the archive what the next mount does, by what is armed in a session's
// file of slots: changes first, then operations on names. Bindings stay as they are.
func (v *volume) settle(changes []change, intents []intent) error {
	for _, c := range changes {
		n, err := v.make(c)
		if err != nil {
			return err
		}
		*v.archive.inodes[path.Join(v.backing, c.path)] = *n
	}
	for i, in := range intents {
		if err := v.settleIntent(in); err != nil {
			return fmt.Errorf("intent %d, of kind %d: %w", i, in.kind, err)
		}
	}
	return nil
}

func (v *volume) settleIntent(in intent) error {
	a := v.archive
	fromDir, toDir := path.Join(v.backing, in.path[0]), path.Join(v.backing, in.path[2])
	from, to := path.Join(fromDir, in.path[1]), path.Join(toDir, in.path[3])
	temporary := ".kmsfs.tmp." + in.id.String()
	switch in.kind {
	case 1:
		a.remove(to)
		a.remove(path.Join(v.backing, ".kmsfs/keys", in.id.String()[:2], in.id.String()))
	case 2:
		a.remove(path.Join(toDir, temporary))
	case 3, 6:
	case 4:
		aside := path.Join(fromDir, temporary)
		if record := a.inodes[aside]; record != nil {
			a.remove(aside)
			if n := a.inodes[from]; n != nil && n.number == in.displaced {
				a.add(path.Join(from, ".kmsfs.dir"), record)
			}
		}
	case 5:
		if n := a.inodes[from]; in.displaced != 0 && n != nil && n.number == in.displaced {
			if !slices.Equal(a.children[from], []string{".kmsfs.dir"}) {
				return fmt.Errorf("%s makes room, and is not empty", from)
			}
			a.remove(from)
		}
		if in.flags&1 != 0 && a.inodes[from] == nil {
			a.add(from, &inode{kind: tar.TypeChar, names: 1})
		}
	default:
		return fmt.Errorf("unknown")
	}
	for _, name := range []string{from, to} {
		if strings.HasPrefix(path.Base(name), "L.") && a.inodes[name] == nil {
			a.remove(name + ".name")
		}
	}
	v.dropTarget(in.id)
	return nil
}

// dropTarget removes a long symlink target that no symlink has.
func (v *volume) dropTarget(target id) {
	for _, n := range v.archive.inodes {
		if n.kind == tar.TypeSymlink && n.target == target.String() {
			return
		}
	}
	v.archive.remove(path.Join(v.backing, ".kmsfs/links", target.String()))
}
