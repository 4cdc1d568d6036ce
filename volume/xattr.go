package volume

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// The names of POSIX ACLs, which are stored as they are, so that the kernel
// enforces them above and below: it derives modes and inheritance from them.
const (
	ACLAccess  = "system.posix_acl_access"
	ACLDefault = "system.posix_acl_default"
)

// IsACL tells whether an attribute is a POSIX ACL.
func IsACL(name string) bool { return name == ACLAccess || name == ACLDefault }

const (
	capabilityXattr = "security.capability"
	trustedPrefix   = "trusted.kmsfs."
	maxXattrName    = 255     // XATTR_NAME_MAX
	maxXattrValue   = 1 << 16 // XATTR_SIZE_MAX, as XATTR_LIST_MAX
)

// capability is what a node remembers of its security.capability, which the
// kernel asks for before the first write to each file: that there is none. The
// lowest bit says so, the others count changes.
type capability struct{ state atomic.Uint64 }

func (c *capability) absent() bool { return c.state.Load()&1 != 0 }

// seen returns what noteAbsent needs to know of the time before a look.
func (c *capability) seen() uint64 { return c.state.Load() }

// noteAbsent says that a look found none, unless one was set since seen.
func (c *capability) noteAbsent(seen uint64) { c.state.CompareAndSwap(seen, seen|1) }

// lacksCapability tells whether it is known that there is none.
func (n *Node) lacksCapability() bool { return n.vol.shared == nil && n.capability.absent() }

// noteSet says that one was just set.
func (c *capability) noteSet() {
	for {
		old := c.state.Load()
		if c.state.CompareAndSwap(old, old&^1+2) {
			return
		}
	}
}

// storedXattr gives the backing name of an attribute. Whatever is encrypted has
// the namespace inside, and lives in user.kmsfs.*, which every store has, or,
// where Linux has no user.*, in trusted.kmsfs.*.
func (n *Node) storedXattr(name string) (string, error) {
	if IsACL(name) {
		if n.mode == unix.S_IFLNK || name == ACLDefault && n.mode != unix.S_IFDIR {
			return "", unix.EOPNOTSUPP
		}
		return name, nil
	}
	namespace, rest, ok := strings.Cut(name, ".")
	if !ok || namespace != "user" && namespace != "trusted" && namespace != "security" {
		return "", unix.EOPNOTSUPP
	}
	if rest == "" {
		return "", unix.EINVAL
	}
	if namespace == "user" && !n.hasUserXattrs() {
		return "", unix.EPERM
	}
	if len(name) > crypto.MaxXattrName {
		return "", unix.ERANGE
	}
	stored, err := n.vol.names.EncryptXattrName(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", unix.EINVAL, err)
	}
	if n.hasUserXattrs() {
		return stored, nil
	}
	stored = trustedPrefix + strings.TrimPrefix(stored, crypto.XattrPrefix)
	if len(stored) > maxXattrName {
		return "", unix.ERANGE
	}
	return stored, nil
}

// hasUserXattrs tells whether Linux has user.* on inodes of this kind.
func (n *Node) hasUserXattrs() bool { return n.mode == unix.S_IFREG || n.mode == unix.S_IFDIR }

// encryptedXattr gives the encrypted part of a backing name, with
// crypto.XattrPrefix, if it is one of ours.
func (n *Node) encryptedXattr(stored string) (string, bool) {
	if n.hasUserXattrs() {
		return stored, strings.HasPrefix(stored, crypto.XattrPrefix)
	}
	enc, ok := strings.CutPrefix(stored, trustedPrefix)
	return crypto.XattrPrefix + enc, ok
}

// Getxattr returns the value of an attribute; name includes the namespace.
// unix.ENODATA if there is none, ErrIntegrity if it is not one that was set for
// this very inode under this name. Access rules of the namespaces are the
// kernel's.
func (n *Node) Getxattr(name string) ([]byte, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return nil, err
	}
	defer n.vol.end()
	seen := n.capability.seen()
	if name == capabilityXattr && n.lacksCapability() {
		return nil, unix.ENODATA
	}
	stored, err := n.storedXattr(name)
	if err == unix.EPERM || err == unix.ERANGE {
		return nil, unix.ENODATA // it cannot have been set
	}
	if err != nil {
		return nil, err
	}
	var value []byte
	err = n.onXattr(stored, 0o400, func(fd int) (err error) {
		value, err = n.vol.readXattr(fd, stored)
		return err
	})
	if err != nil {
		if name == capabilityXattr && (err == unix.ENODATA || err == unix.EOPNOTSUPP) {
			n.capability.noteAbsent(seen)
			return nil, unix.ENODATA
		}
		return nil, err
	}
	if IsACL(name) {
		return value, nil
	}
	id, err := n.xattrID()
	if err != nil {
		return nil, err
	}
	plain, err := n.vol.xattrs.Open(id, name, value)
	if err != nil {
		return nil, n.integrity(-1, fmt.Errorf("attribute %q: %w", name, err))
	}
	return plain, nil
}

// Setxattr sets an attribute; flags are XATTR_CREATE or XATTR_REPLACE. Limits
// are the backing store's, with crypto.XattrOverhead for each value, and
// crypto.MaxXattrName (unix.ERANGE).
func (n *Node) Setxattr(name string, value []byte, flags int) error {
	if err := n.vol.begin(ordinary); err != nil {
		return err
	}
	defer n.vol.end()
	if n.vol.readOnly {
		return unix.EROFS
	}
	stored, err := n.storedXattr(name)
	if err != nil {
		return err
	}
	if !IsACL(name) {
		id, err := n.xattrID()
		if err != nil {
			return err
		}
		if value, err = n.vol.xattrs.Seal(n.vol.random, id, name, value); err != nil {
			return err
		}
	}
	if name == capabilityXattr {
		defer n.capability.noteSet()
	}
	return n.onXattr("", 0o600, func(fd int) error {
		return n.vol.backing.Fsetxattr(fd, stored, value, flags)
	})
}

// Removexattr removes an attribute; unix.ENODATA if there is none.
func (n *Node) Removexattr(name string) error {
	if err := n.vol.begin(ordinary); err != nil {
		return err
	}
	defer n.vol.end()
	return n.removexattr(name)
}

func (n *Node) removexattr(name string) error {
	if n.vol.readOnly {
		return unix.EROFS
	}
	stored, err := n.storedXattr(name)
	if err == unix.ERANGE {
		return unix.ENODATA
	}
	if err != nil {
		return err
	}
	return n.onXattr(stored, 0o600, func(fd int) error {
		return n.vol.backing.Fremovexattr(fd, stored)
	})
}

// Listxattr returns the names of the attributes, ACLs included. What kmsfs did
// not write is not listed; names in its namespace that do not decrypt are
// logged.
func (n *Node) Listxattr() ([]string, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return nil, err
	}
	defer n.vol.end()
	var stored []string
	err := n.onInode(func(fd int) (err error) {
		stored, err = n.vol.storedXattrs(fd)
		return err
	})
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range stored {
		if IsACL(s) {
			names = append(names, s)
			continue
		}
		enc, ok := n.encryptedXattr(s)
		if !ok {
			continue
		}
		name, err := n.vol.names.DecryptXattrName(enc)
		if err != nil {
			n.vol.reportXattr(n.integrity(-1, fmt.Errorf("attribute %q: %w", s, err)))
			continue
		}
		names = append(names, name)
	}
	return names, nil
}

// DropCapability removes security.capability, as a write, a truncation and a
// change of owner do.
func (n *Node) DropCapability() error {
	if err := n.vol.begin(writingBack); err != nil {
		return err
	}
	defer n.vol.end()
	return n.dropCapability()
}

func (n *Node) dropCapability() error {
	if n.mode != unix.S_IFREG || n.vol.readOnly || n.lacksCapability() {
		return nil
	}
	seen := n.capability.seen()
	err := n.removexattr(capabilityXattr)
	if err == nil || err == unix.ENODATA || err == unix.EOPNOTSUPP || err == unix.ESTALE && n.vol.shared != nil {
		n.capability.noteAbsent(seen)
		return nil
	}
	return err
}

// xattrID is the ID that the values of the node's attributes are bound to.
// Symlinks and special files have none; theirs are bound to the volume alone.
func (n *Node) xattrID() (crypto.ID, error) {
	switch n.mode {
	case unix.S_IFDIR:
		return n.dirID()
	case unix.S_IFREG:
	default:
		return crypto.ID{}, nil
	}
	f, err := n.openFile(false)
	if err != nil {
		return crypto.ID{}, err
	}
	defer f.release()
	return f.id, nil
}

// onInode calls with an open descriptor of the inode, which may be O_PATH.
func (n *Node) onInode(call func(fd int) error) error {
	if n.mode == unix.S_IFDIR {
		d, err := n.use()
		if err != nil {
			return err
		}
		defer d.release()
		return call(d.fd)
	}
	n.mu.Lock()
	if d := n.desc; d != nil {
		d.take()
		n.mu.Unlock()
		defer d.release()
		return call(d.fd)
	}
	fd, err := n.reopen(unix.O_PATH)
	n.mu.Unlock()
	if err != nil {
		return err
	}
	defer n.vol.backing.Close(fd)
	return call(fd)
}

// onXattr is onInode for what the backing store allows only to those who may
// read or write the file, whatever the namespace that is encrypted: the owner's
// permissions are widened by lift where that is needed. With stored not empty
// there is no need if that attribute does not exist.
func (n *Node) onXattr(stored string, lift uint32, call func(fd int) error) error {
	return n.onInode(func(fd int) error {
		err := call(fd)
		if err != unix.EACCES || IsACL(stored) {
			return err
		}
		if stored != "" {
			if all, lerr := n.vol.storedXattrs(fd); lerr == nil && !slices.Contains(all, stored) {
				return unix.ENODATA
			}
		}
		return n.vol.lifted(fd, lift, n.BackingPath(), func() error { return call(fd) })
	})
}

// readXattr reads a backing attribute of any size.
func (v *Volume) readXattr(fd int, stored string) ([]byte, error) {
	b := make([]byte, 512)
	n, err := v.backing.Fgetxattr(fd, stored, b)
	if err == unix.ERANGE {
		b = make([]byte, maxXattrValue)
		n, err = v.backing.Fgetxattr(fd, stored, b)
	}
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// storedXattrs lists the backing attributes of an inode.
func (v *Volume) storedXattrs(fd int) ([]string, error) {
	b := make([]byte, 1024)
	n, err := v.backing.Flistxattr(fd, b)
	if err == unix.ERANGE {
		b = make([]byte, maxXattrValue)
		n, err = v.backing.Flistxattr(fd, b)
	}
	if err != nil || n == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00"), nil
}

// reportXattr logs a damaged name, once a mount for each.
func (v *Volume) reportXattr(err error) {
	var bad *IntegrityError
	if !errors.As(err, &bad) {
		return
	}
	if _, again := v.badXattrs.LoadOrStore(err.Error(), true); !again {
		v.log.Error("an attribute is not listed", "error", err)
	}
}
