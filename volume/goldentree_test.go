package volume

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

const (
	goldenBlock = 4096
	// goldenACL is u::rw- u:1234:r-- g::r-- m::r-- o::---, as the kernel has it.
	goldenACL = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xd2\x04\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
)

// goldenTree fills a volume with one of everything that the format can say.
type goldenTree struct {
	t *testing.T
	v *Volume
}

func (g *goldenTree) file(dir *Node, name string, content []byte) *Node {
	return createFile(g.t, dir, name, content)
}

func (g *goldenTree) dir(parent *Node, name string, mode uint32) *Node {
	n, _, err := parent.Mkdir(name, 0o755, Owner{})
	ok(g.t, err)
	g.chmod(n, mode)
	return n
}

func (g *goldenTree) chmod(n *Node, mode uint32) {
	_, err := n.SetAttr(g.t.Context(), Change{Mode: &mode})
	ok(g.t, err)
}

func (g *goldenTree) link(parent *Node, name, target string) *Node {
	n, _, err := parent.Symlink(name, target, Owner{})
	ok(g.t, err)
	return n
}

func (g *goldenTree) truncate(n *Node, size int64) { ok(g.t, n.Truncate(g.t.Context(), size)) }

func (g *goldenTree) attribute(n *Node, name, value string) {
	ok(g.t, n.Setxattr(name, []byte(value), 0))
}

// fill is what the first mount does.
func (g *goldenTree) fill() {
	root := g.v.Root()
	g.contents(g.dir(root, "contents", 0o755))
	g.names(g.dir(root, "names", 0o755))
	g.links(g.dir(root, "links", 0o755))
	g.others(g.dir(root, "others", 0o755))
	g.attributes(g.dir(root, "attributes", 0o755))
	g.file(root, "changed", pattern(3*goldenBlock+100, 60))
	g.file(root, "moved", pattern(500, 61))
	g.file(root, "in the root", []byte("the root has an ID of its own\n"))
}

func (g *goldenTree) contents(dir *Node) {
	for i, size := range []int{0, 1, 4095, 4096, 4097, 5*goldenBlock + 100} {
		g.file(dir, []string{"0", "1", "4095", "4096", "4097", "several blocks"}[i], pattern(size, byte(i)))
	}
	sparse := g.file(dir, "sparse", pattern(100, 10))
	writeAll(g.t, sparse, pattern(goldenBlock, 11), 40*goldenBlock)
	hole := g.file(dir, "ends in a hole", pattern(goldenBlock, 12))
	g.truncate(hole, 20*goldenBlock+7)
	g.truncate(g.file(dir, "one hole", nil), 3*goldenBlock)
	punched := g.file(dir, "punched", pattern(6*goldenBlock, 13))
	ok(g.t, punched.Allocate(g.t.Context(), goldenBlock, 3*goldenBlock, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE))
	g.file(dir, "overwritten", pattern(4*goldenBlock, 14))
	g.file(dir, "truncated", pattern(4*goldenBlock, 15))
	g.file(dir, "appended", pattern(goldenBlock-1, 16))
	g.truncate(g.file(dir, "without a root", pattern(300*goldenBlock, 17)), 10*goldenBlock+1)
	g.truncate(g.file(dir, "emptied", pattern(goldenBlock, 18)), 0)
	few := g.file(dir, "more than is read whole", pattern(goldenBlock, 19))
	writeAll(g.t, few, pattern(goldenBlock, 22), 33*goldenBlock)
}

func (g *goldenTree) names(dir *Node) {
	for i, name := range []string{
		"a", "fifteen bytes …", "sixteen bytes ok", strings.Repeat("n", 159), strings.Repeat("n", 160), strings.Repeat("n", 255),
		"Jahresbericht ü", "Jahresbericht u\u0308", "日本語", "🗝", "latin1 \xfc", "two\nlines", " ", `"quoted\"`,
		".hidden", ".kmsfs", ".kmsfs.dir", "L.long.name", "kmsfs-broken.", "A", "-",
	} {
		g.file(dir, name, pattern(20+i, byte(30+i)))
	}
	long := g.dir(dir, strings.Repeat("directory", 28), 0o750)
	g.file(long, strings.Repeat("ü", 127), []byte("in a long name"))
	g.dir(g.dir(g.dir(dir, "nested", 0o755), "deeper", 0o700), "empty", 0o755)
}

func (g *goldenTree) links(dir *Node) {
	linked := g.file(dir, "linked", pattern(9000, 50))
	sub := g.dir(dir, "elsewhere", 0o755)
	for _, to := range []*Node{dir, sub} {
		_, err := to.Link(linked, "other name")
		ok(g.t, err)
	}
	once := g.file(dir, "was linked", pattern(700, 51))
	_, err := dir.Link(once, "for a while")
	ok(g.t, err)
	ok(g.t, dir.Unlink("for a while"))
	g.link(dir, "short", "t")
	g.link(dir, "relative", "../contents/several blocks")
	g.link(dir, "inline", strings.Repeat("t", crypto.MaxInlineSymlink))
	g.link(dir, "in a file", strings.Repeat("u", crypto.MaxInlineSymlink+1))
	g.link(dir, "longest", strings.Repeat("/longest", 511)+"/target")
	g.link(dir, strings.Repeat("s", 200), "/target/ü")
}

func (g *goldenTree) others(dir *Node) {
	for _, o := range []struct {
		name         string
		kind         uint32
		major, minor uint32
	}{
		{"fifo", unix.S_IFIFO, 0, 0}, {"socket", unix.S_IFSOCK, 0, 0},
		{"null", unix.S_IFCHR, 1, 3}, {"disk", unix.S_IFBLK, 7, 300},
	} {
		n, _, err := dir.Mknod(o.name, o.kind|0o640, o.major, o.minor, Owner{})
		ok(g.t, err)
		if o.kind != unix.S_IFSOCK {
			g.attribute(n, "trusted.name", "of a "+o.name)
		}
	}
	for name, mode := range map[string]uint32{"0000": 0, "0444": 0o444, "4755": 0o4755, "2711": 0o2711} {
		g.chmod(g.file(dir, name, []byte("mode "+name)), mode)
	}
	g.chmod(g.dir(dir, "sticky", 0o755), 0o1777)
	g.chmod(g.dir(dir, "read only", 0o755), 0o555)
}

func (g *goldenTree) attributes(dir *Node) {
	n := g.file(dir, "file", []byte("with attributes"))
	g.attribute(n, "user.name", "value")
	g.attribute(n, "user.empty", "")
	g.attribute(n, "user."+strings.Repeat("x", crypto.MaxXattrName-5), "of the longest name")
	g.attribute(n, "user.bytes", string(pattern(1500, 70)))
	g.attribute(n, "trusted.name", "only root's")
	g.attribute(dir, "user.name", "of a directory")
	g.attribute(g.file(dir, "acl", []byte("with an ACL")), ACLAccess, goldenACL)
	g.attribute(g.dir(dir, "default acl", 0o755), ACLDefault, goldenACL)
	g.attribute(g.link(dir, "symlink", "somewhere"), "trusted.name", "of a symlink")
}

// change is what the second mount does.
func (g *goldenTree) change() {
	root := g.v.Root()
	contents := lookup(g.t, root, "contents")
	writeAll(g.t, lookup(g.t, contents, "overwritten"), pattern(goldenBlock+50, 20), goldenBlock-25)
	g.truncate(lookup(g.t, contents, "truncated"), goldenBlock+1)
	writeAll(g.t, lookup(g.t, contents, "appended"), pattern(2*goldenBlock, 21), goldenBlock-1)
	ok(g.t, root.Rename("moved", contents, "renamed", 0))
	g.attribute(lookup(g.t, lookup(g.t, root, "attributes"), "file"), "user.name", "newer value")
	g.date(root, time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC))
	old := time.Date(1960, 5, 6, 7, 8, 9, 0, time.UTC)
	_, err := lookup(g.t, root, "in the root").SetAttr(g.t.Context(), Change{Mtime: &old})
	ok(g.t, err)
}

// date gives all in a directory, and then the directory, a time of its own. It
// returns the next.
func (g *goldenTree) date(n *Node, at time.Time) time.Time {
	if n.IsDir() {
		for _, name := range list(g.t, n) {
			at = g.date(lookup(g.t, n, name), at)
		}
	}
	_, err := n.SetAttr(g.t.Context(), Change{Mtime: &at})
	ok(g.t, err)
	return at.Add(1001 * time.Second)
}
