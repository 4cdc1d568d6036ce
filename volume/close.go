package volume

import (
	"errors"
	"runtime"
)

// Close ends all use of the volume: everything is made durable, the session is
// ended cleanly and the keys are wiped. Nodes must not be used afterwards. Called
// again it does nothing, and returns what it did the first time.
func (v *Volume) Close() error {
	v.closing.Do(func() { v.closed = v.close() })
	return v.closed
}

func (v *Volume) close() error {
	v.cancel()
	v.tasks.Wait()
	var errs []error
	if !v.readOnly {
		v.pool.close()
		for _, n := range v.pinned.all() {
			n.Forget()
		}
		v.reaper.close()
		errs = append(errs, v.settleAll())
		// Only what is durable may be called cleanly ended: from then on every
		// mismatch is damage.
		errs = append(errs, v.syncAll())
		v.stopFollowing()
		v.redo.close()
		if errors.Join(errs...) == nil {
			errs = append(errs, v.endWriting())
		} else {
			v.session.abandon()
		}
	}
	v.release()
	runtime.KeepAlive(v)
	return errors.Join(errs...)
}

// abort undoes a failed Open.
func (v *Volume) abort() {
	if v.pool != nil {
		v.pool.close()
	}
	if v.redo != nil {
		v.redo.close()
	}
	v.stopFollowing()
	if v.session != nil {
		v.cancelWriting()
	}
	v.release()
}

// release closes descriptors and wipes keys.
func (v *Volume) release() {
	v.cancel()
	v.ahead.close()
	v.tasks.Wait()
	v.stopFollowing()
	v.shared.close()
	v.descriptors.closeAll()
	if v.keys != nil {
		v.keys.wipe()
	}
	if v.volumeKeys != nil {
		v.volumeKeys.wipe()
	}
	if v.sidecars != nil {
		v.sidecars.close()
	}
	for _, fd := range []int{v.meta, v.links, v.redoDir} {
		if fd >= 0 {
			v.backing.Close(fd)
		}
	}
	if v.rootDesc != nil {
		v.backing.Close(v.rootDesc.fd)
	}
}
