package volume

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// isEntry tells whether the object is an entry of the volume, and not a file
// that kmsfs keeps for one.
func (o tamperObject) isEntry() bool {
	return o.kind == "data file" || o.kind == "symlink" || o.kind == "special file"
}

func (o tamperObject) isLinked() bool { return o.kind == "data file" && len(o.owners) > 1 }

// unseenIn is the row for o's place taken by other, an object of its kind.
func (o tamperObject) unseenIn(other tamperObject) string {
	switch {
	case o.kind == "symlink" || o.kind == "long target":
		return "symlink"
	case o.kind == "special file":
		return "special"
	case other.isLinked():
		return "hard-linked"
	}
	return ""
}

// rowFor is the row for a strange thing in the object's place: entries may become
// of another kind, what kmsfs keeps may not.
func (o tamperObject) rowFor(row string) string {
	if o.isEntry() {
		return row
	}
	return ""
}

// replaced has do put something in the object's place, which only a row of the table
// excuses from being seen.
func (o tamperObject) replaced(how, detail, row string, do func(w *tamperTree, to string)) manipulation {
	m := o.of(how, detail, func(w *tamperTree) {
		removeAll(w, o.backing)
		do(w, filepath.Join(w.dir, o.backing))
	})
	if row == "" {
		m = m.mustBeSeen()
	}
	return m.goesUnseen(row)
}

// replacements puts something else in the object's place.
func (w *tamperTree) replacements(o tamperObject, objects []tamperObject) []manipulation {
	var all []manipulation
	put := func(how, detail, row string, do func(w *tamperTree, to string)) {
		all = append(all, o.replaced(how, detail, row, do))
	}
	put("removed", "", o.rowFor("deleted"), func(*tamperTree, string) {})
	from := func(root, backing string) func(w *tamperTree, to string) {
		return func(w *tamperTree, to string) { copyTree(w.t, filepath.Join(root, backing), to) }
	}
	for _, other := range o.partners(objects) {
		put("replaced by another's", "by that of "+other.owners[0], o.unseenIn(other), from(w.now, other.backing))
		put("replaced by a hard link", "to that of "+other.owners[0], o.unseenIn(other), func(w *tamperTree, to string) {
			if err := os.Link(w.touch(other.backing), to); err != nil {
				w.t.Fatal(err)
			}
		})
		last := &all[len(all)-1]
		for _, owner := range other.owners {
			last.owners = append(slices.Clone(last.owners), owner+linksOnly)
		}
	}
	if older := filepath.Join(w.older, o.backing); exists(older) && !same(w, older, filepath.Join(w.now, o.backing)) {
		row := "whole-file"
		if o.kind == "symlink" {
			row = "symlink"
		}
		put("replaced by its older version", "", o.rowFor(row), from(w.older, o.backing))
	}
	if strange, ok := w.strangeOf(o); ok {
		row := ""
		if o.kind == "special file" {
			row = "special"
		}
		put("replaced by another volume's", "", row, from(w.foreign, strange))
	}
	for kind, mode := range map[string]uint32{"FIFO": unix.S_IFIFO, "socket": unix.S_IFSOCK, "device": unix.S_IFCHR} {
		if mode != unix.S_IFCHR || os.Geteuid() == 0 {
			put("replaced by a FIFO, socket or device", kind, o.rowFor("special"), func(w *tamperTree, _ string) { makeNode(w, o.backing, mode) })
		}
	}
	put("replaced by a directory", "empty", "", func(w *tamperTree, _ string) { makeDir(w, o.backing) })
	put("replaced by a directory", "dir 1", "", from(w.now, w.entries["dir 1"].backing))
	put("replaced by a symlink", "to itself", "", func(w *tamperTree, to string) {
		if err := os.Symlink(filepath.Base(to), to); err != nil {
			w.t.Fatal(err)
		}
	})
	put("replaced by a symlink", "to where it was moved", "", func(w *tamperTree, to string) {
		copyTree(w.t, filepath.Join(w.now, o.backing), w.touch(o.backing+".moved"))
		if err := os.Symlink(filepath.Base(to)+".moved", to); err != nil {
			w.t.Fatal(err)
		}
	})
	if o.kind == "symlink" { // attributes go with it
		all[len(all)-1].row = "unbound-attribute"
	}
	put("replaced by a symlink", "link 2", o.rowFor("symlink"), from(w.now, w.entries["link 2"].backing))
	if o.kind == "symlink" || o.kind == "special file" {
		put("replaced by a data file", "", "", from(w.now, w.entries["dense"].backing))
		put("replaced by a data file", "linked", "hard-linked", from(w.now, w.entries["linked 2"].backing))
	}
	if o.kind == "symlink" {
		target, _ := os.Readlink(filepath.Join(w.now, o.backing))
		for i := range target {
			changed := []byte(target)
			changed[i] ^= 1
			put("character changed", "", "", func(w *tamperTree, to string) { symlinkTo(w, string(changed), to) })
			put("cut", "", "", func(w *tamperTree, to string) { symlinkTo(w, target[:max(1, i)], to) })
			if !*tamperAll && i > 200 {
				break
			}
		}
	}
	return all
}

func symlinkTo(w *tamperTree, target, path string) {
	if err := os.Symlink(target, path); err != nil {
		w.t.Fatal(err)
	}
}

// strangeOf is the backing path of the other volume's object of the same name.
func (w *tamperTree) strangeOf(o tamperObject) (string, bool) {
	if o.owners[0] == "*" {
		return o.backing, true
	}
	e, ok := w.strange[o.owners[0]]
	switch o.kind {
	case "sidecar":
		return sidecarPath(e.id), ok
	case "directory record":
		return e.backing + "/" + recordName, ok
	case "data file", "special file":
		return e.backing, ok
	case "symlink":
		return e.backing, ok
	}
	return "", false
}

// exchanges swaps two objects of a kind.
func (w *tamperTree) exchanges(o tamperObject, objects []tamperObject) []manipulation {
	var all []manipulation
	for _, other := range o.partners(objects) {
		m := o.of("exchanged with another's", "with "+other.owners[0], func(w *tamperTree) { exchange(w, o.backing, other.backing) })
		m = m.concerns(other.owners)
		row := o.unseenIn(other)
		if row == "" {
			row = other.unseenIn(o)
		}
		if m = m.goesUnseen(row); row == "" {
			m = m.mustBeSeen()
		}
		all = append(all, m)
	}
	return all
}

// directories moves and replaces whole directories, and entries between them.
func (w *tamperTree) directories() []manipulation {
	var all []manipulation
	paths := slices.DeleteFunc(slices.Sorted(maps.Keys(w.entries)), func(p string) bool { return w.entries[p].mode != unix.S_IFDIR })
	for _, path := range paths {
		o := tamperObject{"directory", w.entries[path].backing, []string{path}, unix.S_IFDIR}
		put := func(how, detail, row string, do func(w *tamperTree, to string)) {
			all = append(all, o.replaced(how, detail, row, do))
		}
		put("removed", "", "deleted", func(*tamperTree, string) {})
		put("emptied", "", "", func(w *tamperTree, _ string) { makeDir(w, o.backing) })
		put("emptied", "but for its record", "deleted", func(w *tamperTree, to string) {
			makeDir(w, o.backing)
			copyTree(w.t, filepath.Join(w.now, o.backing, recordName), filepath.Join(to, recordName))
		})
		all[len(all)-1].must = false // where it had no entries
		put("replaced by a FIFO", "", "special", func(w *tamperTree, _ string) { makeNode(w, o.backing, unix.S_IFIFO) })
		put("replaced by a data file", "", "", func(w *tamperTree, to string) {
			copyTree(w.t, filepath.Join(w.now, w.entries["one"].backing), to)
		})
		put("replaced by a symlink", "to itself", "", func(w *tamperTree, to string) { symlinkTo(w, filepath.Base(to), to) })
		put("replaced by a symlink", "link 2", "symlink", func(w *tamperTree, to string) {
			copyTree(w.t, filepath.Join(w.now, w.entries["link 2"].backing), to)
		})
		if strange, ok := w.strange[path]; ok {
			put("replaced by another volume's", "", "", func(w *tamperTree, to string) {
				copyTree(w.t, filepath.Join(w.foreign, strange.backing), to)
			})
		}
		if path == "dir 1" {
			put("replaced by its older version", "", "whole-file", func(w *tamperTree, to string) {
				copyTree(w.t, filepath.Join(w.older, o.backing), to)
			})
		}
		for _, other := range paths {
			if other == path || strings.HasPrefix(other, path+"/") || strings.HasPrefix(path, other+"/") {
				continue
			}
			otherBacking := w.entries[other].backing
			put("replaced by another's", other, "", func(w *tamperTree, to string) {
				copyTree(w.t, filepath.Join(w.now, otherBacking), to)
			})
			all = append(all, o.of("moved", "into "+other, func(w *tamperTree) {
				rename(w, o.backing, filepath.Join(otherBacking, filepath.Base(o.backing)))
			}).mustBeSeen())
			if path < other {
				all = append(all, o.of("exchanged with another's", "with "+other, func(w *tamperTree) {
					exchange(w, o.backing, otherBacking)
				}).concerns([]string{other}).mustBeSeen())
			}
		}
	}
	inside := w.entries["dir 1/inside"]
	file := tamperObject{"data file", inside.backing, []string{"dir 1/inside"}, unix.S_IFREG}
	all = append(all,
		file.of("moved", "to the root", func(w *tamperTree) { rename(w, inside.backing, filepath.Base(inside.backing)) }).mustBeSeen(),
		file.of("hard link planted", "under a name of no meaning", func(w *tamperTree) {
			if err := os.Link(filepath.Join(w.dir, inside.backing), w.touch(inside.backing+"A")); err != nil {
				w.t.Fatal(err)
			}
			w.touch(inside.backing)
		}).mustBeSeen().concernsLinksOf("dir 1/inside"),
		file.of("moved", "under a name of no meaning", func(w *tamperTree) { rename(w, inside.backing, inside.backing+"A") }).mustBeSeen())
	return all
}

// links brings back what was removed.
func (w *tamperTree) links() []manipulation {
	var all []manipulation
	entries, err := os.ReadDir(w.older)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if exists(filepath.Join(w.now, e.Name())) {
			continue
		}
		o := tamperObject{"removed file", e.Name(), []string{"to be removed"}, unix.S_IFREG}
		back := func(w *tamperTree) { copyTree(w.t, filepath.Join(w.older, o.backing), w.touch(o.backing)) }
		all = append(all,
			o.of("put back", "without its sidecar", back).mustBeSeen(),
			o.of("put back", "with its sidecar", func(w *tamperTree) {
				back(w)
				for _, shelf := range listDirs(w, filepath.Join(w.older, metaDir, "keys")) {
					for _, name := range listDirs(w, filepath.Join(w.older, metaDir, "keys", shelf)) {
						p := filepath.Join(metaDir, "keys", shelf, name)
						if !exists(filepath.Join(w.dir, p)) {
							if !exists(filepath.Join(w.dir, metaDir, "keys", shelf)) {
								makeDir(w, filepath.Join(metaDir, "keys", shelf))
							}
							copyTree(w.t, filepath.Join(w.older, p), w.touch(p))
						}
					}
				}
			}).goesUnseen("restored"))
	}
	if len(all) == 0 {
		w.t.Fatal("no file was removed")
	}
	return all
}

func listDirs(w *tamperTree, path string) []string {
	entries, err := os.ReadDir(path)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// same tells whether two files hold the same; what is neither a file nor a
// symlink holds nothing.
func same(w *tamperTree, a, b string) bool {
	read := func(p string) []byte {
		if target, err := os.Readlink(p); err == nil {
			return []byte(target)
		}
		var st unix.Stat_t
		if unix.Lstat(p, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return readPath(w.t, p)
		}
		return nil
	}
	return bytes.Equal(read(a), read(b))
}

func removeAll(w *tamperTree, backing string) {
	if err := os.RemoveAll(w.touch(backing)); err != nil {
		w.t.Fatal(err)
	}
}

func makeDir(w *tamperTree, backing string) {
	if err := os.Mkdir(w.touch(backing), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

func makeNode(w *tamperTree, backing string, mode uint32) {
	if err := unix.Mknod(w.touch(backing), mode|0o644, int(unix.Mkdev(1, 5))); err != nil { // 1, 5 is /dev/zero
		w.t.Fatal(err)
	}
}

func rename(w *tamperTree, from, to string) {
	if err := os.Rename(w.touch(from), w.touch(to)); err != nil {
		w.t.Fatal(err)
	}
}

func exchange(w *tamperTree, a, b string) {
	if err := unix.Renameat2(unix.AT_FDCWD, w.touch(a), unix.AT_FDCWD, w.touch(b), unix.RENAME_EXCHANGE); err != nil {
		w.t.Fatal(err)
	}
}
