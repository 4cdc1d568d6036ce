package local

import (
	"context"
	"strconv"
	"time"

	"kmsfs/kmsprovider"
)

// turning describes what makes a key usable or not. Other than AWS's own keys,
// the one that kmsfs manages can be disabled too: volumes are revoked with it,
// and nothing is lost.
func turning(name, keyID string) operation {
	o := managing(name, keyID, switching)
	o.customer = false
	return o
}

// EnableKeyInput makes a disabled key usable again.
type EnableKeyInput struct {
	KeyID string `json:"KeyId"`
}

func (in *EnableKeyInput) operation() operation { return turning("EnableKey", in.KeyID) }

func (in *EnableKeyInput) perform(c *call) (any, error) {
	return nil, c.setState(kmsprovider.StateEnabled)
}

// EnableKey is EnableKeyInput's operation, as the account's root. It is no
// error if the key is enabled.
func (k *Keystore) EnableKey(ctx context.Context, keyID string) error {
	_, err := do[struct{}](ctx, k, &EnableKeyInput{KeyID: keyID})
	return err
}

// DisableKeyInput keeps a key from being used: until EnableKey all uses fail
// with DisabledException, in every process at its next call.
type DisableKeyInput struct {
	KeyID string `json:"KeyId"`
}

func (in *DisableKeyInput) operation() operation { return turning("DisableKey", in.KeyID) }

func (in *DisableKeyInput) perform(c *call) (any, error) {
	return nil, c.setState(kmsprovider.StateDisabled)
}

// DisableKey is DisableKeyInput's operation, as the account's root.
func (k *Keystore) DisableKey(ctx context.Context, keyID string) error {
	_, err := do[struct{}](ctx, k, &DisableKeyInput{KeyID: keyID})
	return err
}

func (c *call) setState(state string) error {
	r := c.keyRecord()
	if r.State == state {
		return errUnchanged
	}
	r.State = state
	return nil
}

// Days that a deletion may be put off, and usually is.
const (
	minPending   = 7
	maxPending   = 30
	usualPending = 30
)

// ScheduleKeyDeletionInput deletes a key, with all that was encrypted under it,
// when a number of days is over; until then it cannot be used, and the deletion
// can be cancelled.
type ScheduleKeyDeletionInput struct {
	KeyID               string `json:"KeyId"`
	PendingWindowInDays *int   `json:"PendingWindowInDays,omitempty"` // 7 to 30; nil: 30
}

// ScheduleKeyDeletionOutput is ScheduleKeyDeletion's.
type ScheduleKeyDeletionOutput struct {
	KeyID               string    `json:"KeyId"` // ARN
	DeletionDate        Timestamp `json:"DeletionDate"`
	KeyState            string    `json:"KeyState"`
	PendingWindowInDays int       `json:"PendingWindowInDays"`
}

func (in *ScheduleKeyDeletionInput) operation() operation {
	return managing("ScheduleKeyDeletion", in.KeyID, notDying)
}

func (in *ScheduleKeyDeletionInput) days() int {
	if in.PendingWindowInDays == nil {
		return usualPending
	}
	return *in.PendingWindowInDays
}

func (in *ScheduleKeyDeletionInput) check() error {
	if d := in.days(); d < minPending || d > maxPending {
		return invalid("pendingWindowInDays", "Member must have value between %d and %d", minPending, maxPending)
	}
	return nil
}

func (in *ScheduleKeyDeletionInput) conditions(*call) map[string][]string {
	return map[string][]string{"kms:ScheduleKeyDeletionPendingWindowInDays": {strconv.Itoa(in.days())}}
}

func (in *ScheduleKeyDeletionInput) perform(c *call) (any, error) {
	r := c.keyRecord()
	r.State, r.Deletion = kmsprovider.StatePendingDeletion, c.now.AddDate(0, 0, in.days())
	return &ScheduleKeyDeletionOutput{KeyID: c.key.arn, DeletionDate: Timestamp{r.Deletion}, KeyState: r.State, PendingWindowInDays: in.days()}, nil
}

// CancelKeyDeletionInput keeps a key that was to be deleted. It is disabled
// then, or pending an import if its material is gone.
type CancelKeyDeletionInput struct {
	KeyID string `json:"KeyId"`
}

// CancelKeyDeletionOutput is CancelKeyDeletion's.
type CancelKeyDeletionOutput struct {
	KeyID string `json:"KeyId"` // ARN
}

func (in *CancelKeyDeletionInput) operation() operation {
	return managing("CancelKeyDeletion", in.KeyID, pendingDeletion)
}

func (in *CancelKeyDeletionInput) perform(c *call) (any, error) {
	r := c.keyRecord()
	r.State, r.Deletion = kmsprovider.StateDisabled, time.Time{}
	if c.key.current == nil || r.expired(c.now) {
		r.dropMaterial()
	}
	return &CancelKeyDeletionOutput{c.key.arn}, nil
}
