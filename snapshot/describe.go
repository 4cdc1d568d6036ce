package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/volume"
)

// namesTries is how often the tree is described whose names change meanwhile,
// before the mount is asked to hold them.
const namesTries = 4

// describe writes the manifest into a file, sealed, when all that it refers to is in
// the bucket. Of a volume that is in use it describes the names as they were at one
// moment: each directory is, afterwards, what it was when it was described.
func (p *push) describe(ctx context.Context) (f *os.File, t Totals, err error) {
	for try := 1; ; try++ {
		last := p.o.Live == nil || try > namesTries
		release := func() error { return nil }
		if last && p.o.Live != nil {
			if release, err = p.o.Live.HoldNames(ctx); err != nil {
				return nil, t, err
			}
		}
		var restless bool
		f, t, restless, err = p.describeOnce(ctx, last)
		if rerr := release(); err == nil {
			err = rerr
		}
		if err == nil && !restless {
			if err = p.readAll(); err == nil {
				return f, t, nil
			}
		}
		if f != nil {
			f.Close()
		}
		if err != nil || last {
			return nil, t, errors.Join(err, errRestless(restless))
		}
		p.failures = nil
	}
}

func errRestless(restless bool) error {
	if restless {
		return fmt.Errorf("names or keys change all the time: %w", ErrUnread)
	}
	return nil
}

// clockStep is more than there is between two times that a store tells apart.
const clockStep = 50 * time.Millisecond

// describeOnce is true where something was changed meanwhile.
func (p *push) describeOnce(ctx context.Context, last bool) (_ *os.File, _ Totals, restless bool, err error) {
	config, err := p.readConfig()
	if err != nil {
		return nil, Totals{}, false, err
	}
	f, err := spool(p.access)
	if err != nil {
		return nil, Totals{}, false, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	w := bufio.NewWriterSize(f, 1<<18)
	seal, err := newSealer(w, p.access.Manifests(), p.o.Random, p.access.ID(), p.base.Generation+1)
	if err != nil {
		return nil, Totals{}, false, err
	}
	enc, err := newEncoder(seal, &Head{
		Generation: p.base.Generation + 1, Base: p.base.Generation, Push: p.id, Created: p.o.Now().Unix(), Config: config,
	})
	if err != nil {
		return nil, Totals{}, false, err
	}
	d := &describing{
		push: p, ctx: ctx, enc: enc, last: last, bundler: newBundler(p),
		groups: make(map[inodeID]uint64), ctimes: make(map[inodeID]unix.StatxTimestamp),
	}
	if err = walkTree(ctx, p.root, p.o.Live == nil, d); err == nil {
		err = d.flush(ctx)
	}
	if err != nil {
		return nil, Totals{}, false, err
	}
	enc.Bundles = d.table
	if err = enc.end(); err == nil {
		if err = seal.Close(); err == nil {
			err = w.Flush()
		}
	}
	if err != nil {
		return nil, Totals{}, false, err
	}
	if !last && !d.restless {
		err = walkTree(ctx, p.root, false, &comparing{d})
	}
	if again, rerr := p.readConfig(); err == nil && (rerr != nil || !bytes.Equal(again, config)) {
		if err = rerr; last {
			err = errors.Join(err, fmt.Errorf("the volume's keys are being changed: %w", ErrUnread))
		}
		d.restless = true
	}
	return f, enc.Totals, d.restless, err
}

// readConfig reads volume.json as it is now.
func (p *push) readConfig() ([]byte, error) {
	meta, err := openat(p.root, metaDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(meta)
	b, err := readSmall(meta, configKey, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", configKey, err)
	}
	_, err = p.access.CheckConfig(b)
	return b, err
}

// describing is the walk of describe.
type describing struct {
	*push
	*bundler
	ctx      context.Context
	enc      *encoder
	last     bool // nothing changes meanwhile
	restless bool
	dirs     []crypto.ID // of the directories above
	groups   map[inodeID]uint64
	ctimes   map[inodeID]unix.StatxTimestamp // of directories
}

// bad notes what is not as it should be: damage, or, where things change, a change.
func (d *describing) bad(path string, err error) {
	if d.last {
		d.unread(path, err)
	} else {
		d.restless = true
	}
}

func (d *describing) enter(at *dirStack, fd int, name string, st *unix.Statx_t) (bool, error) {
	d.ctimes[inodeID{device(st), st.Ino}] = st.Ctime
	if changed := time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)); time.Since(changed) < clockStep && !d.last {
		d.restless = true // the next change may have the same time
	}
	x := Entry{Kind: KindDirectory}
	var err error
	if x.Attributes, err = attributesOf(fd, st); err != nil {
		return false, err
	}
	id := d.access.RootID()
	if name != "" {
		if x.Name, err = d.fullName(at, name); err != nil {
			d.bad(at.path(name), err)
			return false, nil
		}
		if x.Record, err = readSmall(fd, recordName, crypto.DirRecordSize); err == nil {
			var rec crypto.DirRecord
			if rec, err = d.access.DirRecord(x.Record); err == nil {
				id = rec.ID
				err = d.bound(x.Name, rec.BindingA, rec.BindingB)
			}
		}
		if err != nil {
			d.bad(at.path(name), fmt.Errorf("directory record: %w", err))
			return false, nil
		}
	}
	d.dirs = append(d.dirs, id)
	return true, d.enc.put(&x)
}

func (d *describing) leave(*dirStack) error {
	d.dirs = d.dirs[:len(d.dirs)-1]
	return d.enc.put(&Entry{Kind: kindUp})
}

// fullName is the whole encrypted name of an entry. One that is not ours is as it is.
func (d *describing) fullName(at *dirStack, name string) (string, error) {
	if !isLongName(name) {
		return name, nil
	}
	b, err := readSmall(at.fd(), name+crypto.LongSuffix, maxName)
	if err == nil && backingName(string(b)) != name {
		err = fmt.Errorf("its long name is another's: %w", volume.ErrIntegrity)
	}
	return string(b), err
}

// bound makes sure that something that may be moved belongs where it was found.
func (d *describing) bound(full string, a, b [16]byte) error {
	if d.o.Live == nil {
		return nil
	}
	dir := d.dirs[len(d.dirs)-1]
	plain, err := d.access.DecryptName(dir, full)
	if err != nil {
		return err
	}
	if want := d.access.Binding(dir, plain); want != a && want != b {
		return fmt.Errorf("it belongs under another name: %w", volume.ErrIntegrity)
	}
	return nil
}

func (d *describing) entry(at *dirStack, name string, st *unix.Statx_t) error {
	x := Entry{}
	var err error
	if x.Kind, err = kindOf(st.Mode); err != nil {
		return err
	}
	if x.Name, err = d.fullName(at, name); err != nil {
		d.bad(at.path(name), err)
		return nil
	}
	id := inodeID{device(st), st.Ino}
	if st.Nlink > 1 {
		if x.Group = d.groups[id]; x.Group != 0 {
			x.Kind = KindLink
			return d.enc.put(&x)
		}
		x.Group = uint64(len(d.groups) + 1)
	}
	if err = d.inode(at, name, &x); err == unix.ENOENT {
		d.restless = d.restless || !d.last
		return nil
	}
	if err != nil {
		if err = d.sort(at.path(name), err); err == nil && !d.last {
			d.restless, d.failures = true, nil
		}
		return err
	}
	if x.Group != 0 {
		d.groups[id] = x.Group
	}
	return d.enc.put(&x)
}

// inode fills in what an entry is. Its attributes are those of the very inode.
func (d *describing) inode(at *dirStack, name string, x *Entry) error {
	fd, err := openat(at.fd(), name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := statx(fd, "", &st); err != nil {
		return err
	}
	if kind, err := kindOf(st.Mode); err != nil || kind != x.Kind {
		return unix.ENOENT
	}
	if x.Attributes, err = attributesOf(fd, &st); err != nil {
		return err
	}
	switch x.Kind {
	case KindFile:
		return d.file(at, name, x, &st)
	case KindSymlink:
		return d.symlink(at, name, x)
	case KindCharDevice, KindBlockDevice:
		x.Device = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	}
	return nil
}

func (d *describing) symlink(at *dirStack, name string, x *Entry) error {
	target, err := readlinkat(at.fd(), name)
	if err != nil {
		return err
	}
	if id, err := crypto.ParseID(target); err == nil {
		if x.Long, err = readSmall(d.links, id.String(), maxTarget); err != nil {
			return fmt.Errorf("its target in %s/%s: %w: %w", metaDir, linksDir, err, volume.ErrIntegrity)
		}
	}
	x.Target = target
	return nil
}

// file refers to what the bucket has of a file, and sends it if that is not there.
func (d *describing) file(at *dirStack, name string, x *Entry, st *unix.Statx_t) error {
	src, err := openSource(at.fd(), name, at.path(name), st, d.o.Live == nil)
	if err != nil {
		return err
	}
	defer src.close()
	h, err := src.header()
	if err != nil {
		return err
	}
	id, rec, err := d.access.Record(h[:])
	if err != nil {
		return fmt.Errorf("record: %w: %w", err, volume.ErrIntegrity)
	}
	f := &File{
		ID: id, Generation: rec.Generation, Flags: rec.Flags, Size: rec.Size, Stored: rec.Stored, Root: rec.Root, Header: headerSum(h[:]),
	}
	if sent := d.ofThisPush(src, f); sent != nil {
		*f = *sent
	} else if !d.known.fill(f) {
		sent, err := d.later(x, src)
		if err != nil {
			return err
		}
		*f, rec = *sent.file, sent.record
	}
	if !rec.Linked() {
		if err := d.bound(x.Name, rec.BindingA, rec.BindingB); err != nil {
			return err
		}
	}
	if f.Sidecar, err = d.sidecar(f.ID); err != nil {
		return err
	}
	x.File = f
	return nil
}

// ofThisPush is what was sent with this very content.
func (p *push) ofThisPush(src *source, f *File) *File {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fresh[f.content()]
}

// later is for a file that has changed since it was sent, or is new: what was sent
// is of a moment of this push as well.
func (d *describing) later(x *Entry, src *source) (*sentFile, error) {
	d.mu.Lock()
	sent := d.byInode[inodeID{src.dev, src.ino}]
	d.mu.Unlock()
	if sent != nil && (sent.record.Linked() || d.bound(x.Name, sent.record.BindingA, sent.record.BindingB) == nil) {
		return sent, nil
	}
	return d.upload(d.ctx, src)
}

// sidecar refers to a file's sidecar.
func (d *describing) sidecar(id crypto.ID) (Slice, error) {
	path := sidecarPath(id)
	b, err := readSidecar(d.keys, id)
	if err != nil {
		return Slice{}, fmt.Errorf("its key %s: %w: %w", path, err, volume.ErrIntegrity)
	}
	if s, ok := d.known.sidecars[id]; ok && s.Sum == sliceSum(b) {
		if s, ok = d.keep(s); ok {
			return s, nil
		}
	}
	return d.add(d.ctx, b)
}

// comparing is a walk that finds out whether any directory has changed since.
type comparing struct{ *describing }

func (c *comparing) enter(_ *dirStack, _ int, _ string, st *unix.Statx_t) (bool, error) {
	then, ok := c.ctimes[inodeID{device(st), st.Ino}]
	c.restless = c.restless || !ok || then != st.Ctime
	return !c.restless, nil
}

func (c *comparing) entry(*dirStack, string, *unix.Statx_t) error { return nil }
func (c *comparing) leave(*dirStack) error                        { return nil }
