package formatreader

import (
	"errors"
	"fmt"
	"path"
)

// binding is a file or directory that has two of them, as while it is renamed.
type binding struct {
	node    *inode
	backing string // where it is
	a, b    [16]byte
}

// binding is that of a name in a directory.
func (v *volume) binding(dir id, name string) [16]byte {
	return [16]byte(mac(derive(v.key, "bind"), dir[:], []byte(name)))
}

// checkBindings looks at the bindings of what is at backing, where here is the binding.
func (v *volume) checkBindings(n *inode, backing string, here, a, b [16]byte) error {
	free := [16]byte{}
	switch {
	case a != here && b != here:
		return fmt.Errorf("neither binding is %x", here)
	case b == free: // so A holds this place
	case a == free || a == b:
		return fmt.Errorf("bindings A %x, B %x of what nobody renames", a, b)
	default:
		v.bound = append(v.bound, binding{n, backing, a, b})
	}
	return nil
}

// checkRenamed sees that what has two bindings is what a rename was under way of: A is
// where it was before, and B where it was to be.
func (v *volume) checkRenamed(b binding, intents []intent) error {
	for _, in := range intents {
		if in.kind != 5 {
			continue
		}
		from, to := path.Join(v.backing, in.path[0], in.path[1]), path.Join(v.backing, in.path[2], in.path[3])
		if b.backing != from && b.backing != to {
			continue
		}
		was, err := v.bindingAt(in.path[0], in.path[1])
		will, err2 := v.bindingAt(in.path[2], in.path[3])
		if err = errors.Join(err, err2); err != nil {
			return err
		}
		if b.node.number != 0 && b.node.number != in.moved { // exchanged with what is moved
			was, will = will, was
		}
		if b.a != was || b.b != will {
			return fmt.Errorf("bindings A %x, B %x, want %x and %x", b.a, b.b, was, will)
		}
		return nil
	}
	return fmt.Errorf("bindings A %x, B %x, and no rename is under way", b.a, b.b)
}

// bindingAt is that of a backing name in a directory below the backing directory.
func (v *volume) bindingAt(dir, name string) ([16]byte, error) {
	dir = path.Join(v.backing, dir)
	dirID, ok := v.dirs[dir]
	if !ok {
		return [16]byte{}, fmt.Errorf("no directory at %s", dir)
	}
	plain, err := v.name(dir, dirID, name)
	return v.binding(dirID, plain), err
}
