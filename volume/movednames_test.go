package volume

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/crypto"
)

func TestLongAndShortNamesTakeEachOthersPlace(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	long := func(c string) string { return strings.Repeat(c, 240) }
	suffixed := func() (out []string) {
		entries, err := os.ReadDir(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), crypto.LongPrefix) {
				out = append(out, e.Name())
			}
		}
		return out
	}
	content := map[string]string{"short": "1", long("a"): "2", long("b"): "3", "other": "4"}
	for name, c := range content {
		createFile(t, v.Root(), name, []byte(c))
	}
	for _, r := range []struct {
		from, to string
		flags    uint32
	}{
		{"short", long("c"), 0},              // short to long
		{long("a"), "brief", 0},              // long to short
		{long("b"), long("d"), 0},            // long to long
		{long("c"), "other", 0},              // long over short
		{"brief", long("d"), 0},              // short over long
		{"other", long("d"), RenameExchange}, // one for the other
	} {
		if err := v.Root().Rename(r.from, v.Root(), r.to, r.flags); err != nil {
			t.Fatalf("%.9s to %.9s: %v", r.from, r.to, err)
		}
		c := content[r.from]
		if r.flags == RenameExchange {
			content[r.from] = content[r.to]
		} else {
			delete(content, r.from)
		}
		content[r.to] = c
		v = b.reopened(v)
		names := list(t, v.Root())
		if len(names) != len(content) {
			t.Errorf("%.9s to %.9s: listed %d names, want %d", r.from, r.to, len(names), len(content))
		}
		longs := 0
		for name, c := range content {
			if got := readAll(t, lookup(t, v.Root(), name)); string(got) != c {
				t.Errorf("%.9s holds %q, want %q", name, got, c)
			}
			if len(name) > 200 {
				longs++
			}
		}
		// Each long name is an entry and the file of its name.
		if got := suffixed(); len(got) != 2*longs {
			t.Errorf("%.9s to %.9s: %d long names make %q", r.from, r.to, longs, got)
		}
	}
}

// A sync tool copies data and sidecars at different times, and passes over
// changes that keep the size.
func TestDataAndSidecarsFromDifferentSyncsOpenOrAreRefused(t *testing.T) {
	const n = 12
	b := filledBench(t, ModeFile, n)
	copyOf := func(keep func(string) bool) map[string][]byte {
		out := map[string][]byte{}
		for name := range hashTree(t, b.dir, keep) {
			out[name] = readFile(t, b.dir, name)
		}
		return out
	}
	put := func(files map[string][]byte) {
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(b.dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	oldSidecars, oldData := copyOf(sidecarFiles), copyOf(dataFiles)
	b.mustRewrap(uriA, uriB)
	newSidecars := copyOf(sidecarFiles)
	v := b.open()
	for i := 1; i < n; i++ { // of the same size
		writeAll(t, lookup(t, v.Root(), fileName(i)), bytes.Repeat([]byte{'n'}, i), 0)
	}
	b.close(v)

	// Old data beside the sidecars of a rewrap.
	put(oldData)
	b.checkFilled(n)
	// Sidecars from before the rewrap: their key was given up since.
	put(oldSidecars)
	v = b.open()
	for i := 1; i < n; i++ {
		_, err := tryReadAll(lookup(t, v.Root(), fileName(i)))
		wantIntegrity(t, err, fileName(i), metaDir+"/keys/", "none of its entries")
	}
	b.close(v)
	// The next sync brings the rest, and nothing was lost.
	put(newSidecars)
	b.checkFilled(n)
}
