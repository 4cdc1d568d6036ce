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
	Description string // at most 8192 bytes
}

// CreateKey makes an enabled key with fresh material. When it returns the key
// is durable.
func (k *Keystore) CreateKey(ctx context.Context, in CreateKeyInput) (KeyMetadata, error) {
	var made KeyMetadata
	err := checkDescription(in.Description)
	if err == nil {
		err = k.update(ctx, func(d *document, s *sealer) error {
			r, err := k.newKey(d, s, in.Description, kmsprovider.ManagerCustomer)
			if err != nil {
				return err
			}
			d.Keys = append(d.Keys, r)
			made = r.metadata(d.Account)
			return nil
		})
	}
	if err != nil {
		return KeyMetadata{}, fmt.Errorf("create key: %w", err)
	}
	return made, nil
}

// newKey draws a key for d; it is not added yet.
func (k *Keystore) newKey(d *document, s *sealer, description, manager string) (keyRecord, error) {
	id, err := newKeyUUID(k.random)
	if err != nil {
		return keyRecord{}, err
	}
	m, err := k.newMaterial(d, s, id)
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
func (k *Keystore) newMaterial(d *document, s *sealer, id keyUUID) (materialRecord, error) {
	var material materialID
	if _, err := io.ReadFull(k.random, material[:]); err != nil {
		return materialRecord{}, fmt.Errorf("draw material ID: %w", err)
	}
	key, err := crypto.GenerateKey(k.random)
	if err != nil {
		return materialRecord{}, fmt.Errorf("draw key material: %w", err)
	}
	defer key.Wipe()
	sealed, err := s.sealMaterial(k.random, keyARN(d.Account, id.String()), material, key)
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
	err = k.update(ctx, func(d *document, s *sealer) error {
		if i := d.findAlias(DefaultAlias); i >= 0 {
			arn = keyARN(d.Account, d.Aliases[i].Target)
			return errUnchanged
		}
		r, err := k.newKey(d, s, "default key of kmsfs", kmsprovider.ManagerService)
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

// ListKeys returns all keys in the order of their creation.
func (k *Keystore) ListKeys(ctx context.Context) ([]KeyMetadata, error) {
	state, err := k.acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	defer k.mu.RUnlock()
	keys := make([]KeyMetadata, 0, len(state.doc.Keys))
	for i := range state.doc.Keys {
		keys = append(keys, state.doc.Keys[i].metadata(state.doc.Account))
	}
	return keys, nil
}

// DescribeKeyMetadata returns what is known of a key: named by UUID, ARN,
// alias or alias ARN, in any state.
func (k *Keystore) DescribeKeyMetadata(ctx context.Context, keyID string) (KeyMetadata, error) {
	state, err := k.acquire(ctx)
	if err != nil {
		return KeyMetadata{}, fmt.Errorf("describe key: %w", err)
	}
	defer k.mu.RUnlock()
	key, err := state.find(keyID)
	if err != nil {
		return KeyMetadata{}, fmt.Errorf("describe key: %w", err)
	}
	return key.record.metadata(state.doc.Account), nil
}

// EnableKey makes a disabled key usable again. It is no error if it is enabled.
func (k *Keystore) EnableKey(ctx context.Context, keyID string) error {
	if err := k.setState(ctx, keyID, kmsprovider.StateEnabled); err != nil {
		return fmt.Errorf("enable key: %w", err)
	}
	return nil
}

// DisableKey keeps a key from being used: until EnableKey all calls but
// DescribeKey fail with ErrKeyDisabled, in every process at its next call.
func (k *Keystore) DisableKey(ctx context.Context, keyID string) error {
	if err := k.setState(ctx, keyID, kmsprovider.StateDisabled); err != nil {
		return fmt.Errorf("disable key: %w", err)
	}
	return nil
}

// setState takes the key by UUID or ARN, as AWS does; an alias is refused.
func (k *Keystore) setState(ctx context.Context, keyID, state string) error {
	return k.update(ctx, func(d *document, _ *sealer) error {
		i, err := d.findKey(keyID)
		if err != nil {
			return err
		}
		if d.Keys[i].State == state {
			return errUnchanged
		}
		d.Keys[i].State = state
		return nil
	})
}

// findKey returns the index of the key with that UUID or ARN.
func (d *document) findKey(keyID string) (int, error) {
	i := slices.IndexFunc(d.Keys, func(r keyRecord) bool {
		return r.ID == keyID || keyARN(d.Account, r.ID) == keyID
	})
	if i >= 0 {
		return i, nil
	}
	if isAlias(keyID) {
		return 0, fmt.Errorf("find key %.300q: an alias is not accepted here: %w", keyID, kmsprovider.ErrInvalidInput)
	}
	return 0, missingKey(keyID)
}
