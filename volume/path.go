package volume

import (
	"iter"
	"slices"
	"strings"
)

// maxPath is how much of a path is told, in bytes: as much as a system call takes.
// Of a longer one it is the end, behind cutPath, so that what is said of each of
// many things far down does not grow with how far down they are.
const (
	maxPath = 4096
	cutPath = "…"
)

// Path is the node's plaintext path from the volume's root, for messages.
func (n *Node) Path() string { return n.path(func(p place) string { return p.name }) }

// BackingPath is its path below the backing directory, for messages and, where it
// is whole, for finding the file again after a crash: slots have no room for one
// that is not.
func (n *Node) BackingPath() string { return n.path(func(p place) string { return p.backing }) }

func (n *Node) path(part func(place) string) string {
	var parts []string
	top, size := n, 0
	for p := range n.climb() {
		name := part(p)
		if size += len(name) + 1; size > maxPath {
			parts, top = append(parts, cutPath), n.vol.root
			break
		}
		parts, top = append(parts, name), p.parent
	}
	if top != n.vol.root {
		parts = append(parts, "(unlinked)")
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// climb gives a current name of the node, one of the directory that this is in, and
// so on; the last is in the root, unless something above is unlinked. Directories
// that somebody moved into one another behind our back may seem to be in a circle,
// in which it does not go on for ever.
func (n *Node) climb() iter.Seq[place] {
	return func(yield func(place) bool) {
		mark, steps, lap := n, 0, 1
		for m := n; m != n.vol.root; {
			p, ok := m.at()
			if !ok || !yield(p) {
				return
			}
			if m = p.parent; m == mark {
				return
			}
			if steps++; steps == lap {
				mark, steps, lap = m, 0, 2*lap
			}
		}
	}
}
