package volume

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// tamperObject is something in the backing directory that is manipulated.
type tamperObject struct {
	kind    string
	backing string
	owners  []string // plaintext paths
	mode    uint32   // S_IFMT
}

// of gives the manipulation of an object.
func (o tamperObject) of(how, detail string, do func(w *tamperTree)) manipulation {
	return manipulation{kind: o.kind, how: how, detail: strings.TrimSpace(o.owners[0] + " " + detail), owners: o.owners, do: do}
}

func (m manipulation) goesUnseen(row string) manipulation { m.row = row; return m }
func (m manipulation) mustBeSeen() manipulation           { m.must = true; return m }

func (m manipulation) concerns(more []string) manipulation {
	m.owners = slices.Concat(m.owners, more)
	return m
}

// concernsLinksOf says that of the entry only the number of links is concerned.
func (m manipulation) concernsLinksOf(path string) manipulation {
	m.owners = []string{path + linksOnly}
	return m
}

// manipulations lists all that is tried.
func (w *tamperTree) manipulations() []manipulation {
	objects := w.objects()
	var all []manipulation
	for i, o := range objects {
		if o.mode == unix.S_IFREG {
			all = append(all, w.flips(o)...)
			all = append(all, w.lengths(o)...)
		}
		if o.kind == "data file" {
			all = append(all, w.blocks(o)...)
		}
		all = append(all, w.replacements(o, objects)...)
		all = append(all, w.exchanges(o, objects[i+1:])...)
	}
	all = append(all, w.links()...)
	all = append(all, w.directories()...)
	all = append(all, w.attributes()...)
	all = append(all, w.stores()...)
	for i := range all {
		m := &all[i]
		if m.kind == "sidecar" && m.owners[0] == "empty" {
			m.must = false // no key is needed to read nothing
		}
		// Most are read without a session, which takes less time.
		m.readOnly = m.undo != nil || i%4 != 0 && !*tamperAll
	}
	if w.mode == ModeVolume && !*tamperAll {
		// Only sidecars differ; some of the rest will do.
		i := 0
		all = slices.DeleteFunc(all, func(m manipulation) bool {
			i++
			return m.kind != "sidecar" && i%10 != 0
		})
	}
	return all
}

// partners are the objects of o's kind that take part in what is tried with pairs:
// all of them, or by default the next ones and some that are linked.
func (o tamperObject) partners(objects []tamperObject) []tamperObject {
	var of []tamperObject
	for _, other := range objects {
		if other.kind == o.kind && !slices.Contains(other.owners, o.owners[0]) {
			of = append(of, other)
		}
	}
	if *tamperAll || len(of) < 3 {
		return of
	}
	linked := slices.IndexFunc(of, tamperObject.isLinked)
	after := max(0, slices.IndexFunc(of, func(x tamperObject) bool { return x.owners[0] > o.owners[0] }))
	some := []tamperObject{of[after], of[(after+1)%len(of)]}
	if linked >= 0 {
		some = append(some, of[linked])
	}
	return some
}

// objects lists the backing directory's files, symlinks and special files.
func (w *tamperTree) objects() []tamperObject {
	var all []tamperObject
	for _, path := range slices.Sorted(maps.Keys(w.entries)) {
		e := w.entries[path]
		owners := []string{path}
		if i := strings.Index(path, " "); path[:max(i, 0)] == "linked" || path[:max(i, 0)] == "alias" {
			owners = append(owners, map[string]string{"linked": "alias", "alias": "linked"}[path[:i]]+path[i:])
		}
		switch e.mode {
		case unix.S_IFREG:
			all = append(all, tamperObject{"data file", e.backing, owners, unix.S_IFREG})
			if !strings.HasPrefix(path, "alias") {
				all = append(all, tamperObject{"sidecar", sidecarPath(e.id), owners, unix.S_IFREG})
			}
			if strings.HasPrefix(path, tamperLongName) && isLongName(e.backing) {
				all = append(all, tamperObject{"long name", e.backing + crypto.LongSuffix, owners, unix.S_IFREG})
			}
		case unix.S_IFDIR:
			all = append(all, tamperObject{"directory record", e.backing + "/" + recordName, owners, unix.S_IFREG})
		case unix.S_IFLNK:
			all = append(all, tamperObject{"symlink", e.backing, owners, unix.S_IFLNK})
			if target, _ := os.Readlink(filepath.Join(w.now, e.backing)); len(target) == linkIDLen {
				all = append(all, tamperObject{"long target", metaDir + "/links/" + target, owners, unix.S_IFREG})
			}
		default:
			all = append(all, tamperObject{"special file", e.backing, owners, e.mode})
		}
	}
	return append(all, tamperObject{"volume.json", metaDir + "/" + configName, []string{"*"}, unix.S_IFREG})
}

// flips changes single bytes.
func (w *tamperTree) flips(o tamperObject) []manipulation {
	content := readPath(w.t, filepath.Join(w.now, o.backing))
	var all []manipulation
	for _, off := range flipOffsets(o, len(content)) {
		flip := func(w *tamperTree) {
			p := filepath.Join(w.dir, o.backing)
			overwrite(w.t, p, int64(off), []byte{content[off] ^ 1<<(off%8)})
		}
		m := o.of("byte flipped", fmt.Sprintf("at %d", off), flip).mustBeSeen()
		m.undo = func(w *tamperTree) {
			overwrite(w.t, filepath.Join(w.dir, o.backing), int64(off), content[off:off+1])
		}
		all = append(all, m)
	}
	return all
}

// flipOffsets chooses bytes: by default each of some files, and some of each.
func flipOffsets(o tamperObject, size int) []int {
	step := 29
	switch {
	case *tamperAll || o.owners[0] == "one":
		step = 1
	case o.kind == "volume.json":
		step = 5
	}
	var all []int
	for off := range size {
		inBlock := (off - crypto.HeaderSize) % crypto.CipherBlockSize
		body := o.kind == "data file" && off >= crypto.HeaderSize && inBlock >= 24 && inBlock < 24+crypto.BlockSize
		every := step
		if body && step > 1 {
			every = 1999
		}
		if body && *tamperAll && size > 1<<15 {
			every = 61
		}
		if off%every == 0 || off == size-1 {
			all = append(all, off)
		}
	}
	return all
}

// lengths cuts and extends.
func (w *tamperTree) lengths(o tamperObject) []manipulation {
	content := readPath(w.t, filepath.Join(w.now, o.backing))
	size := len(content)
	sizes := []int{1, 8, 23, 24, crypto.HeaderSize - 1, crypto.HeaderSize, crypto.HeaderSize + 1, crypto.HeaderSize + 40, crypto.HeaderSize + 41, size / 2, size - 41, size - 40, size - 1}
	if o.kind == "data file" {
		for i := range uint64(3) {
			sizes = append(sizes, int(crypto.BlockOffset(i+1))-1, int(crypto.BlockOffset(i+1)), int(crypto.BlockOffset(i+1))+1)
		}
	}
	slices.Sort(sizes)
	var all []manipulation
	write := func(how, detail string, b []byte) {
		all = append(all, o.of(how, detail, func(w *tamperTree) {
			overwriteWhole(w, w.touch(o.backing), b)
		}).mustBeSeen())
	}
	write("emptied", "", nil)
	for _, n := range slices.Compact(sizes) {
		if n > 0 && n < size {
			write("cut", fmt.Sprintf("to %d", n), content[:n])
		}
	}
	for _, n := range []int{1, 40, 41, crypto.CipherBlockSize, 1 << 20} {
		write("extended", fmt.Sprintf("by %d zeros", n), append(bytes.Clone(content), make([]byte, n)...))
	}
	write("extended", "by itself", append(bytes.Clone(content), content...))
	write("extended", "by a line", append(bytes.Clone(content), '\n'))
	write("zeroed", "", make([]byte, size))
	return all
}

// unusedKeys names a directory of sidecars that is not there.
func (w *tamperTree) unusedKeys() string {
	for i := range 256 {
		name := fmt.Sprintf("%02x", i)
		if _, err := os.Lstat(filepath.Join(w.now, metaDir, "keys", name)); errors.Is(err, os.ErrNotExist) {
			return name
		}
	}
	w.t.Fatal("there are sidecars in all directories")
	return ""
}

func overwriteWhole(w *tamperTree, path string, b []byte) {
	if err := os.WriteFile(path, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// blocks moves, drops, erases and ages blocks of a data file.
func (w *tamperTree) blocks(o tamperObject) []manipulation {
	content := readPath(w.t, filepath.Join(w.now, o.backing))
	older := readPath(w.t, filepath.Join(w.older, o.backing))
	if len(content) < int(crypto.BlockOffset(1)) {
		return nil
	}
	count := (len(content) - crypto.HeaderSize + crypto.CipherBlockSize - 1) / crypto.CipherBlockSize
	block := func(b []byte, i int) []byte {
		return b[crypto.BlockOffset(uint64(i)):min(len(b), int(crypto.BlockOffset(uint64(i)+1)))]
	}
	var all []manipulation
	write := func(how, detail, row string, b []byte) {
		if bytes.Equal(b, content) {
			return
		}
		m := o.of(how, detail, func(w *tamperTree) { overwriteWhole(w, w.touch(o.backing), b) }).mustBeSeen()
		if row != "" {
			m = m.goesUnseen(row)
		}
		all = append(all, m)
	}
	edit := func(change func(b []byte)) []byte {
		b := bytes.Clone(content)
		change(b)
		return b
	}
	unread := func(row string) string {
		if count > wholeFileBlocks {
			return row
		}
		return ""
	}
	for i := range count {
		if count > 8 && i%11 != 0 {
			continue
		}
		erased := ""
		if strings.HasPrefix(o.owners[0], "big sparse") {
			erased = "erased-block"
		}
		write("block erased", fmt.Sprint(i), erased, edit(func(b []byte) { clear(block(b, i)) }))
		write("block older", fmt.Sprint(i), unread("older-block"), edit(func(b []byte) { copy(block(b, i), block(older, i)) }))
		write("block dropped", fmt.Sprint(i), "", slices.Concat(content[:crypto.BlockOffset(uint64(i))], content[min(len(content), int(crypto.BlockOffset(uint64(i)+1))):]))
		if j := (i + 1) % count; len(block(content, j)) == len(block(content, i)) {
			write("blocks exchanged", fmt.Sprint(i, j), "", edit(func(b []byte) {
				copy(block(b, i), block(content, j))
				copy(block(b, j), block(content, i))
			}))
			if !crypto.IsHole(block(content, i)) {
				erased = ""
			}
			write("block doubled", fmt.Sprint(i), erased, edit(func(b []byte) { copy(block(b, j), block(content, i)) }))
		}
		dense := readPath(w.t, filepath.Join(w.now, w.entries["linked 2"].backing))
		if o.owners[0] != "linked 2" && len(block(content, i)) == crypto.CipherBlockSize {
			write("block of another file", fmt.Sprint(i), "", edit(func(b []byte) { copy(block(b, i), block(dense, 0)) }))
		}
	}
	write("header older", "", "", edit(func(b []byte) { copy(b, older[:crypto.HeaderSize]) }))
	if len(all) > 0 && count > wholeFileBlocks {
		all[len(all)-1].must = false // the content is what it was
	}
	write("content older", "", unread("older-block"), edit(func(b []byte) { copy(b[crypto.HeaderSize:], older[crypto.HeaderSize:]) }))
	return all
}

// stores removes and replaces what .kmsfs consists of.
func (w *tamperTree) stores() []manipulation {
	var all []manipulation
	for _, name := range []string{"", "keys", "links", "redo", "sessions", "lost+found"} {
		o := tamperObject{"store", filepath.Join(metaDir, name), []string{"*"}, unix.S_IFDIR}
		label := filepath.Join(metaDir, name)
		all = append(all,
			o.of("removed", label, func(w *tamperTree) { removeAll(w, o.backing) }),
			o.of("emptied", label, func(w *tamperTree) { removeAll(w, o.backing); makeDir(w, o.backing) }),
			o.of("replaced by a FIFO", label, func(w *tamperTree) { removeAll(w, o.backing); makeNode(w, o.backing, unix.S_IFIFO) }),
			o.of("replaced by a file", label, func(w *tamperTree) { removeAll(w, o.backing); overwriteWhole(w, w.touch(o.backing), nil) }),
			o.of("replaced by a symlink", label, func(w *tamperTree) {
				removeAll(w, o.backing)
				if err := os.Symlink(filepath.Join(w.now, o.backing), w.touch(o.backing)); err != nil {
					w.t.Fatal(err)
				}
			}),
			o.of("replaced by another volume's", label, func(w *tamperTree) {
				removeAll(w, o.backing)
				copyTree(w.t, filepath.Join(w.foreign, o.backing), w.touch(o.backing))
			}))
	}
	planted := tamperObject{"something planted", "", []string{"*"}, 0}
	for _, name := range []string{
		"volume.json.bak", "volume.json.tmp", "sessions/00112233445566778899aabbccddeeff", "redo/00112233445566778899aabbccddeeff",
		"keys/" + w.unusedKeys(), "keys/xx", "links/xx", "lost+found/xx", "other", "reserve.0",
	} {
		p := filepath.Join(metaDir, name)
		all = append(all,
			planted.of("garbage", name, func(w *tamperTree) { overwriteWhole(w, w.touch(p), []byte("garbage")) }),
			planted.of("FIFO", name, func(w *tamperTree) { removeAll(w, p); makeNode(w, p, unix.S_IFIFO) }),
			planted.of("directory", name, func(w *tamperTree) { removeAll(w, p); makeDir(w, p) }))
	}
	return all
}
