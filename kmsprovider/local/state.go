package local

import (
	"context"
	"errors"
	"fmt"
	"os"

	"kmsfs/kmsprovider"
)

// acquire returns the state of the keystore file as it is now, after what time
// has made due was done, and locks it for reading: the caller must call
// k.mu.RUnlock if err is nil. Its cost while nothing changes is one stat.
func (k *Keystore) acquire(ctx context.Context) (*snapshot, error) {
	state, err := k.current(ctx)
	if err != nil || !k.mustSettle(state) {
		return state, err
	}
	k.mu.RUnlock()
	k.settle(ctx)
	return k.current(ctx)
}

// settleIfDue does what time has made due, for callers that go on to change.
func (k *Keystore) settleIfDue(ctx context.Context) error {
	_, err := k.acquire(ctx)
	if err == nil {
		k.mu.RUnlock()
	}
	return err
}

// current returns the state of the keystore file as it is now, reading it again
// if another process changed it, and locks it as acquire does.
func (k *Keystore) current(ctx context.Context) (*snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.mu.RLock()
	if k.closed {
		k.mu.RUnlock()
		return nil, errClosed
	}
	if now, err := statFile(k.real); err == nil && now == k.state.stamp {
		return k.state, nil
	}
	k.mu.RUnlock()
	if err := k.refresh(); err != nil {
		return nil, fmt.Errorf("reread keystore %s: %w: %w", k.path, kmsprovider.ErrUnavailable, err)
	}
	// Another reload may have come between: its state is as good or newer.
	k.mu.RLock()
	if k.closed {
		k.mu.RUnlock()
		return nil, errClosed
	}
	return k.state, nil
}

// refresh reads the file again if it changed. On an error the old state stays
// and is not used: the next acquire tries again, so that a keystore put back
// heals by itself, and a changed one never goes unnoticed.
func (k *Keystore) refresh() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return errClosed
	}
	now, err := statFile(k.real)
	if err != nil {
		return missingFile(err)
	}
	if now == k.state.stamp {
		return nil
	}
	next, err := k.load(k.sealer, k.state)
	if err != nil {
		return err
	}
	k.state.file.Close()
	k.state = next
	return nil
}

// load reads, verifies and opens the file. It takes over what it can from
// last, which may be nil, and whose file the caller closes.
func (k *Keystore) load(s *sealer, last *snapshot) (*snapshot, error) {
	d, file, st, err := k.read()
	if err != nil {
		return nil, err
	}
	if err := s.verify(d); err != nil {
		file.Close()
		return nil, err
	}
	next, err := newSnapshot(d, s, last)
	if err != nil {
		file.Close()
		return nil, err
	}
	next.file, next.stamp = file, st
	return next, nil
}

// read returns the document in the file and all that readFile does.
func (k *Keystore) read() (*document, *os.File, stamp, error) {
	b, file, st, err := readFile(k.real)
	if err != nil {
		return nil, nil, stamp{}, missingFile(err)
	}
	d, err := decodeDocument(b)
	if err == nil {
		err = d.verifyChecksum()
	}
	if err != nil {
		file.Close()
		return nil, nil, stamp{}, err
	}
	return d, file, st, nil
}

// errUnchanged is what a change returns when there is nothing to write.
var errUnchanged = errors.New("nothing to change")

// update changes the keystore: it locks out all other writers, brings the state
// up to date, has change edit a copy of the document, and replaces the file
// with that. When it returns nil the change is durable. Commit, which may be
// nil, is called when all is ready and nothing is changed yet; its error stops
// the change. The lock order is file lock, then mu; mu is free while the file
// is written, so that readers go on.
func (k *Keystore) update(ctx context.Context, change func(state *snapshot, d *document) error, commit func() error) error {
	unlock, err := k.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := k.prepare(ctx, change)
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := replaceFile(k.real, b, commit); err != nil {
		return fmt.Errorf("replace keystore %s: %w", k.path, err)
	}
	return k.refresh()
}

// lock keeps out all other writers, first those of this process: of hundreds
// that wait one alone asks for the file's lock.
func (k *Keystore) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case k.writer <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("lock keystore: another change is under way: %w", ctx.Err())
	}
	unlockFile, err := lockFile(ctx, k.real)
	if err != nil {
		<-k.writer
		return nil, missingFile(err)
	}
	return func() { unlockFile(); <-k.writer }, nil
}

// prepare returns the bytes of the changed file.
func (k *Keystore) prepare(ctx context.Context, change func(state *snapshot, d *document) error) ([]byte, error) {
	state, err := k.current(ctx)
	if err != nil {
		return nil, err
	}
	defer k.mu.RUnlock()
	d := state.doc.clone()
	if err := change(state, d); err != nil {
		return nil, err
	}
	d.Writes++
	b, err := k.sealer.finish(d)
	if err != nil {
		return nil, err
	}
	if len(b) > maxDocument {
		return nil, refuse(codeLimit, "The keystore would be larger than %d bytes.", maxDocument)
	}
	// What could not be read back is never written.
	if _, err := decodeDocument(b); err != nil {
		return nil, fmt.Errorf("check changed keystore: %w", err)
	}
	return b, nil
}
