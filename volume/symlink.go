package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// maxTarget is the longest symlink target, in bytes; above inlineTarget its
// encrypted form does not fit into the backing symlink, which then holds the ID
// of a file in .kmsfs/links.
const (
	maxTarget    = 4095
	inlineTarget = 3031
	linkIDLen    = 2 * len(crypto.ID{})
)

// Symlink makes a symbolic link to target, which may be any bytes but NUL.
func (n *Node) Symlink(name, target string, owner Owner) (*Node, Attr, error) {
	if err := n.vol.beginNames(); err != nil {
		return nil, Attr{}, err
	}
	defer n.vol.endNames()
	if len(target) > maxTarget {
		return nil, Attr{}, unix.ENAMETOOLONG
	}
	v := n.vol
	raw, err := v.symlinks.Seal(v.random, target)
	if err != nil {
		return nil, Attr{}, fmt.Errorf("%w: %w", unix.EINVAL, err)
	}
	content := crypto.EncodeSymlink(raw)
	var id crypto.ID
	if len(target) > inlineTarget {
		if id, err = crypto.NewID(v.random); err != nil {
			return nil, Attr{}, err
		}
		content = id.String()
	}
	return n.makeEntry(name, making{link: id, owner: owner, make: func(d *descriptor, backing string) error {
		if !id.IsZero() {
			if err := v.storeTarget(content, raw); err != nil {
				return err
			}
		}
		return v.backing.Symlinkat(content, d.fd, backing)
	}})
}

// storeTarget writes a long target. It is durable at once, since the fsync of any
// directory may be the one that a symlink to it relies on; they are rare.
func (v *Volume) storeTarget(name string, raw []byte) error {
	if err := writeNew(v.backing, v.links, name, 0o600, raw); err != nil {
		return err
	}
	fd, err := v.backing.Openat(v.links, name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	err = v.backing.Fsync(fd)
	v.backing.Close(fd)
	if err == nil {
		err = v.backing.Fsync(v.links)
	}
	return err
}

// Readlink returns the target of a symbolic link.
func (n *Node) Readlink() (string, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return "", err
	}
	defer n.vol.end()
	if n.mode != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	if n.undecipherable.Load() {
		return "", n.integrity(-1, errors.New("its name does not decrypt"))
	}
	content, err := n.readBackingLink()
	if err != nil {
		return "", err
	}
	raw, err := n.vol.linkContent(content)
	if isStoreError(err) {
		return "", fmt.Errorf("read the target of %q: %w", n.Path(), err)
	}
	if err != nil {
		return "", n.integrity(-1, err)
	}
	target, err := n.vol.symlinks.Open(raw)
	if err != nil {
		return "", n.integrity(-1, err)
	}
	return target, nil
}

// linkContent gives nonce, ciphertext and tag for what a backing symlink holds.
func (v *Volume) linkContent(content string) ([]byte, error) {
	if len(content) != linkIDLen {
		return crypto.DecodeSymlink(content)
	}
	id, err := crypto.ParseID(content)
	if err != nil {
		return nil, err
	}
	if v.links < 0 {
		return nil, unix.ENOENT
	}
	return readSmall(v.backing, v.links, id.String(), maxTarget+crypto.BlockOverhead)
}

// readBackingLink reads the backing symlink itself.
func (n *Node) readBackingLink() (string, error) {
	buf := make([]byte, unix.PathMax)
	var got int
	err := n.onBacking(func(dirfd int, name string) (err error) {
		got, err = n.vol.backing.Readlinkat(dirfd, name, buf)
		return err
	})
	if err != nil {
		return "", err // got is -1
	}
	return string(buf[:got]), nil
}

// linkSize is the length of the target in bytes, from that of the backing
// symlink; only the longest targets need another look.
func (n *Node) linkSize(backingLen int) (int, error) {
	if backingLen != linkIDLen {
		size, ok := crypto.SymlinkPlainLen(backingLen)
		if !ok {
			return 0, n.integrity(-1, errors.New("not a symlink of kmsfs"))
		}
		return size, nil
	}
	content, err := n.readBackingLink()
	if err != nil {
		return 0, err
	}
	raw, err := n.vol.linkContent(content)
	if err != nil {
		return 0, err
	}
	return max(0, len(raw)-crypto.BlockOverhead), nil
}
