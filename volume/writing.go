package volume

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// beginWriting claims the volume, finishes what the last session left, and
// notes in host state that it is open.
func (v *Volume) beginWriting(o Options) error {
	id, err := crypto.NewID(v.random)
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	info := sessionInfo{
		ID: id, Host: host, PID: os.Getpid(), Mountpoint: o.Mountpoint,
		Since: o.now().UTC().Truncate(time.Second), Generation: v.conf().Generation, Shared: v.shared != nil,
	}
	err = v.withRoom(func() (err error) {
		v.session, err = beginSession(v.backing, v.rootDesc.fd, info)
		return err
	})
	if isFull(err) { // that is not what keeps us out, if somebody has it
		if live, _ := liveSessions(v.backing, v.rootDesc.fd); len(live) > 0 {
			return live[0].inUse()
		}
	}
	if err != nil {
		return err
	}
	v.follow.told = v.conf().Generation
	// Only now nobody else changes it: what was loaded before may be out of date.
	if v.host, err = v.hosts.load(v.id); err != nil {
		return err
	}
	if v.host == nil {
		return fmt.Errorf("host state of volume %s is gone", v.id)
	}
	if v.shared != nil {
		return v.beginShared(boot)
	}
	open, err := v.recover(boot)
	if err != nil {
		return err
	}
	// Before the slots of the killed session go, this one's hold what is left of
	// them: the next mount finds it, should this one be killed too.
	if err := v.withRoom(v.makeRedo); err != nil {
		return err
	}
	for _, in := range open {
		v.unsettled.inherit(v.arm(*in))
	}
	err = v.withRoom(func() (err error) {
		v.host, err = v.hosts.begin(v.id, id, boot)
		return err
	})
	if err != nil {
		return err
	}
	// From here on no slots of before may be replayed.
	v.session.removeStale()
	return v.clearRedo()
}

// recover deals with how the last session on this host ended, and returns the
// operations on names that are still to be settled.
func (v *Volume) recover(boot string) ([]*intent, error) {
	if v.relaxed = v.host.mayBeTorn(boot); v.relaxed {
		v.log.Warn("the host stopped while the volume was mounted: what does not match its seal is reported and accepted until a check has settled it")
	}
	end := v.host.lastEnd(boot)
	if end == endClean {
		return nil, nil
	}
	n := 0
	var open []*intent
	err := v.withRoom(func() (err error) {
		n, open, err = v.replay(v.host.Session, end == endPowerLoss)
		return err
	})
	if err != nil {
		return nil, err
	}
	// What the last mount wrote and did not sync, nobody owes any more: a sidecar,
	// say, without which a file that is synced from now on could not be read. And
	// what was just made again is safe only then from the next power cut.
	if err := v.syncAll(); err != nil {
		return nil, err
	}
	if end == endPowerLoss {
		if n > 0 {
			v.log.Info("changes that were under way are finished from the log", "changes_finished", n)
		}
		return nil, nil
	}
	v.log.Info("the last mount was killed; its interrupted changes are finished, and its interrupted operations on names are finished or undone",
		"changes_finished", n, "operations_settled", len(open))
	return open, nil
}

// makeRedo makes this session's file of redo slots.
func (v *Volume) makeRedo() error {
	fd, err := v.backing.Openat(v.redoDir, v.session.id.String(), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make redo slots: %w", err)
	}
	if v.strict { // a log must be found again
		if err := v.backing.Fsync(v.redoDir); err != nil {
			v.backing.Close(fd)
			return fmt.Errorf("sync redo slots: %w", err)
		}
	}
	v.redo = newRedoFile(v.backing, fd, v.session.id, v.vk.Derive(crypto.LabelRedo))
	v.redo.lastRoom = v.lastRoom
	return nil
}

// clearRedo removes the slots of earlier sessions.
func (v *Volume) clearRedo() error {
	entries, err := v.listBacking(v.redoDir)
	if err != nil {
		return fmt.Errorf("list redo slots: %w", err)
	}
	for _, e := range entries {
		if e.name == v.session.id.String() || v.shared != nil && e.name == sharedTree {
			continue
		}
		if e.name == sharedTree {
			if err := v.inheritShared(e.name); err != nil {
				return fmt.Errorf("read what shared mounts left: %w", err)
			}
		}
		err := v.backing.Unlinkat(v.redoDir, e.name, 0)
		if err == unix.EISDIR {
			v.log.Warn("a directory is where redo slots are: fsck sets it aside", "backing", metaDir+"/redo/"+e.name)
			continue
		}
		if err != nil && err != unix.ENOENT {
			return fmt.Errorf("remove old redo slots: %w", err)
		}
	}
	return nil
}

// endWriting gives the volume free and notes that it ended cleanly.
func (v *Volume) endWriting() error {
	if v.shared != nil {
		return v.endShared()
	}
	v.removeRedo()
	end := v.hosts.end
	if v.mustSettle() {
		end = v.hosts.cancel
	}
	err := v.withRoom(func() error { return end(v.id, v.session.id) })
	v.endSession()
	return err
}

// cancelWriting gives the volume free after an Open that failed, which settled
// nothing.
func (v *Volume) cancelWriting() {
	v.removeRedo()
	if err := v.hosts.cancel(v.id, v.session.id); err != nil {
		v.log.Warn("the next mount will take this one for killed", "error", err)
	}
	v.endSession()
}

func (v *Volume) endSession() {
	if v.unreserved { // by now there may be room
		v.takeReserve()
	}
	v.session.end()
}

func (v *Volume) removeRedo() {
	if v.redo != nil {
		_ = v.backing.Unlinkat(v.redoDir, v.session.id.String(), 0)
	}
}

// checkNoWriter refuses to read a volume that a mount is writing to: records
// and blocks would be seen half-changed.
func (v *Volume) checkNoWriter() error {
	live, err := liveSessions(v.backing, v.rootDesc.fd)
	if err != nil {
		return err
	}
	if len(live) > 0 {
		return live[0].inUse()
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	v.relaxed = v.host.mayBeTorn(boot)
	if v.host.lastEnd(boot) == endKilled {
		v.log.Warn("the last mount was killed, and a read-only mount does not finish its interrupted changes: files that it was changing may be refused until the volume is mounted for writing")
	}
	return nil
}
