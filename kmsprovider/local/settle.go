package local

import (
	"context"
	"slices"
	"time"

	"kmsfs/kmsprovider"
)

// Time does three things to keys: it deletes them when the window of their
// deletion is over, it deletes imported material that expires, and it rotates.
// Nobody waits for it: the first call after the date does it, in any process.
// Where the file cannot be written then, deleted keys and expired materials are
// out of use all the same; rotation waits.

// settleRetry is how long after a failure it is not tried again.
const settleRetry = time.Minute

// gone tells whether the key's deletion is over.
func (r *keyRecord) gone(now time.Time) bool {
	return r.State == kmsprovider.StatePendingDeletion && !now.Before(r.Deletion)
}

// state is the key's state now.
func (r *keyRecord) state(now time.Time) string {
	if (r.State == kmsprovider.StateEnabled || r.State == kmsprovider.StateDisabled) && r.expired(now) {
		return kmsprovider.StatePendingImport
	}
	return r.State
}

// expired tells whether a material has expired that was not deleted yet.
func (r *keyRecord) expired(now time.Time) bool {
	return slices.ContainsFunc(r.Materials, func(m materialRecord) bool {
		return len(m.Sealed) > 0 && !m.Expires.IsZero() && !now.Before(m.Expires)
	})
}

// rotation is the automatic rotation of a key, nil where it is off. A key that
// kmsfs manages has it always.
func (r *keyRecord) rotation() *rotationRecord {
	if r.Rotation == nil && r.Manager == kmsprovider.ManagerService {
		return &rotationRecord{Days: usualRotation, Next: r.Created.AddDate(0, 0, usualRotation)}
	}
	return r.Rotation
}

// due is when time changes something of the key; zero: never.
func (r *keyRecord) due() time.Time {
	var due time.Time
	if r.State == kmsprovider.StatePendingDeletion {
		due = r.Deletion
	}
	for _, m := range r.Materials {
		if len(m.Sealed) > 0 {
			due = earlier(due, m.Expires)
		}
	}
	if rotation := r.rotation(); rotation != nil && r.State == kmsprovider.StateEnabled {
		due = earlier(due, rotation.Next)
	}
	return due
}

// earlier is the earlier of two dates, of which a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (k *Keystore) mustSettle(state *snapshot) bool {
	if state.due.IsZero() {
		return false
	}
	now := k.timestamp()
	return !now.Before(state.due) && now.UnixNano() >= k.retry.Load()
}

// settle does what is due. A failure is not the caller's: see the top.
func (k *Keystore) settle(ctx context.Context) {
	var done []serviceEvent
	now := k.timestamp()
	err := k.update(ctx, func(_ *snapshot, d *document) (err error) {
		done, err = k.settleDocument(d, now)
		if err == nil && len(done) == 0 {
			return errUnchanged
		}
		return err
	}, func() error { return k.recordService(now, done) })
	if err != nil {
		k.retry.Store(now.Add(settleRetry).UnixNano())
	}
}

// serviceEvent is something that the KMS did by itself, for the audit log.
type serviceEvent struct{ name, keyARN string }

// settleDocument does what is due at now.
func (k *Keystore) settleDocument(d *document, now time.Time) (done []serviceEvent, err error) {
	note := func(name string, r *keyRecord) {
		done = append(done, serviceEvent{name, keyARN(d.Account, r.ID)})
	}
	d.Keys = slices.DeleteFunc(d.Keys, func(r keyRecord) bool {
		if !r.gone(now) {
			return false
		}
		note("DeleteKey", &r)
		d.Aliases = slices.DeleteFunc(d.Aliases, func(a aliasRecord) bool { return a.Target == r.ID })
		return true
	})
	for i := range d.Keys {
		r := &d.Keys[i]
		if r.expired(now) {
			r.dropMaterial()
			note("DeleteExpiredKeyMaterial", r)
		}
		rotation := r.rotation()
		if rotation == nil || r.State != kmsprovider.StateEnabled || now.Before(rotation.Next) {
			continue
		}
		if err := k.rotate(d, r, rotatedAutomatic, now); err != nil {
			return nil, err
		}
		r.Rotation = &rotationRecord{Days: rotation.Days, Next: now.AddDate(0, 0, rotation.Days)}
		note("RotateKey", r)
	}
	return done, nil
}

// dropMaterial deletes imported material; its ID stays, so that only the same
// one can be imported again.
func (r *keyRecord) dropMaterial() {
	for i := range r.Materials {
		r.Materials[i].Sealed, r.Materials[i].Expires = nil, time.Time{}
	}
	if r.State != kmsprovider.StatePendingDeletion {
		r.State = kmsprovider.StatePendingImport
	}
}
