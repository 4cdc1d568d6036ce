package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

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

// below gives the paths of a directory and of what is in it.
func below(dir string, names ...string) []string {
	paths := []string{dir}
	for _, name := range names {
		paths = append(paths, dir+"/"+name)
	}
	return paths
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
	{name: "the last block is written in part", found: []string{"block", "size"}, changed: []string{"big"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			truncate(t, at("big"), crypto.BlockOffset(250)+1000)
			truncate(t, at("big"), crypto.BlockOffset(250)+3000)
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
	{name: "an append was cut off before the old tail was padded, and in its last block", found: []string{"block", "size"}, changed: []string{"small"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			overwrite(t, at("small"), crypto.BlockOffset(5)+3000, make([]byte, 100))
			overwrite(t, at("small"), crypto.BlockOffset(5), []byte("what was written of it"))
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
	{name: "the file ID in a header is damaged", found: []string{"header"},
		do: func(t *testing.T, b *bench, at func(string) string) { flipByte(t, at("small"), 10) }},
	{name: "file ID, record and a block are damaged", found: []string{"header"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			overwrite(t, at("small"), 10, make([]byte, 100))
			flipByte(t, at("small"), crypto.BlockOffset(0)+30)
		}, changed: []string{"small"}, stays: true},
	{name: "the file ID of a file with hard links is damaged", found: []string{"header"},
		do: func(t *testing.T, b *bench, at func(string) string) { flipByte(t, at("linked"), 23) }},
	{name: "the file ID of an empty file is damaged, and its key is missing", found: []string{"sidecar"}, stays: true,
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Remove(filepath.Join(b.dir, sidecarPath(b.id(t, at("empty"))))))
			flipByte(t, at("empty"), 10)
		}, changed: []string{"empty"}},
	{name: "the file ID in a header is another's", found: []string{"header"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			overwrite(t, at("small"), 8, readPath(t, at("big"))[8:24])
		}},
	{name: "the header has no magic", found: []string{"header"},
		do: func(t *testing.T, b *bench, at func(string) string) { flipByte(t, at("small"), 0) }},
	{name: "the header of a file whose key is missing has no magic", found: []string{"header"}, changed: []string{"small"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Remove(filepath.Join(b.dir, sidecarPath(b.id(t, at("small"))))))
			overwrite(t, at("small"), 0, make([]byte, 20))
		}},
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
	{name: "a directory's record is a link to that of the one above", found: []string{"duplicate-directory", "name", "xattr"},
		changed: []string{"dir/" + longName + "/" + longName, "dir/" + longName + "/deep", "dir/" + longName + "/recovered.", "dir/" + longName + "/recovered."},
		do: func(t *testing.T, b *bench, at func(string) string) {
			inner := at("dir/"+longName) + "/" + recordName
			ok(t, os.Remove(inner))
			ok(t, os.Link(at("dir")+"/"+recordName, inner))
		}},
	{name: "a directory is copied beside itself", found: []string{"duplicate", "duplicate-directory", "name"},
		changed: below("dir.conflict-", longName, longName+"/"+longName, longName+"/deep", "attributes", "fifo", "other name", "read only"),
		do: func(t *testing.T, b *bench, at func(string) string) {
			copyTree(t, at("dir"), at("dir")+".sync-conflict")
		}},
	{name: "a directory is copied to where another of its name was", found: []string{"duplicate", "duplicate-directory"},
		changed: below("symlink", longName, longName+"/"+longName, longName+"/deep", "attributes", "fifo", "other name", "read only"),
		do: func(t *testing.T, b *bench, at func(string) string) {
			ok(t, os.Remove(at("symlink")))
			copyTree(t, at("dir"), at("symlink"))
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
			for shelf := range 256 {
				path := filepath.Join(b.dir, metaDir, "keys", fmt.Sprintf("%02x", shelf))
				if !exists(path) {
					ok(t, os.WriteFile(path, nil, 0o600))
					break
				}
			}
			for _, name := range []string{"stranger", "keys/stranger", "links/stranger", sidecarPath(b.id(t, at("big")))[len(metaDir)+1:] + " (copy)"} {
				ok(t, os.WriteFile(filepath.Join(b.dir, metaDir, name), []byte("x"), 0o600))
			}
		}},
	{name: "directories where sessions and redo slots are", found: []string{"foreign"},
		do: func(t *testing.T, b *bench, at func(string) string) {
			for _, sub := range []string{sessionsDir, "redo"} {
				ok(t, os.Mkdir(filepath.Join(b.dir, metaDir, sub, strings.Repeat("1", 32)), 0o700))
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
