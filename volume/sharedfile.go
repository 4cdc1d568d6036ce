package volume

import (
	"context"
	"math"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// openShared is openFile on a shared mount.
func (n *Node) openShared(write bool) (f *file, err error) {
	err = n.vol.shared.patiently(n, func() (e error) {
		f, e = n.openOnce(write)
		return e
	})
	return f, err
}

func (n *Node) openOnce(write bool) (*file, error) {
	n.mu.Lock()
	if n.file == nil {
		if err := n.load(write); err != nil {
			n.mu.Unlock()
			return nil, err
		}
		holdUse(n.desc.fd)
	}
	f := n.file
	readOnly := write && !n.desc.writable
	n.desc.take()
	n.mu.Unlock()
	if readOnly {
		if err := f.upgrade(); err != nil {
			f.release()
			return nil, err
		}
	}
	return f, nil
}

// upgrade makes the file's descriptor writable. No call of this mount has the content
// lock meanwhile, which would go with the descriptor that is replaced.
func (f *file) upgrade() error {
	f.shared.gate.Lock()
	defer f.shared.gate.Unlock()
	n := f.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.desc.writable {
		return nil
	}
	if n.desc != f.desc {
		return unix.ESTALE
	}
	err := n.makeWritable()
	holdUse(f.desc.fd)
	return err
}

// lockToLoad keeps writers away from a file whose state is being loaded, and which is
// open as fd for that alone.
func (v *Volume) lockToLoad(fd int) (unlock func(), err error) {
	if v.shared == nil {
		return func() {}, nil
	}
	if err := ofdLock(fd, unix.F_RDLCK, contentLock, 1, true); err != nil {
		return nil, err
	}
	return func() { _ = ofdLock(fd, unix.F_UNLCK, contentLock, 1, false) }, nil
}

// holdUse says that a mount has the file open as fd, until that is closed. Where the
// store refuses, the sidecar of a file that is removed elsewhere may go too early for
// this mount; but then no lock of it works.
func holdUse(fd int) { _ = ofdLock(fd, unix.F_RDLCK, useLock, 1, false) }

// Hold keeps the file open, so that it can be used whatever becomes of its names on
// this host or another, and rereads its record: what was closed elsewhere before is
// seen from now on. The caller calls release.
func (n *Node) Hold() (release func(), err error) {
	if err := n.vol.begin(ordinary); err != nil {
		return nil, err
	}
	defer n.vol.end()
	f, err := n.openFile(false)
	if err != nil {
		return nil, err
	}
	if err := f.refresh(); err != nil {
		f.release()
		return nil, err
	}
	return f.desc.release, nil
}

// HandOver has the store take what was written, as close(2) on a network file system
// does: whoever opens the file on another host afterwards sees it.
func (n *Node) HandOver() error {
	n.mu.Lock()
	d := n.desc
	if d == nil || !d.data {
		n.mu.Unlock()
		return nil
	}
	d.take()
	n.mu.Unlock()
	defer d.release()
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return n.vol.backing.Close(fd)
}

// Append writes data at the end of the file, wherever that is by now. Up to 1 MiB is
// one change, which no other host's comes into the middle of.
func (n *Node) Append(ctx context.Context, data []byte) (int, error) {
	if err := n.vol.begin(writingBack); err != nil {
		return 0, err
	}
	defer n.vol.end()
	f, err := n.openFile(true)
	if err != nil {
		return 0, err
	}
	defer f.release()
	done := 0
	for done < len(data) {
		part := data[done:min(len(data), done+maxWrite)]
		if err := f.append(ctx, part); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

func (f *file) append(ctx context.Context, data []byte) error {
	keys, err := f.unlock(ctx)
	if err != nil {
		return err
	}
	defer keys.release()
	sealer, err := f.blockSealer(keys)
	if err != nil {
		return err
	}
	v := f.node.vol
	s, err := v.redo.draw()
	if err != nil {
		return err
	}
	defer v.redo.drop(s)
	if err := f.beginWrite(); err != nil {
		return err
	}
	defer f.endWrite()
	end := int64(f.rec.Size)
	if end > math.MaxInt64-int64(len(data)) || end+int64(len(data)) > crypto.MaxFileSize {
		return unix.EFBIG
	}
	w := writer{file: f, keys: keys, sealer: sealer, slot: s, data: data, plainOff: end}
	w.first = crypto.BlockIndex(end)
	w.last = crypto.BlockIndex(end + int64(len(data)) - 1)
	if err := w.sealWhole(); err != nil {
		return err
	}
	f.mtime = nil
	return w.commit()
}

// sizeNow is the size of a file, for stat, of which the backing file's length says
// that it is being changed: its writer is waited for, and one that was killed helped.
func (n *Node) sizeNow() (uint64, error) {
	f, err := n.openFile(false)
	if err != nil {
		return 0, err
	}
	defer f.release()
	if err := f.refresh(); err != nil {
		return 0, err
	}
	return uint64(f.size()), nil
}

// lastUser decides, when the file open as d is closed that f is the state of, whether
// its sidecar may go: if no name of it is left, no other mount has it open, and it
// earned that by all that its record says.
func (n *Node) lastUser(d *descriptor, f *file, ticket *reapTicket) *reapTicket {
	if d == nil || f == nil {
		return nil
	}
	if ticket == nil {
		var st unix.Statx_t
		p, ok := n.at()
		if !ok || n.vol.backing.Statx(d.fd, "", &st) != nil || st.Nlink != 0 ||
			f.joinReaders() != nil {
			return nil
		}
		linked := f.rec.Linked()
		f.endRead()
		if linked {
			return nil
		}
		ticket = &reapTicket{id: f.id, dir: p.parent}
	}
	if ofdLock(d.fd, unix.F_WRLCK, useLock, 1, false) != nil {
		return nil // whoever has it does the same at the end
	}
	return ticket
}
