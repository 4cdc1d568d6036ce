package volume

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// attributes changes extended attributes and modes.
func (w *tamperTree) attributes() []manipulation {
	var all []manipulation
	for _, path := range []string{"one", "dir 1", "link 1"} {
		o := tamperObject{"attribute", w.entries[path].backing, []string{path}, w.entries[path].mode}
		now, older := xattrsOf(w.t, filepath.Join(w.now, o.backing)), xattrsOf(w.t, filepath.Join(w.older, o.backing))
		others := map[string]map[string][]byte{}
		for _, other := range []string{"one", "dense", "dir 1", "dir 2", "link 2"} {
			others[other] = xattrsOf(w.t, filepath.Join(w.now, w.entries[other].backing))
		}
		set := func(how, detail, row, name string, value []byte) {
			m := o.of(how, detail, func(w *tamperTree) {
				if err := unix.Lsetxattr(w.touch(o.backing), name, value, 0); err != nil {
					w.t.Fatal(err)
				}
			}).goesUnseen(row)
			if row == "" {
				m = m.mustBeSeen()
			}
			all = append(all, m)
		}
		for i, name := range slices.Sorted(maps.Keys(now)) {
			value := now[name]
			which := fmt.Sprintf("attribute %d", i)
			for off := range value {
				flipped := bytes.Clone(value)
				flipped[off] ^= 1 << (off % 8)
				set("byte flipped", fmt.Sprintf("%s at %d", which, off), "", name, flipped)
			}
			set("emptied", which, "", name, nil)
			set("cut", which, "", name, value[:len(value)-1])
			set("extended", which, "", name, append(bytes.Clone(value), 0))
			if old, ok := older[name]; ok && !bytes.Equal(old, value) {
				set("replaced by its older version", which, "attribute", name, old)
			}
			for other, values := range others {
				for otherName, v := range values {
					if bytes.Equal(v, value) {
						continue
					}
					row := ""
					if o.mode == unix.S_IFLNK && other == "link 2" {
						row = "unbound-attribute"
					}
					set("replaced by another's", which+" by one of "+other, row, name, v)
					_ = otherName
				}
			}
			all = append(all, o.of("removed", which, func(w *tamperTree) {
				if err := unix.Lremovexattr(w.touch(o.backing), name); err != nil {
					w.t.Fatal(err)
				}
			}).goesUnseen("attribute"))
		}
		// A name that is no encrypted one is logged, and not listed.
		prefix := crypto.XattrPrefix
		if o.mode == unix.S_IFLNK {
			prefix = trustedPrefix
		}
		if o.mode != unix.S_IFLNK || os.Geteuid() == 0 {
			set("planted", "garbage", "", prefix+"garbage", []byte("garbage"))
			all[len(all)-1].must = false
		}
		if o.mode != unix.S_IFLNK {
			all = append(all, o.of("mode changed", "", func(w *tamperTree) {
				if err := os.Chmod(w.touch(o.backing), 0o700); err != nil {
					w.t.Fatal(err)
				}
			}).goesUnseen("mode"))
		}
	}
	return all
}
