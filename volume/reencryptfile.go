package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// replace writes a file anew beside itself and puts it in its place.
func (r *reencrypt) replace(ctx context.Context, t target) error {
	v := r.vol
	key, err := v.pool.take()
	if err != nil {
		return err
	}
	if err := r.journal.note(journalBegun, key.id); err != nil {
		v.pool.put(key)
		return err
	}
	d, err := t.dir.use()
	if err != nil {
		v.pool.put(key)
		return err
	}
	defer d.release()
	dirID, err := t.dir.dirID()
	if err != nil {
		v.pool.put(key)
		return err
	}
	// It is bound to the name that it will have.
	e := entryName{plain: t.name, backing: dataTmpPrefix + key.id.String()}
	temp, _, err := t.dir.createIn(d, dirID, e, 0o600, Owner{}, key)
	if err != nil {
		return err
	}
	if err = r.fill(ctx, t, temp); err == nil {
		err = t.exchange(e, temp)
	}
	if err != nil {
		return errors.Join(err, t.discard(d, e, temp, key.id))
	}
	temp.Forget()
	t.node.Forget()
	return r.journal.note(journalDone, key.id)
}

// discard removes what was not finished.
func (t *target) discard(d *descriptor, e entryName, temp *Node, id crypto.ID) error {
	v := temp.vol
	err := v.backing.Unlinkat(d.fd, e.backing, 0)
	temp.dropPlace(t.dir, e.backing)
	v.nodes.retire(temp)
	temp.Forget()
	if err != nil {
		return fmt.Errorf("remove temporary %s: %w", e.backing, err)
	}
	return v.sidecars.remove(id)
}

// exchange puts temp, which is finished, in the place of the file, if that is
// still the one that was copied.
func (t *target) exchange(e entryName, temp *Node) (err error) {
	m := move{vol: temp.vol, from: end{dir: t.dir, name: e, node: temp}}
	defer m.release()
	if m.from.desc, err = t.dir.use(); err != nil {
		return err
	}
	if m.from.dirID, err = t.dir.dirID(); err != nil {
		return err
	}
	if m.from.attr, err = temp.Attr(); err != nil {
		return err
	}
	if err := m.to.open(t.dir, t.name); err != nil {
		return err
	}
	if err := m.to.find(); err != nil {
		return err
	}
	if m.to.node != t.node || m.to.broken {
		return errors.New("somebody replaced it meanwhile")
	}
	return m.run()
}

// fill makes temp what the file is, durable, and sees that it can be read.
func (r *reencrypt) fill(ctx context.Context, t target, temp *Node) error {
	if err := r.copyContent(ctx, t, temp); err != nil {
		return err
	}
	attrs, err := t.node.xattrMap()
	if err != nil {
		return err
	}
	if err := t.copyMetadata(ctx, temp, attrs); err != nil {
		return err
	}
	if err := temp.Sync(false); err != nil {
		return err
	}
	// Nothing that is remembered helps to read it: record, sidecar and blocks are
	// those on the backing store.
	temp.Forget()
	if err := r.compare(ctx, t, temp); err != nil {
		return fmt.Errorf("verify the new copy: %w", err)
	}
	return t.copyTimes(ctx, temp) // reading moved one
}

// copyContent copies the blocks that are stored; holes stay holes.
func (r *reencrypt) copyContent(ctx context.Context, t target, temp *Node) error {
	f, err := t.node.openFile(false)
	if err != nil {
		return err
	}
	defer f.release()
	size := int64(f.rec.Size)
	count := crypto.BlockCount(size)
	buf := make([]byte, min(size, maxWrite))
	for index := uint64(0); index < count; {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to, err := f.storedRun(index, count)
		if err != nil {
			return err
		}
		if index = to; from == to {
			continue
		}
		off := int64(from) * crypto.BlockSize
		part := buf[:min(int64(to)*crypto.BlockSize, size)-off]
		if n, err := t.node.ReadAt(ctx, part, off); err != nil || n < len(part) {
			return errors.Join(err, shortRead(n, len(part)))
		}
		if _, err := temp.WriteAt(ctx, part, off); err != nil {
			return err
		}
		clear(part)
		r.progress(off + int64(len(part)))
	}
	a, err := temp.Attr()
	if err == nil && int64(a.Size) < size {
		err = temp.Truncate(ctx, size)
	}
	return err
}

func shortRead(n, want int) error {
	if n == want {
		return nil
	}
	return fmt.Errorf("%d of %d bytes were read: it is being changed", n, want)
}

// storedRun finds the next blocks from index on that are stored one after the
// other: [from, to), at most as many as one write takes; to is where to go on.
func (f *file) storedRun(index, count uint64) (from, to uint64, err error) {
	f.content.RLock()
	defer f.content.RUnlock()
	const most = maxWrite / crypto.BlockSize
	if f.rec.Stored >= count { // none is a hole
		return index, min(index+most, count), nil
	}
	hole := true
	for hole && index < count {
		if index, err = f.nextData(index); err != nil || index >= count {
			return count, count, err
		}
		if hole, err = f.isHoleLocked(index); err != nil {
			return 0, 0, err
		}
		if hole {
			index++
		}
	}
	for to = index; to < min(index+most, count); to++ {
		if hole, err = f.isHoleLocked(to); err != nil || hole {
			break
		}
	}
	return index, to, err
}

// copyMetadata gives temp owner, mode and times of the target, and exactly the
// extended attributes that are wanted, in the order in which none undoes another.
func (t *target) copyMetadata(ctx context.Context, temp *Node, want map[string][]byte) error {
	now, err := temp.Attr()
	if err != nil {
		return err
	}
	a := &t.attr
	if now.UID != a.UID || now.GID != a.GID {
		if _, err := temp.SetAttr(ctx, Change{UID: &a.UID, GID: &a.GID}); err != nil {
			return fmt.Errorf("keep its owner: %w", err)
		}
	}
	inherited, err := temp.Listxattr()
	if err != nil {
		return err
	}
	for _, name := range inherited { // of the directory's default ACL
		if _, ok := want[name]; !ok {
			if err := temp.Removexattr(name); err != nil {
				return err
			}
		}
	}
	for name, value := range want {
		if err := temp.Setxattr(name, value, 0); err != nil {
			return fmt.Errorf("keep its attribute %q: %w", name, err)
		}
	}
	mode := a.Mode & 0o7777
	if _, err := temp.SetAttr(ctx, Change{Mode: &mode}); err != nil {
		return fmt.Errorf("keep its mode: %w", err)
	}
	return t.copyTimes(ctx, temp)
}

func (t *target) copyTimes(ctx context.Context, temp *Node) error {
	atime, mtime := timeOf(t.attr.Atime), timeOf(t.attr.Mtime)
	if _, err := temp.SetAttr(ctx, Change{Atime: &atime, Mtime: &mtime}); err != nil {
		return fmt.Errorf("keep its times: %w", err)
	}
	return nil
}

func timeOf(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// xattrMap reads all attributes, ACLs included.
func (n *Node) xattrMap() (map[string][]byte, error) {
	names, err := n.Listxattr()
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte, len(names))
	for _, name := range names {
		if out[name], err = n.Getxattr(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// compare reads file and copy and tells where they differ.
func (r *reencrypt) compare(ctx context.Context, t target, temp *Node) error {
	a, err := temp.Attr()
	if err != nil {
		return err
	}
	if a.Size != t.attr.Size || a.Mode != t.attr.Mode || a.UID != t.attr.UID || a.GID != t.attr.GID || a.Mtime != t.attr.Mtime {
		return fmt.Errorf("its attributes differ: it is being changed, or the backing store cannot keep them")
	}
	size := int64(a.Size)
	one, two := make([]byte, min(size, maxWrite)), make([]byte, min(size, maxWrite))
	defer clear(one)
	defer clear(two)
	for off := int64(0); off < size; off += maxWrite {
		if err := ctx.Err(); err != nil {
			return err
		}
		want, got := one[:min(maxWrite, size-off)], two[:min(maxWrite, size-off)]
		if n, err := t.node.ReadAt(ctx, want, off); err != nil || n < len(want) {
			return errors.Join(err, shortRead(n, len(want)))
		}
		if n, err := temp.ReadAt(ctx, got, off); err != nil || n < len(got) {
			return errors.Join(err, shortRead(n, len(got)))
		}
		if !bytes.Equal(want, got) {
			return fmt.Errorf("its content differs between bytes %d and %d", off, off+int64(len(got)))
		}
	}
	wantAttrs, err := t.node.xattrMap()
	if err != nil {
		return err
	}
	gotAttrs, err := temp.xattrMap()
	if err != nil {
		return err
	}
	if len(wantAttrs) != len(gotAttrs) {
		return errors.New("its extended attributes differ")
	}
	for name, value := range wantAttrs {
		if !slices.Equal(value, gotAttrs[name]) {
			return fmt.Errorf("its attribute %q differs", name)
		}
	}
	return nil
}
