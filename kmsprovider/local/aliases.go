package local

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// CreateAlias makes alias, alias/NAME, a name of the key keyID, which is a UUID
// or an ARN. Errors: ErrAliasExists, kmsprovider.ErrKeyNotFound and, for a name
// that AWS's rules do not allow, kmsprovider.ErrInvalidInput.
func (k *Keystore) CreateAlias(ctx context.Context, alias, keyID string) error {
	err := checkAlias(alias)
	if err == nil {
		err = k.update(ctx, func(d *document, _ *sealer) error {
			if d.findAlias(alias) >= 0 {
				return fmt.Errorf("add %q: %w", alias, ErrAliasExists)
			}
			i, err := d.findKey(keyID)
			if err != nil {
				return err
			}
			now := k.timestamp()
			d.Aliases = append(d.Aliases, aliasRecord{Name: alias, Target: d.Keys[i].ID, Created: now, Updated: now})
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("create alias: %w", err)
	}
	return nil
}

// ListAliases returns all aliases in the order of their creation.
func (k *Keystore) ListAliases(ctx context.Context) ([]Alias, error) {
	state, err := k.acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("list aliases: %w", err)
	}
	defer k.mu.RUnlock()
	aliases := make([]Alias, 0, len(state.doc.Aliases))
	for i := range state.doc.Aliases {
		aliases = append(aliases, state.doc.Aliases[i].alias(state.doc.Account))
	}
	return aliases, nil
}

// findAlias returns the index of the alias, or -1.
func (d *document) findAlias(alias string) int {
	return slices.IndexFunc(d.Aliases, func(a aliasRecord) bool { return a.Name == alias })
}

// isAlias tells whether keyID has the form of an alias or of its ARN.
func isAlias(keyID string) bool {
	if !wellFormedKeyID(keyID) {
		return false
	}
	return strings.HasPrefix(keyID[strings.LastIndexByte(keyID, ':')+1:], aliasPrefix)
}
