package volume

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// furnish makes one of each kind of object.
func furnish(t testing.TB, root *Node) {
	t.Helper()
	long := strings.Repeat("l", 200)
	createFile(t, root, "empty", nil)
	createFile(t, root, "small", pattern(5000, 1))
	createFile(t, root, "big", pattern(300*crypto.BlockSize, 2))
	writeAll(t, createFile(t, root, "sparse", pattern(100, 3)), pattern(5000, 4), 400*crypto.BlockSize)
	linked := createFile(t, root, "linked", pattern(9000, 5))
	dir, _, err := root.Mkdir("dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Link(linked, "other name"); err != nil {
		t.Fatal(err)
	}
	deep, _, err := dir.Mkdir(long, 0o700, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	createFile(t, deep, "deep", pattern(3*crypto.BlockSize, 6))
	createFile(t, deep, long, pattern(10, 7))
	for name, target := range map[string]string{"symlink": "some/where", "long symlink": strings.Repeat("t", 3500)} {
		if _, _, err := root.Symlink(name, target, Owner{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := dir.Mknod("fifo", unix.S_IFIFO|0o600, 0, 0, Owner{}); err != nil {
		t.Fatal(err)
	}
	x := createFile(t, dir, "attributes", pattern(1, 8))
	if err := x.Setxattr("user.name", []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	if err := deep.Setxattr("user.name", []byte("another"), 0); err != nil {
		t.Fatal(err)
	}
	createFile(t, dir, "read only", pattern(50, 9))
	mode := uint32(0o400)
	if _, err := lookup(t, dir, "read only").SetAttr(context.Background(), Change{Mode: &mode}); err != nil {
		t.Fatal(err)
	}
}

// contents is what can be read: by path, the hash of a file, the target of a
// symlink, or the kind of something else; or "error".
func contents(t testing.TB, v *Volume) map[string]string {
	t.Helper()
	out := make(map[string]string)
	var walk func(n *Node, at string)
	walk = func(n *Node, at string) {
		for _, name := range list(t, n) {
			child, _, err := n.Lookup(name)
			if err != nil {
				out[at+name] = "error"
				continue
			}
			switch {
			case child.IsDir():
				out[at+name] = "directory"
				walk(child, at+name+"/")
			case child.IsRegular():
				if b, err := tryReadAll(child); err != nil {
					out[at+name] = "error"
				} else {
					out[at+name] = fmt.Sprintf("%x", sha256.Sum256(b))
				}
			case child.IsSymlink():
				if out[at+name], err = child.Readlink(); err != nil {
					out[at+name] = "error"
				}
			default:
				out[at+name] = fmt.Sprint(child.Kind())
			}
		}
	}
	walk(v.Root(), "")
	return out
}

// differ tells where got is not want, each path once.
func differ(want, got map[string]string) []string {
	paths := make(map[string]bool)
	for p := range want {
		paths[p] = want[p] != got[p]
	}
	for p := range got {
		paths[p] = want[p] != got[p]
	}
	maps.DeleteFunc(paths, func(_ string, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(paths))
}

func (b *bench) fsck(f FsckOptions, edit ...func(*Options)) (*FsckReport, error) {
	o := b.options()
	for _, e := range edit {
		e(&o)
	}
	return Fsck(context.Background(), b.dir, o, f)
}

func (b *bench) mustFsck(f FsckOptions) *FsckReport {
	b.t.Helper()
	r, err := b.fsck(f)
	if err != nil {
		b.t.Fatalf("Fsck: %v", err)
	}
	return r
}

func kinds(r *FsckReport) []string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, string(f.Kind))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func show(r *FsckReport) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n  %s (repaired %v)", f.String(), f.Repaired)
	}
	return b.String()
}

func TestFsckFindsNothingInACleanVolume(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		b := newBench(t, mode)
		v := b.open()
		furnish(t, v.Root())
		before := contents(t, v)
		b.close(v)
		calls := b.kms.count("Decrypt")
		r := b.mustFsck(FsckOptions{})
		if len(r.Findings) != 0 || !r.Complete || !r.Whole {
			t.Errorf("%s: complete %v, whole %v, findings:%s", mode, r.Complete, r.Whole, show(r))
		}
		// Two names of one file are one file.
		if r.Files != 9 || r.Sidecars != 9 || r.Directories != 3 || r.Symlinks != 2 || r.Others != 1 {
			t.Errorf("%s: %+v", mode, *r)
		}
		want := 1
		if mode == ModeFile {
			want += r.Files
		}
		if got := b.kms.count("Decrypt") - calls; got != want {
			t.Errorf("%s: %d calls to the KMS for %d files, want %d", mode, got, r.Files, want)
		}
		if r := b.mustFsck(FsckOptions{Repair: true}); len(r.Findings) != 0 {
			t.Errorf("%s: a repair finds:%s", mode, show(r))
		}
		if got := differ(before, contents(t, b.open())); len(got) != 0 {
			t.Errorf("%s: a repair of a clean volume changed %q", mode, got)
		}
	}
}

// damageCase is something that happens to a volume that is not open, and what
// fsck makes of it.
type damageCase struct {
	name string
	// do damages; at gives the path of the backing file of a plaintext path.
	do    func(t *testing.T, b *bench, at func(string) string)
	found []string // kinds
	// changed are the paths that read otherwise after the repair, or are gone or new.
	changed []string
	stays   bool // there are errors after the repair
	keeps   bool // there are harmless findings after the repair
}

func (b *bench) id(t *testing.T, path string) crypto.ID {
	t.Helper()
	id, err := crypto.HeaderFileID(readPath(t, path)[:crypto.RecordOffset])
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func copyPath(t *testing.T, from, to string) {
	t.Helper()
	ok(t, os.WriteFile(to, readPath(t, from), 0o644))
}

var longName = strings.Repeat("l", 200)

var damageCases = []damageCase{
	{name: "a block is damaged", found: []string{"block"}, changed: []string{"big"}, stays: true,
		do: func(t *testing.T, b *bench, at func(string) string) {
			flipByte(t, at("big"), crypto.BlockOffset(7)+100)
		}},
	{name: "a block is erased", found: []string{"erased-block"}, changed: []string{"big"}, stays: true,
		do: func(t *testing.T, b *bench, at func(string) string) {
			overwrite(t, at("big"), crypto.BlockOffset(7), make([]byte, crypto.CipherBlockSize))
		}},
	{name: "a block of a sparse file is erased", found: []string{"stored"}, changed: []string{"sparse"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			overwrite(t, at("sparse"), crypto.BlockOffset(400), make([]byte, crypto.CipherBlockSize))
		}},
	{name: "a block is older", found: []string{"root"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			path := at("big")
			old := readPath(t, path)[crypto.BlockOffset(9):crypto.BlockOffset(10)]
			v := b.open()
			writeAll(t, lookup(t, v.Root(), "big"), pattern(crypto.BlockSize, 99), 9*crypto.BlockSize)
			b.close(v)
			overwrite(t, path, crypto.BlockOffset(9), old)
		}},
	{name: "the file is cut at a block", found: []string{"size"}, changed: []string{"big"},
		do: func(t *testing.T, b *bench, at func(string) string) { truncate(t, at("big"), crypto.BlockOffset(250)) }},
	{name: "the file is cut inside a block", found: []string{"block", "size"}, changed: []string{"big"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			truncate(t, at("big"), crypto.BlockOffset(250)+1000)
		}},
	{name: "the tail is torn", found: []string{"torn-tail"}, changed: []string{"big"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			truncate(t, at("big"), crypto.BlockOffset(299)+40)
		}},
	{name: "some bytes are appended", found: []string{"torn-tail"},
		do: func(t *testing.T, b *bench, at func(string) string) { truncate(t, at("empty"), crypto.HeaderSize+1) }},
	{name: "an append was cut off before the old tail was padded", found: []string{"block", "size"}, changed: []string{"small"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			truncate(t, at("small"), crypto.BlockOffset(3))
		}},
	{name: "the record is damaged", found: []string{"record"},
		do: func(t *testing.T, b *bench, at func(string) string) { flipByte(t, at("big"), 60) }},
	{name: "the record of an empty file is damaged", found: []string{"record"},
		do: func(t *testing.T, b *bench, at func(string) string) { flipByte(t, at("empty"), 143) }},
	{name: "the record of a file with hard links is damaged", found: []string{"record"},
		do: func(t *testing.T, b *bench, at func(string) string) { flipByte(t, at("linked"), 143) }},
	{name: "record and a block are damaged", found: []string{"block", "record"}, changed: []string{"big"}, stays: true,
		do: func(t *testing.T, b *bench, at func(string) string) {
			flipByte(t, at("big"), 60)
			flipByte(t, at("big"), crypto.BlockOffset(3)+30)
		}},
	{name: "record and all blocks are damaged", found: []string{"block", "record"}, changed: []string{"small"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			for _, off := range []int64{60, crypto.BlockOffset(0) + 30, crypto.BlockOffset(1) + 30} {
				flipByte(t, at("small"), off)
			}
		}},
	{name: "the header has no magic", found: []string{"header", "orphaned-sidecar"}, keeps: true, changed: []string{"small"},
		do: func(t *testing.T, b *bench, at func(string) string) { flipByte(t, at("small"), 0) }},
	{name: "a create was cut off", found: []string{"header", "orphaned-sidecar"}, changed: []string{"small"},
		do: func(t *testing.T, b *bench, at func(string) string) { truncate(t, at("small"), 100) }},
	{name: "a sidecar is missing", found: []string{"sidecar"}, changed: []string{"small"}, stays: true,
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Remove(filepath.Join(b.dir, sidecarPath(b.id(t, at("small"))))))
		}},
	{name: "a sidecar is damaged", found: []string{"sidecar"}, changed: []string{"small"}, stays: true,
		do: func(t *testing.T, b *bench, at func(string) string) {
			path := filepath.Join(b.dir, sidecarPath(b.id(t, at("small"))))
			flipByte(t, path, int64(len(readPath(t, path)))-40)
		}},
	{name: "a file is renamed behind our back", found: []string{"binding", "orphaned-sidecar"}, changed: []string{"dir/attributes", "small"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Rename(at("small"), at("dir/attributes")))
		}},
	{name: "two files are swapped", found: []string{"binding"}, changed: []string{"big", "small"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, unix.Renameat2(unix.AT_FDCWD, at("big"), unix.AT_FDCWD, at("small"), unix.RENAME_EXCHANGE))
		}},
	{name: "a hard link is made behind our back", found: []string{"binding", "orphaned-sidecar"}, changed: []string{"dir/attributes"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Remove(at("dir/attributes")))
			ok(t, os.Link(at("small"), at("dir/attributes")))
		}},
	{name: "a copy under another name", found: []string{"duplicate", "orphaned-sidecar"}, changed: []string{"dir/attributes"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Remove(at("dir/attributes")))
			copyPath(t, at("small"), at("dir/attributes"))
		}},
	{name: "a sync tool's conflict copy", found: []string{"duplicate", "name"}, changed: []string{"small.conflict-"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			copyPath(t, at("small"), at("small")+".sync-conflict-20260102-030405-ABCDEFG")
		}},
	{name: "a hard link that a sync tool split in two", found: []string{"duplicate"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			content := readPath(t, at("linked"))
			ok(t, os.Remove(at("linked")))
			ok(t, os.WriteFile(at("linked"), content, 0o644))
		}},
	{name: "a name that nobody made", found: []string{"foreign"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.WriteFile(filepath.Join(b.dir, ".DS_Store"), pattern(6000, 1), 0o644))
		}},
	{name: "the file of a long name is missing", found: []string{"name"}, changed: []string{"dir/" + longName + "/" + longName, "dir/" + longName + "/recovered."},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Remove(at("dir/"+longName+"/"+longName)+crypto.LongSuffix))
		}},
	{name: "the file of a long name is damaged", found: []string{"name"}, changed: []string{"dir/" + longName + "/" + longName, "dir/" + longName + "/recovered."},
		do: func(t *testing.T, b *bench, at func(string) string) {
			flipByte(t, at("dir/"+longName+"/"+longName)+crypto.LongSuffix, 5)
		}},
	{name: "the file of a long name is left over", found: []string{"leftover"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.WriteFile(filepath.Join(b.dir, "L.abc.name"), []byte("x"), 0o600))
		}},
	{name: "a directory's record is damaged", found: []string{"directory-record"},
		do: func(t *testing.T, b *bench, at func(string) string) { flipByte(t, at("dir")+"/"+recordName, 100) }},
	{name: "a directory's record is missing", found: []string{"directory-record", "name"},
		changed: []string{"dir/" + longName, "dir/" + longName + "/" + longName, "dir/" + longName + "/deep", "dir/attributes", "dir/fifo", "dir/other name", "dir/read only",
			"dir/recovered.", "dir/recovered.", "dir/recovered.", "dir/recovered.", "dir/recovered.", "dir/recovered./" + longName, "dir/recovered./deep"},
		do: func(t *testing.T, b *bench, at func(string) string) { ok(t, os.Remove(at("dir")+"/"+recordName)) }},
	{name: "a directory is moved", found: []string{"directory-binding", "leftover", "orphaned-sidecar"},
		changed: []string{"dir/" + longName, "dir/" + longName + "/" + longName, "dir/" + longName + "/deep", "small", "small/" + longName, "small/deep"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			from, to := at("dir/"+longName), at("small")
			ok(t, os.Remove(to))
			ok(t, os.Rename(from, to))
		}},
	{name: "a symlink's target is damaged", found: []string{"symlink"}, changed: []string{"symlink"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Remove(at("symlink")))
			ok(t, os.Symlink("nonsense", at("symlink")))
		}},
	{name: "a long symlink's target is missing", found: []string{"symlink"}, changed: []string{"long symlink"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			target, err := os.Readlink(at("long symlink"))
			ok(t, err)
			ok(t, os.Remove(filepath.Join(b.dir, metaDir, "links", target)))
		}},
	{name: "an attribute is damaged", found: []string{"xattr"}, stays: true,
		do: func(t *testing.T, b *bench, at func(string) string) {
			path := at("dir/attributes")
			list := make([]byte, 1000)
			n, err := unix.Listxattr(path, list)
			ok(t, err)
			name, _, _ := strings.Cut(string(list[:n]), "\x00")
			ok(t, unix.Setxattr(path, name, []byte("nonsense, but long enough for a nonce and a tag"), 0))
		}},
	{name: "a sidecar without a file", found: []string{"orphaned-sidecar"}, changed: []string{"big"},
		do: func(t *testing.T, b *bench, at func(string) string) { ok(t, os.Remove(at("big"))) }},
	{name: "a symlink target without a symlink", found: []string{"leftover"}, changed: []string{"long symlink"},
		do: func(t *testing.T, b *bench, at func(string) string) { ok(t, os.Remove(at("long symlink"))) }},
	{name: "temporaries", found: []string{"leftover"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Mkdir(filepath.Join(b.dir, tmpPrefix+"1"), 0o700))
			ok(t, os.Symlink("x", filepath.Join(at("dir"), tmpPrefix+"2")))
			ok(t, os.WriteFile(filepath.Join(at("dir"), tmpPrefix+"3"), make([]byte, 20), 0o600))
			copyPath(t, at("big"), filepath.Join(b.dir, dataTmpPrefix+strings.Repeat("0", 32)))
			copyPath(t, at("dir")+"/"+recordName, filepath.Join(b.dir, tmpPrefix+"4"))
			for _, name := range []string{"volume.json.tmp", "keys/" + strings.Repeat("0", 2) + "/" + strings.Repeat("0", 32) + ".tmp"} {
				path := filepath.Join(b.dir, metaDir, name)
				ok(t, os.MkdirAll(filepath.Dir(path), 0o700))
				ok(t, os.WriteFile(path, []byte("x"), 0o600))
			}
		}},
	{name: "a temporary directory that holds something", found: []string{"name"}, changed: []string{"dir", "dir/" + longName, "dir/" + longName + "/" + longName, "dir/" + longName + "/deep",
		"dir/attributes", "dir/fifo", "dir/other name", "dir/read only", "recovered.", "recovered./" + longName, "recovered./" + longName + "/" + longName, "recovered./" + longName + "/deep",
		"recovered./attributes", "recovered./fifo", "recovered./other name", "recovered./read only"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Rename(at("dir"), filepath.Join(b.dir, tmpPrefix+strings.Repeat("a", 32))))
		}},
	{name: "strangers in .kmsfs", found: []string{"foreign"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			for _, name := range []string{"stranger", "keys/stranger", "links/stranger", sidecarPath(b.id(t, at("big")))[len(metaDir)+1:] + " (copy)"} {
				ok(t, os.WriteFile(filepath.Join(b.dir, metaDir, name), []byte("x"), 0o600))
			}
		}},
	{name: "no root was kept", found: []string{"root-absent"}, changed: []string{"big"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			v := b.open()
			writeAll(t, lookup(t, v.Root(), "big"), pattern(300*crypto.BlockSize, 6), 0)
			writeAll(t, lookup(t, v.Root(), "big"), pattern(300*crypto.BlockSize, 7), 300*crypto.BlockSize)
			ok(t, lookup(t, v.Root(), "big").Truncate(context.Background(), 300*crypto.BlockSize))
			b.close(v)
		}},
	{name: "the previous configuration is damaged", found: []string{"config-backup"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.WriteFile(filepath.Join(b.dir, metaDir, configBackup), []byte("x"), 0o600))
		}},
	{name: "a mount was killed", found: []string{"leftover"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			for _, sub := range []string{sessionsDir, "redo"} {
				ok(t, os.WriteFile(filepath.Join(b.dir, metaDir, sub, strings.Repeat("1", 32)), nil, 0o600))
			}
		}},
}

// unhashed replaces what is different each time in the names that fsck gives.
func unhashed(paths []string) []string {
	out := slices.Clone(paths)
	for i, p := range out {
		parts := strings.Split(p, "/")
		for j, part := range parts {
			for _, prefix := range []string{"recovered.", brokenPrefix, "small.conflict-"} {
				if strings.HasPrefix(part, prefix) {
					parts[j] = prefix
				}
			}
		}
		out[i] = strings.Join(parts, "/")
	}
	slices.Sort(out)
	return out
}

func (b *bench) furnished() (before map[string]string, at func(string) string) {
	v := b.open()
	furnish(b.t, v.Root())
	before = contents(b.t, v)
	paths := make(map[string]string)
	for p := range before {
		n := v.Root()
		for part := range strings.SplitSeq(p, "/") {
			n = lookup(b.t, n, part)
		}
		paths[p] = b.backingFile(n)
	}
	b.close(v)
	return before, func(p string) string {
		if paths[p] == "" {
			b.t.Fatalf("no %q", p)
		}
		return paths[p]
	}
}

func TestFsckFindsAndRepairs(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		for _, c := range damageCases {
			if mode == ModeVolume && !strings.Contains(c.name, "sidecar") && !strings.Contains(c.name, "copy") {
				continue
			}
			t.Run(string(mode)+"/"+c.name, func(t *testing.T) { c.run(t, newBench(t, mode)) })
		}
	}
}

func (c *damageCase) run(t *testing.T, b *bench) {
	intact, at := b.furnished()
	c.do(t, b, at)

	checked := b.mustFsck(FsckOptions{})
	if got := kinds(checked); !slices.Equal(got, c.found) {
		t.Fatalf("found %q, want %q:%s", got, c.found, show(checked))
	}
	for _, f := range checked.Findings {
		if f.Repaired && f.Kind != FindingLeftover {
			t.Errorf("a check repaired: %s", f.String())
		}
		if f.Backing == "" || f.Problem == "" {
			t.Errorf("a finding says too little: %+v", f)
		}
	}
	// A check changes nothing, so what can be read now must be readable after.
	v := b.open()
	readable := contents(t, v)
	b.close(v)

	repaired := b.mustFsck(FsckOptions{Repair: true})
	for _, f := range repaired.Findings {
		if f.Note == "" {
			t.Errorf("nothing says what the repair made of: %s", f.String())
		}
	}
	if (repaired.Remaining > 0) != c.stays {
		t.Errorf("%d errors remain:%s", repaired.Remaining, show(repaired))
	}
	again := b.mustFsck(FsckOptions{Repair: true})
	if c.stays {
		if again.Remaining != repaired.Remaining || again.Errors != again.Remaining {
			t.Errorf("the second repair: %d errors, %d remain:%s", again.Errors, again.Remaining, show(again))
		}
	} else if (len(again.Findings) > 0) != c.keeps || again.Errors > 0 {
		t.Errorf("the second repair finds:%s", show(again))
	}
	v = b.open()
	after := contents(t, v)
	b.close(v)
	if got := unhashed(differ(intact, after)); !slices.Equal(got, unhashed(c.changed)) {
		t.Errorf("changed: %q, want %q", got, c.changed)
	}
	have := slices.Collect(maps.Values(after))
	for p, content := range readable {
		if content == "error" || content == "directory" || after[p] == content || slices.Contains(have, content) {
			continue
		}
		t.Errorf("%q could be read before the repair, and cannot now", p)
	}
}

func TestFsckRefusesAVolumeThatIsMountedForWriting(t *testing.T) {
	b := newBench(t, ModeVolume)
	b.open()
	for _, repair := range []bool{false, true} {
		if _, err := b.fsck(FsckOptions{Repair: repair}); !errors.Is(err, ErrInUse) {
			t.Errorf("repair %v: %v", repair, err)
		}
	}
}
