package local

import (
	"encoding/hex"
	"fmt"
	"io"

	"kmsfs/crypto"
)

// addMaterial draws a material for r, seals it and makes it the current one. Of
// m, Created and Rotated are taken.
func (k *Keystore) addMaterial(d *document, r *keyRecord, m materialRecord) error {
	var id materialID
	if _, err := io.ReadFull(k.random, id[:]); err != nil {
		return fmt.Errorf("draw material ID: %w", err)
	}
	key, err := crypto.GenerateKey(k.random)
	if err != nil {
		return fmt.Errorf("draw key material: %w", err)
	}
	defer key.Wipe()
	m.ID = hex.EncodeToString(id[:])
	if m.Sealed, err = k.sealer.sealMaterial(k.random, keyARN(d.Account, r.ID), id, key); err != nil {
		return err
	}
	r.Materials = append(r.Materials, m)
	r.Current = m.ID
	return nil
}
