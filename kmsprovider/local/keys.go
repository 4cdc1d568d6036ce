package local

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// CreateKeyInput says what key to create.
type CreateKeyInput struct {
	Description string `json:"Description,omitempty"` // at most 8192 bytes
}

// CreateKeyOutput is CreateKey's.
type CreateKeyOutput struct {
	KeyMetadata KeyMetadata `json:"KeyMetadata"`
}

func (in *CreateKeyInput) operation() operation { return operation{name: "CreateKey", changes: true} }

func (in *CreateKeyInput) perform(c *call) (any, error) {
	if err := checkDescription(in.Description); err != nil {
		return nil, err
	}
	r, err := c.k.newKey(c.doc, in.Description, kmsprovider.ManagerCustomer)
	if err != nil {
		return nil, err
	}
	c.doc.Keys = append(c.doc.Keys, r)
	return &CreateKeyOutput{r.metadata(c.doc.Account)}, nil
}

// CreateKey makes an enabled key with fresh material, as the account's root.
// When it returns the key is durable.
func (k *Keystore) CreateKey(ctx context.Context, in CreateKeyInput) (KeyMetadata, error) {
	out, err := do[CreateKeyOutput](ctx, k, &in)
	if err != nil {
		return KeyMetadata{}, err
	}
	return out.KeyMetadata, nil
}

// newKey draws a key for d; it is not added yet.
func (k *Keystore) newKey(d *document, description, manager string) (keyRecord, error) {
	id, err := newKeyUUID(k.random)
	if err != nil {
		return keyRecord{}, err
	}
	m, err := k.newMaterial(d, id)
	if err != nil {
		return keyRecord{}, err
	}
	return keyRecord{
		ID:          id.String(),
		Created:     m.Created,
		Description: description,
		Manager:     manager,
		Origin:      originKMS,
		State:       kmsprovider.StateEnabled,
		Current:     m.ID,
		Materials:   []materialRecord{m},
	}, nil
}

// newMaterial draws and seals a material of the key id.
func (k *Keystore) newMaterial(d *document, id keyUUID) (materialRecord, error) {
	var material materialID
	if _, err := io.ReadFull(k.random, material[:]); err != nil {
		return materialRecord{}, fmt.Errorf("draw material ID: %w", err)
	}
	key, err := crypto.GenerateKey(k.random)
	if err != nil {
		return materialRecord{}, fmt.Errorf("draw key material: %w", err)
	}
	defer key.Wipe()
	sealed, err := k.sealer.sealMaterial(k.random, keyARN(d.Account, id.String()), material, key)
	if err != nil {
		return materialRecord{}, err
	}
	return materialRecord{ID: hex.EncodeToString(material[:]), Created: k.timestamp(), Sealed: sealed}, nil
}

// EnsureDefaultKey returns the ARN of the key that DefaultAlias names. If there
// is no such alias yet it makes key and alias at once; of several processes
// that do so at the same time one makes them.
func (k *Keystore) EnsureDefaultKey(ctx context.Context) (arn string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("ensure default key: %w", err)
		}
	}()
	state, err := k.acquire(ctx)
	if err != nil {
		return "", err
	}
	existing := state.byName[DefaultAlias]
	k.mu.RUnlock()
	if existing != nil {
		return existing.arn, nil
	}
	err = k.update(ctx, func(_ *snapshot, d *document) error {
		if i := d.findAlias(DefaultAlias); i >= 0 {
			arn = keyARN(d.Account, d.Aliases[i].Target)
			return errUnchanged
		}
		r, err := k.newKey(d, "default key of kmsfs", kmsprovider.ManagerService)
		if err != nil {
			return err
		}
		d.Keys = append(d.Keys, r)
		d.Aliases = append(d.Aliases, aliasRecord{Name: DefaultAlias, Target: r.ID, Created: r.Created, Updated: r.Created})
		arn = keyARN(d.Account, r.ID)
		return nil
	})
	if err != nil {
		return "", err
	}
	return arn, nil
}

// ListKeysInput lists all keys in the order of their creation.
type ListKeysInput struct{}

// ListKeysOutput is ListKeys's.
type ListKeysOutput struct {
	Keys []KeyListEntry `json:"Keys"`
}

// KeyListEntry is a key in a list.
type KeyListEntry struct {
	KeyID  string `json:"KeyId"` // a UUID
	KeyARN string `json:"KeyArn"`
}

func (in *ListKeysInput) operation() operation { return operation{name: "ListKeys"} }

func (in *ListKeysInput) perform(c *call) (any, error) {
	out := &ListKeysOutput{Keys: make([]KeyListEntry, 0, len(c.state.doc.Keys))}
	for _, r := range c.state.doc.Keys {
		out.Keys = append(out.Keys, KeyListEntry{KeyID: r.ID, KeyARN: keyARN(c.state.doc.Account, r.ID)})
	}
	return out, nil
}

// DescribeKeyInput asks what is known of a key, in any state.
type DescribeKeyInput struct {
	KeyID string `json:"KeyId"`
}

// DescribeKeyOutput is DescribeKey's.
type DescribeKeyOutput struct {
	KeyMetadata KeyMetadata `json:"KeyMetadata"`
}

func (in *DescribeKeyInput) operation() operation {
	return operation{name: "DescribeKey", needsKey: true, key: in.KeyID, states: anyState}
}

func (in *DescribeKeyInput) perform(c *call) (any, error) {
	return &DescribeKeyOutput{c.key.record.metadata(c.state.doc.Account)}, nil
}

// EnableKeyInput makes a disabled key usable again.
type EnableKeyInput struct {
	KeyID string `json:"KeyId"`
}

func (in *EnableKeyInput) operation() operation {
	return operation{name: "EnableKey", changes: true, needsKey: true, key: in.KeyID, noAlias: true, states: enabled | disabled}
}

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

func (in *DisableKeyInput) operation() operation {
	return operation{name: "DisableKey", changes: true, needsKey: true, key: in.KeyID, noAlias: true, states: enabled | disabled}
}

func (in *DisableKeyInput) perform(c *call) (any, error) {
	return nil, c.setState(kmsprovider.StateDisabled)
}

// DisableKey is DisableKeyInput's operation, as the account's root.
func (k *Keystore) DisableKey(ctx context.Context, keyID string) error {
	_, err := do[struct{}](ctx, k, &DisableKeyInput{KeyID: keyID})
	return err
}

func (c *call) setState(state string) error {
	r := c.record()
	if r.State == state {
		return errUnchanged
	}
	r.State = state
	return nil
}

// key returns the record of the key with that UUID, which is there.
func (d *document) key(uuid string) *keyRecord {
	return &d.Keys[slices.IndexFunc(d.Keys, func(r keyRecord) bool { return r.ID == uuid })]
}
