package volume

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// beginNames is begin for a call that changes names: on a shared mount it has the
// lock on them, too. endNames follows.
func (v *Volume) beginNames() error {
	if err := v.begin(ordinary); err != nil {
		return err
	}
	if err := v.lockNames(); err != nil {
		v.end()
		return err
	}
	return nil
}

func (v *Volume) endNames() {
	v.unlockNames()
	v.end()
}

// lockNames keeps all other mounts from changing names while one that takes more than
// one step goes on, and settles what one that was killed left: its intent is in the
// file that is locked. It is taken before all other locks but custody's, and held
// across no call to a KMS. Where the volume is not shared it keeps nobody out but who
// copies all names (HoldNames).
func (v *Volume) lockNames() error {
	v.naming.mu.RLock()
	if v.shared == nil {
		return nil
	}
	v.shared.names.Lock()
	if err := v.shared.lockTree(); err != nil {
		v.naming.mu.RUnlock()
		return err
	}
	return nil
}

func (v *Volume) unlockNames() {
	if v.shared != nil {
		v.shared.unlockNames()
	}
	v.naming.mu.RUnlock()
}

// lockTree is lockNames for who has s.names, which is unlocked if it fails.
func (s *sharing) lockTree() error {
	err := ofdLock(s.tree, unix.F_WRLCK, 0, 1, true)
	if err != nil {
		s.names.Unlock()
		return fmt.Errorf("lock names: %w", err)
	}
	if err := s.settleNames(); err != nil {
		s.unlockNames()
		return fmt.Errorf("settle an interrupted operation on names: %w", err)
	}
	return nil
}

func (s *sharing) unlockNames() {
	_ = ofdLock(s.tree, unix.F_UNLCK, 0, 1, false)
	s.names.Unlock()
}

// settleNames finishes or undoes what stands in the file. The caller has the lock.
func (s *sharing) settleNames() error {
	in, err := s.vol.sharedIntent(s.tree)
	if in == nil || err != nil {
		return err
	}
	if err := s.vol.settleIntent(in); err != nil {
		return err
	}
	s.vol.log.Info("finished or undid an operation on names that a mount was killed in", "from", in.from.path+"/"+in.from.name,
		"to", in.to.path+"/"+in.to.name)
	return s.clearIntent()
}

// sweep settles what is left of an operation on names whose mount was killed, also if
// nobody changes a name: a mount that goes on does it every few seconds.
func (s *sharing) sweep() {
	s.names.Lock()
	if s.tree < 0 {
		s.names.Unlock()
		return
	}
	if in, err := s.vol.sharedIntent(s.tree); in == nil || err != nil {
		s.names.Unlock()
		return
	}
	if err := s.lockTree(); err != nil { // mostly it is under way, and done then
		s.vol.log.Warn("names cannot be changed", "error", err)
		return
	}
	s.unlockNames()
}

// sharedIntent is what stands in the file that is open as fd; nil if nothing does.
func (v *Volume) sharedIntent(fd int) (*intent, error) {
	h := make([]byte, slotHeader)
	n, err := preadFull(v.backing, fd, h[:4], 0)
	if err != nil || n < 4 || binary.LittleEndian.Uint32(h) != slotArmed {
		return nil, err
	}
	if n, err = preadFull(v.backing, fd, h, 0); err != nil || n < len(h) {
		return nil, err
	}
	key := v.vk.Derive(crypto.LabelRedo)
	defer key.Wipe()
	in, _ := parseIntent(h, crypto.ID(h[8:24]), key)
	return in, nil
}

func (s *sharing) clearIntent() error {
	_, err := pwriteFull(s.vol.backing, s.tree, make([]byte, 4), 0)
	return err
}

// intend is Volume.intend for who has the lock on names.
func (s *sharing) intend(in intent) *armedIntent {
	a := &armedIntent{intent: in, vol: s.vol}
	slot, err := s.vol.redo.drawFrom(&s.vol.redo.intents)
	if err == nil {
		a.slot = slot
		err = s.publish(a)
	}
	if err != nil {
		s.vol.log.Warn("an operation on names goes on without an intent: killed now, it could leave a half", "error", err)
	}
	return a
}

func (s *sharing) publish(a *armedIntent) error {
	a.slot.armIntent(s.vol.redo.session, &a.intent)
	_, err := pwriteFull(s.vol.backing, s.tree, a.slot.mem[:slotHeader], 0)
	return err
}

// done is armedIntent.done: what is left stays in the file, for who takes the lock next.
func (s *sharing) done(a *armedIntent) {
	if a.slot == nil {
		return
	}
	var err error
	if a.left {
		err = s.publish(a) // it may know more by now
	} else {
		err = s.clearIntent()
	}
	if err != nil {
		s.vol.log.Warn("the intent of an operation on names stays", "error", err)
	}
	s.vol.redo.drop(a.slot)
	a.slot = nil
}

// inheritShared gives what a killed shared mount left in the file of that name to
// this one, which is not shared.
func (v *Volume) inheritShared(name string) error {
	fd, err := openPlain(v.backing, v.redoDir, name, unix.O_RDONLY)
	if err == unix.ENOENT || errors.Is(err, errNotPlain) {
		return nil
	}
	if err != nil {
		return err
	}
	defer v.backing.Close(fd)
	in, err := v.sharedIntent(fd)
	if in != nil {
		v.unsettled.inherit(v.arm(*in))
	}
	return err
}
