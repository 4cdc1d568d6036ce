package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// custody is whether this mount may hold the volume's keys. They are given up by
// Lock, and when the KMS does not vouch for the volume key any more.
type custody struct {
	gate gate

	// mu makes changes one after the other. It is held across calls to the KMS
	// and while the kernel writes back, so no call of a file system waits for it.
	mu      sync.Mutex
	locked  bool          // by Lock: only Unlock ends it
	checked time.Duration // when the KMS last gave the volume key out
	tried   time.Duration // when it last was asked, in vain
}

const (
	// checkAfter is the part of the volume key's life, in steps of expirySteps,
	// after which the KMS is asked for it again. What is left is for a KMS that
	// does not answer.
	checkAfter = 12
	// askAgain is how long a volume whose key was refused waits at least before a
	// call makes it ask the KMS again.
	askAgain = time.Second
)

// volumeKeys are the volume key and what hangs on it.
type volumeKeys struct {
	vk       *crypto.Key
	names    *crypto.NameCipher
	symlinks *crypto.SymlinkCipher
	dirs     *crypto.DirCipher
	binder   *crypto.Binder
	xattrs   *crypto.XattrCipher
	dataKeys *crypto.DataKeyCipher
	encoded  atomic.Pointer[encodedName]
}

// deriveVolumeKeys takes the volume key over.
func deriveVolumeKeys(vk *crypto.Key, id crypto.ID) *volumeKeys {
	return &volumeKeys{
		vk: vk, names: crypto.NewNameCipher(vk), symlinks: crypto.NewSymlinkCipher(vk, id), dirs: crypto.NewDirCipher(vk, id),
		binder: crypto.NewBinder(vk), xattrs: crypto.NewXattrCipher(vk), dataKeys: crypto.NewDataKeyCipher(vk, id),
	}
}

func (k *volumeKeys) wipe() {
	k.names.Wipe()
	k.symlinks.Wipe()
	k.dirs.Wipe()
	k.binder.Wipe()
	k.xattrs.Wipe()
	k.dataKeys.Wipe()
	k.vk.Wipe()
}

// begin lets a call in that needs keys; it calls end when it is done. A volume
// whose key the KMS refused asks again now and then.
func (v *Volume) begin(kind callKind) error {
	err := v.custody.gate.enter(kind)
	if err == nil || v.custody.gate.state.Load() != gateShut || !v.regain() {
		return err
	}
	return v.custody.gate.enter(kind)
}

func (v *Volume) end() { v.custody.gate.leave() }

// Lock writes back what the kernel keeps, makes it drop the rest, and wipes all
// keys, those of the providers too. From then on calls are ErrLocked; nothing
// acknowledged before is lost. An error says what is not known to be durable; the
// volume is locked all the same.
func (v *Volume) Lock() error {
	c := &v.custody
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locked {
		return nil
	}
	c.locked = true
	err := v.giveUpKeys(ErrLocked)
	if closeErr := v.providers.Reset(); closeErr != nil {
		err = errors.Join(err, closeErr)
	}
	v.log.Info("locked", "volume", v.id)
	return err
}

// Unlock undoes Lock, with one call to the KMS. Errors are those of Open; the
// volume stays locked then. It is no error if it is not locked.
func (v *Volume) Unlock(ctx context.Context) error {
	c := &v.custody
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gate.state.Load() == gateOpen {
		return nil
	}
	if err := v.obtainKeys(ctx); err != nil {
		return err
	}
	c.locked = false
	c.gate.open()
	v.log.Info("unlocked", "volume", v.id)
	return nil
}

// giveUpKeys closes the gate for a reason and wipes all keys of the volume. The
// caller holds custody.mu.
func (v *Volume) giveUpKeys(reason error) error {
	g := &v.custody.gate
	if g.state.Load() == gateShut {
		g.reason.Store(&reason)
		return nil
	}
	g.drain(reason)
	v.ahead.giveUp()
	if c := v.cache.Load(); c != nil {
		(*c).DropAll()
	}
	g.shut()
	v.forgetFiles()
	if v.pool != nil {
		v.pool.discardAll()
	}
	v.keys.wipe()
	if v.redo != nil {
		v.redo.wipe()
	}
	v.volumeKeys.wipe()
	v.volumeKeys = nil
	if v.readOnly {
		return nil
	}
	return v.syncAll() // nobody can call fsync until it is unlocked
}

// obtainKeys has the volume key unwrapped again; nobody is let in yet. The caller
// holds custody.mu, and the gate is shut.
func (v *Volume) obtainKeys(ctx context.Context) error {
	began := v.uptime()
	config := v.conf()
	// It may have been replaced meanwhile, and can be trusted once its key is here.
	if newest, err := readConfigIn(v.backing, v.meta); err == nil && newest.ID == v.id {
		config = newest
	}
	kms, cancel := context.WithTimeout(ctx, v.kmsDeadline)
	defer cancel()
	vk, err := unlockVolumeKey(kms, config, v.providers, v.log)
	if err != nil {
		return err
	}
	if crypto.Fingerprint(vk) != v.fingerprint {
		vk.Wipe()
		return fmt.Errorf("the KMS gave another volume key than before: %w", ErrFingerprint)
	}
	v.volumeKeys = deriveVolumeKeys(vk, v.id)
	if v.redo != nil {
		v.redo.rekey(vk.Derive(crypto.LabelRedo))
	}
	v.custody.checked = began
	return nil
}

// regain asks the KMS for the volume key again if that refused it, and tells
// whether it has come. It waits for nobody but the KMS.
func (v *Volume) regain() bool {
	c := &v.custody
	if !c.mu.TryLock() {
		return false
	}
	defer c.mu.Unlock()
	if c.gate.state.Load() != gateShut {
		return true
	}
	if c.locked || v.uptime()-c.tried < askAgain {
		return false
	}
	err := v.obtainKeys(v.ctx)
	c.tried = v.uptime()
	if err != nil {
		err = fmt.Errorf("volume key: %w", err)
		c.gate.reason.Store(&err)
		return false
	}
	c.gate.open()
	v.log.Warn("the KMS gives the volume key out again")
	return true
}

// watchVolumeKey has the KMS vouch for the volume key once in its time to live.
func (v *Volume) watchVolumeKey() {
	step := v.expiryStep()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		select {
		case <-v.ctx.Done():
			return
		case <-tick.C:
			v.revalidate(step)
		}
	}
}

// revalidate asks the KMS if it is time to. A refusal counts at once; a KMS that
// cannot be reached is asked until the key's time is over.
func (v *Volume) revalidate(step time.Duration) {
	c := &v.custody
	c.mu.Lock()
	defer c.mu.Unlock()
	began := v.uptime()
	left := c.checked + v.keyTTL - began - step
	if c.gate.state.Load() != gateOpen || left > v.keyTTL*(expirySteps-checkAfter)/expirySteps {
		return
	}
	ctx, cancel := context.WithTimeout(v.ctx, max(min(v.kmsDeadline, left), step))
	defer cancel()
	vk, err := unlockVolumeKey(ctx, v.conf(), v.providers, v.log)
	if err == nil && !vk.Equal(v.vk) {
		err = fmt.Errorf("the KMS gave another volume key than before: %w", ErrIntegrity)
	}
	vk.Wipe()
	switch {
	case err == nil:
		c.checked = began
		return
	case v.ctx.Err() != nil:
		return
	case !IsRefusal(err) && c.checked+v.keyTTL-v.uptime() > step:
		v.log.Warn("the KMS does not vouch for the volume key; it will be asked again", "error", err)
		return
	}
	err = fmt.Errorf("volume key: %w", err)
	v.log.Error("the KMS does not give the volume key out any more: the volume is closed until it does", "error", err)
	c.tried = v.uptime()
	if err := v.giveUpKeys(err); err != nil {
		v.log.Error("what was written last may not be durable", "error", err)
	}
}

// IsRefusal tells whether a KMS has answered, and said no, and whether no other
// one may still say yes.
func IsRefusal(err error) bool {
	matches := func(target error) bool { return errors.Is(err, target) }
	return slices.ContainsFunc([]error{
		kmsprovider.ErrAccessDenied, kmsprovider.ErrKeyDisabled, kmsprovider.ErrKeyNotFound, ErrIntegrity,
	}, matches) && !slices.ContainsFunc([]error{
		kmsprovider.ErrThrottled, kmsprovider.ErrUnavailable, context.DeadlineExceeded,
	}, matches)
}

// forgetFiles drops the state of all open files, which holds keys. Descriptors
// stay: of an unlinked file nothing else is left. Nobody is inside the gate.
func (v *Volume) forgetFiles() {
	nodes := append(v.descriptors.nodes(), v.pinned.all()...)
	for _, n := range nodes {
		n.mu.Lock()
		n.file.wipe()
		n.file = nil
		n.mu.Unlock()
	}
}
