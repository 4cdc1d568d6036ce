package formatreader

import (
	"bytes"
	"path"
	"slices"
	"strings"
	"testing"
)

// TestTheDocumentIsEnoughToFinishAllThatAMountWasInTheMiddleOf does with the archive what
// the next mount does with the volume, and finds what the mount made of it.
func TestTheDocumentIsEnoughToFinishAllThatAMountWasInTheMiddleOf(t *testing.T) {
	eachArchive(t, "unfinished", func(t *testing.T, a *archive, m *manifest) {
		killed, err := read(a, m.Passphrase)
		if err != nil {
			t.Fatal(err)
		}
		changes, intents, err := killed.readSlots(m.Unfinished.Session)
		if err != nil {
			t.Fatal(err)
		}
		renamed := []string{
			"elsewhere/goes", "names/bound twice", "elsewhere/" + strings.Repeat("m", 255), "names/directory", "elsewhere/empty",
			"elsewhere/hidden", "names/directory bound twice", "names/one", "elsewhere/two", "elsewhere/link",
		}
		mustBeRenamed(t, killed, intents, renamed...)
		flags, kinds := uint32(0), make(map[uint32]int)
		for _, c := range changes {
			flags |= c.flags
		}
		for _, in := range intents {
			kinds[in.kind]++
		}
		if want := uint32(1 | 2 | 8); flags&want != want || len(kinds) != 6 || (flags&32 != 0) != m.Unfinished.Logged {
			t.Errorf("slots have flags %d, intents are of kinds %v", flags, kinds)
		}
		if err := killed.settle(changes, intents); err != nil {
			t.Fatal(err)
		}
		v, err := read(a, m.Passphrase)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range v.complaints {
			t.Error(c)
		}
		for i := range v.entries {
			if e := &v.entries[i]; e.Kind != "file" || strings.HasPrefix(e.Path, "content/") {
				e.Mtime = ""
			}
		}
		mustAgree(t, v.entries, m.Entries)
		// One rename had only its slot, which is now made; an empty directory is gone.
		var now []string
		for _, b := range v.bound {
			now = append(now, v.plain[b.backing])
			if p := v.plain[b.backing]; p == "names/stays" {
				if err := v.checkRenamed(b, intents); err != nil {
					t.Errorf("%s: %v", p, err)
				}
			}
		}
		if len(now) != len(renamed) || !slices.Contains(now, "names/stays") {
			t.Errorf("two bindings have %q", now)
		}
	})
}

func TestAJournalOfReencryptIsWhatTheDocumentSays(t *testing.T) {
	eachArchive(t, "unfinished", func(t *testing.T, a *archive, m *manifest) {
		v, err := read(a, m.Passphrase)
		if err != nil {
			t.Fatal(err)
		}
		b, mode, err := a.file("state/" + m.Volume + ".reencrypt")
		if err != nil || mode != 0o600 {
			t.Fatalf("mode %o, %v", mode, err)
		}
		lines := bytes.Split(bytes.TrimSuffix(b, []byte{'\n'}), []byte{'\n'})
		if len(lines) != 6 || !bytes.HasPrefix(lines[0], []byte("began 20")) {
			t.Fatalf("journal %q", b)
		}
		var done []string
		for i, l := range lines[1:] {
			if want := "+=+=+"[i]; l[0] != want || len(l) != 33 {
				t.Errorf("line %q, want one of %c", l, want)
			}
			if l[0] == '=' {
				done = append(done, string(l[1:]))
			}
		}
		begun := string(lines[5][1:])
		var temporary string
		for name, n := range a.inodes {
			if rest, ok := strings.CutPrefix(path.Base(name), ".kmsfs.tmp.data."); ok {
				if temporary = rest; id(n.content[8:24]).String() != rest {
					t.Errorf("%s has another ID", name)
				}
			}
		}
		if temporary != begun || a.inodes["backing/.kmsfs/keys/"+begun[:2]+"/"+begun] == nil {
			t.Errorf("begun is %s, the temporary is of %s", begun, temporary)
		}
		for f, n := range v.files {
			done = slices.DeleteFunc(done, func(s string) bool { return s == f.String() && n.first == "" })
		}
		if len(done) > 0 {
			t.Errorf("no files: %q", done)
		}
	})
}
