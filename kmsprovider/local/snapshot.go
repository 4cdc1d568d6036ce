package local

import (
	"fmt"
	"os"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// snapshot is one state of the keystore file, opened and ready to use. It
// never changes.
type snapshot struct {
	doc    *document
	stamp  stamp
	file   *os.File                  // kept open, see stamp
	byName map[string]*openKey       // UUID, ARN, alias and alias ARN
	byID   map[keyUUID]*openKey      // what blobs name
	opened map[openedID]*crypto.XAES // all materials
}

// openKey is a KMS key.
type openKey struct {
	record    *keyRecord // in snapshot.doc
	id        keyUUID
	arn       string
	current   *crypto.XAES // the material that encrypts
	currentID materialID
	materials map[materialID]*crypto.XAES // those that decrypt, current included
}

// openedID names a sealed material by all that it depends on, so that the next
// snapshot opens only what is new.
type openedID struct {
	key      keyUUID
	material materialID
	sealed   [sealedKeySize]byte
}

// newSnapshot opens the keys of d, whose MAC was verified. From last, which may
// be nil, it takes the materials that stayed the same.
func newSnapshot(d *document, s *sealer, last *snapshot) (*snapshot, error) {
	n := &snapshot{
		doc:    d,
		byName: make(map[string]*openKey, 2*len(d.Keys)+2*len(d.Aliases)),
		byID:   make(map[keyUUID]*openKey, len(d.Keys)),
		opened: make(map[openedID]*crypto.XAES, len(d.Keys)),
	}
	for i := range d.Keys {
		if err := n.addKey(&d.Keys[i], s, last); err != nil {
			return nil, err
		}
	}
	for i := range d.Aliases {
		a := &d.Aliases[i]
		target := n.byName[a.Target]
		n.byName[a.Name] = target
		n.byName[aliasARN(d.Account, a.Name)] = target
	}
	return n, nil
}

func (n *snapshot) addKey(r *keyRecord, s *sealer, last *snapshot) error {
	id, _ := parseKeyUUID(r.ID) // document.check saw to it
	current, _ := parseMaterialID(r.Current)
	k := &openKey{
		record:    r,
		id:        id,
		arn:       keyARN(n.doc.Account, r.ID),
		currentID: current,
		materials: make(map[materialID]*crypto.XAES, len(r.Materials)),
	}
	for _, m := range r.Materials {
		material, _ := parseMaterialID(m.ID)
		opened := openedID{key: id, material: material, sealed: [sealedKeySize]byte(m.Sealed)}
		var aead *crypto.XAES
		if last != nil {
			aead = last.opened[opened]
		}
		if aead == nil {
			var err error
			if aead, err = s.openMaterial(m.Sealed, k.arn, material); err != nil {
				return fmt.Errorf("open key %s: %w: %w", k.arn, ErrDamaged, err)
			}
		}
		n.opened[opened] = aead
		k.materials[material] = aead
	}
	k.current = k.materials[current]
	n.byID[id] = k
	n.byName[r.ID] = k
	n.byName[k.arn] = k
	return nil
}

// find returns the key of that name: its UUID or ARN and, unless noAlias is
// set, its alias or alias ARN.
func (n *snapshot) find(keyID string, noAlias bool) (*openKey, error) {
	if noAlias && isAlias(keyID) {
		return nil, refuse(codeNotFound, "Invalid keyId %s: an alias is not accepted here", keyID).of(kmsprovider.ErrInvalidInput)
	}
	if k := n.byName[keyID]; k != nil {
		return k, nil
	}
	return nil, missingKey(keyID, n.doc.Account)
}
