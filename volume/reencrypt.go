package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// ReencryptOptions says what to give new data keys.
type ReencryptOptions struct {
	// Paths are plaintext paths below the volume's root, of files and directories;
	// none means all there is.
	Paths []string
	// Restart forgets what an interrupted Reencrypt has done already.
	Restart bool
	// Progress, if set, is told how much of the work is done: bytes of plaintext, and
	// fileWork for each file.
	Progress func(done, total int64)
}

// ReencryptReport is what Reencrypt did.
type ReencryptReport struct {
	Volume      crypto.ID    `json:"volume_id"`
	Files       int          `json:"files"`       // that were given new data keys
	Bytes       int64        `json:"bytes"`       // of plaintext in them
	Already     int          `json:"already"`     // had them, from the run that this one went on with
	Linked      []string     `json:"linked"`      // paths with hard links, left as they are
	Failed      []FailedFile `json:"failed"`      // left as they are
	Temporaries int          `json:"temporaries"` // of interrupted runs, removed
	Resumed     *time.Time   `json:"resumed"`     // when that run began; nil for none
	Seconds     float64      `json:"seconds"`
	Complete    bool         `json:"complete"` // nothing was left as it is
}

// FailedFile is a file or directory that could not be worked on.
type FailedFile struct {
	Path  string `json:"path"`
	Error string `json:"error"`
}

// ErrIncomplete: some files were left with their old data keys; the report names
// them.
var ErrIncomplete = errors.New("some files keep their old data keys")

// Reencrypt gives files new data keys. Each is written anew beside the old one,
// under a new file ID, with its metadata; it is made durable, read back and
// compared, and only then takes the old one's place. At every moment there is
// one of the two under the file's name, whole. The old sidecar goes as it does
// when a file is removed.
//
// The inode numbers change, and with them what has the files open: it goes on
// with the old content. Files with hard links are left alone and reported. It can
// be killed at any point and started again: host state remembers which files
// have new keys, until everything asked for is done.
//
// Errors that concern one file are in the report, and ErrIncomplete at the end,
// which is ErrIntegrity as well if one of them was damage; those of the KMS, of a full store and of ctx end it at once.
func (v *Volume) Reencrypt(ctx context.Context, o ReencryptOptions) (report ReencryptReport, err error) {
	start := time.Now()
	r := &reencrypt{vol: v, options: o}
	r.report = ReencryptReport{Volume: v.id, Linked: []string{}, Failed: []FailedFile{}}
	defer func() {
		r.report.Seconds = time.Since(start).Seconds()
		report = r.report
	}()
	switch {
	case v.readOnly:
		return r.report, unix.EROFS
	case v.accepting():
		return r.report, errors.New("after a power cut damage would be taken for content: check it once before, with kmsfs fsck --repair")
	}
	if r.journal, err = openReencryptJournal(v.hosts.dir, v.id, o.Restart); err != nil {
		return r.report, err
	}
	defer r.journal.close()
	r.report.Resumed = r.journal.resumed
	if err := r.run(ctx); err != nil {
		return r.report, err
	}
	if r.report.Complete = len(r.report.Linked)+len(r.report.Failed) == 0; !r.report.Complete {
		err := fmt.Errorf("%d with hard links, %d for other reasons: %w", len(r.report.Linked), len(r.report.Failed), ErrIncomplete)
		if r.damage {
			err = fmt.Errorf("%w: %w", err, ErrIntegrity)
		}
		return r.report, err
	}
	return r.report, r.journal.remove()
}

// fileWork is what making and syncing a file costs, in bytes that are copied
// meanwhile.
const fileWork = 256 << 10

// reencrypt is a Reencrypt under way.
type reencrypt struct {
	vol     *Volume
	options ReencryptOptions
	journal *reencryptJournal
	report  ReencryptReport

	done, total int64 // as Progress is told
	damage      bool  // some file failed for it
}

// target is an entry to work on.
type target struct {
	dir  *Node
	name string
	node *Node
	attr Attr
}

// path is that of the entry, also where its node has other names.
func (t *target) path() string {
	if t.dir == nil || t.dir == t.node.vol.root {
		return t.name
	}
	return t.dir.Path() + "/" + t.name
}

func (r *reencrypt) run(ctx context.Context) error {
	targets, err := r.targets()
	if err != nil {
		return err
	}
	count := func(t target) error {
		if t.node.IsRegular() {
			r.total += int64(t.attr.Size) + fileWork
		}
		return nil
	}
	for _, t := range targets {
		if err := r.each(ctx, t, count, func(string, error) {}); err != nil {
			return err
		}
	}
	work := func(t target) error { return r.file(ctx, t) }
	for _, t := range targets {
		if err := r.each(ctx, t, work, r.fail); err != nil {
			return err
		}
	}
	return nil
}

// targets finds what was asked for.
func (r *reencrypt) targets() ([]target, error) {
	if len(r.options.Paths) == 0 {
		return []target{{node: r.vol.root}}, nil
	}
	var out []target
	for _, path := range r.options.Paths {
		t := target{node: r.vol.root}
		for name := range strings.SplitSeq(path, "/") {
			if name == "" || name == "." {
				continue
			}
			next, a, err := t.node.Lookup(name)
			if err != nil {
				return nil, fmt.Errorf("find %q in the volume: %w", path, err)
			}
			t = target{dir: t.node, name: name, node: next, attr: a}
		}
		if !t.node.IsDir() && !t.node.IsRegular() {
			return nil, fmt.Errorf("find %q in the volume: it is neither a file nor a directory", path)
		}
		if t.node.IsRegular() {
			r.clean(t.dir)
		}
		out = append(out, t)
	}
	return out, nil
}

// each visits a regular file, or all of them below a directory. What cannot be
// listed is told to failed; an error of visit ends it.
func (r *reencrypt) each(ctx context.Context, t target, visit func(target) error, failed func(path string, err error)) error {
	if !t.node.IsDir() {
		return visit(t)
	}
	names, err := t.node.names()
	if err != nil {
		failed(t.path(), err)
		return nil
	}
	r.clean(t.node)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		child, a, err := t.node.Lookup(name)
		if err == unix.ENOENT {
			continue
		}
		if err == nil && child.undecipherable.Load() {
			err = child.integrity(-1, errors.New("its name does not decrypt"))
		}
		entry := target{t.node, name, child, a}
		if err != nil {
			entry.node = t.node
			failed(entry.path(), err)
			continue
		}
		if child.IsDir() || child.IsRegular() {
			err = r.each(ctx, entry, visit, failed)
		}
		if child.IsDir() {
			t.node.comeBack(child)
		}
		child.Forget()
		if err != nil {
			return err
		}
	}
	return nil
}

// names lists a directory, sorted.
func (n *Node) names() ([]string, error) {
	l, err := n.List()
	if err != nil {
		return nil, err
	}
	defer l.Close()
	var names []string
	for {
		e, err := l.Next()
		if err == io.EOF {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		if e.Name != "." && e.Name != ".." {
			names = append(names, e.Name)
		}
	}
}

// file gives one file a new data key, unless it has one or cannot have one.
func (r *reencrypt) file(ctx context.Context, t target) error {
	defer func() {
		r.done += int64(t.attr.Size) + fileWork
		r.progress(0)
	}()
	f, err := t.node.openFile(false)
	if err != nil {
		r.fail(t.path(), err)
		return nil
	}
	id := f.id
	f.release()
	switch {
	case r.journal.has(id):
		r.report.Already++
		return r.journal.note(journalDone, id)
	case t.attr.Nlink > 1:
		r.report.Linked = append(r.report.Linked, t.path())
		return nil
	}
	err = r.replace(ctx, t)
	switch {
	case err == nil:
		r.report.Files++
		r.report.Bytes += int64(t.attr.Size)
	case endsReencrypt(err):
		return fmt.Errorf("reencrypt %q: %w", t.path(), err)
	default:
		r.fail(t.path(), err)
	}
	return nil
}

// endsReencrypt tells what the next file would meet with as well.
func endsReencrypt(err error) bool {
	for _, cause := range []error{
		unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EMFILE, context.Canceled, context.DeadlineExceeded, errJournal,
		kmsprovider.ErrAccessDenied, kmsprovider.ErrKeyDisabled, kmsprovider.ErrKeyNotFound, kmsprovider.ErrThrottled, kmsprovider.ErrUnavailable,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

func (r *reencrypt) fail(path string, err error) {
	r.damage = r.damage || errors.Is(err, ErrIntegrity)
	r.report.Failed = append(r.report.Failed, FailedFile{Path: path, Error: err.Error()})
}

func (r *reencrypt) progress(inFile int64) {
	if r.options.Progress != nil {
		r.options.Progress(r.done+inFile, r.total)
	}
}

// dataTmpPrefix begins the names of files that are to take another's place; the
// file ID follows.
const dataTmpPrefix = tmpPrefix + "data."

// clean removes from a directory what an interrupted Reencrypt left in it. Its
// sidecar goes only if the journal knows it: what else has such a name may be
// anybody's copy, and fsck sees whether its key is used.
func (r *reencrypt) clean(dir *Node) {
	d, err := dir.use()
	if err != nil {
		return
	}
	defer d.release()
	entries, err := dir.listInside(d)
	if err != nil {
		return
	}
	for _, e := range entries {
		text, ok := strings.CutPrefix(e.name, dataTmpPrefix)
		if !ok {
			continue
		}
		if err := r.vol.backing.Unlinkat(d.fd, e.name, 0); err != nil {
			continue
		}
		r.report.Temporaries++
		if id, err := crypto.ParseID(text); err == nil && r.journal.begun(id) {
			_ = r.vol.sidecars.remove(id)
		}
	}
}
