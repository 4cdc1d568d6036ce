package volume

import (
	"context"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// progress notes that n more bytes of work are done.
func (c *fsck) progress(n int64) {
	if c.options.Progress == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	c.options.Progress(min(c.done, c.total), c.total)
}

// count adds up the work that there is below an entry.
func (c *fsck) count(ctx context.Context, e *fsckEntry) {
	if ctx.Err() != nil {
		return
	}
	switch e.node.mode {
	case unix.S_IFREG:
		c.total += crypto.PlainSizeFloor(e.size) + fileWork
	case unix.S_IFDIR:
		if d, err := e.node.use(); err == nil {
			c.countInside(ctx, d.fd, e.node == c.vol.root)
			d.release()
		}
	}
}

func (c *fsck) countInside(ctx context.Context, dirfd int, root bool) {
	b := beneath{backing: c.vol.backing, closed: func(error) error { return nil }}
	b.visit = func(dirfd int, e dirent, depth int) (into bool, err error) {
		switch {
		case root && depth == 0 && e.name == metaDir, strings.HasPrefix(e.name, recordName), isLongNameFile(e.name):
		case e.kind == unix.S_IFREG:
			var st unix.Statx_t
			if c.vol.backing.Statx(dirfd, e.name, &st) == nil {
				c.total += crypto.PlainSizeFloor(int64(st.Size)) + fileWork
			}
		}
		return e.kind == unix.S_IFDIR && !(root && depth == 0 && e.name == metaDir), ctx.Err()
	}
	_ = b.walk(dirfd)
}
