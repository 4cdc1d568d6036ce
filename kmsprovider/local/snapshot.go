package local

import (
	"fmt"
	"os"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local/policy"
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
	due    time.Time                 // when time changes something here; zero: never

	principals    map[string]*openPrincipal // by ARN
	policies      map[string]*policy.Policy // all key policies, by document
	defaultPolicy *policy.Policy
}

// openPrincipal is a user of the account.
type openPrincipal struct {
	record *principalRecord // in snapshot.doc
	policy *policy.Policy   // nil: none
}

// openKey is a KMS key.
type openKey struct {
	record    *keyRecord // in snapshot.doc
	id        keyUUID
	arn       string
	policy    *policy.Policy // nil: policy.Default
	current   *crypto.XAES   // the material that encrypts; nil before the first import and after it is gone
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

		principals: make(map[string]*openPrincipal, len(d.Principals)),
		policies:   make(map[string]*policy.Policy),
	}
	var err error
	if n.defaultPolicy, err = policy.Parse(policy.Default(d.Account), policy.KeyPolicy); err != nil {
		return nil, err
	}
	for i := range d.Keys {
		if err := n.addKey(&d.Keys[i], s, last); err != nil {
			return nil, err
		}
	}
	for i := range d.Principals {
		if err := n.addPrincipal(&d.Principals[i]); err != nil {
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
	id, _ := parseKeyUUID(r.ID)              // document.check saw to it
	current, _ := parseMaterialID(r.Current) // zero where there is none
	k := &openKey{
		record:    r,
		id:        id,
		arn:       keyARN(n.doc.Account, r.ID),
		currentID: current,
		materials: make(map[materialID]*crypto.XAES, len(r.Materials)),
	}
	for _, m := range r.Materials {
		if len(m.Sealed) == 0 {
			continue
		}
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
	var err error
	if k.policy, err = n.keyPolicy(r.Policy, last); err != nil {
		return fmt.Errorf("read policy of key %s: %w: %w", k.arn, ErrDamaged, err)
	}
	n.due = earlier(n.due, r.due())
	n.byID[id] = k
	n.byName[r.ID] = k
	n.byName[k.arn] = k
	return nil
}

func (n *snapshot) addPrincipal(r *principalRecord) (err error) {
	p := &openPrincipal{record: r}
	if r.Policy != "" {
		if p.policy, err = policy.Parse([]byte(r.Policy), policy.IdentityPolicy); err != nil {
			return fmt.Errorf("read policy of principal %s: %w: %w", r.Name, ErrDamaged, err)
		}
	}
	n.principals[userARN(n.doc.Account, r.Name)] = p
	return nil
}

// keyPolicy reads a key policy, unless last has read it before.
func (n *snapshot) keyPolicy(document string, last *snapshot) (p *policy.Policy, err error) {
	if document == "" {
		return nil, nil
	}
	if p = n.policies[document]; p == nil && last != nil {
		p = last.policies[document]
	}
	if p == nil {
		if p, err = policy.Parse([]byte(document), policy.KeyPolicy); err != nil {
			return nil, err
		}
	}
	n.policies[document] = p
	return p, nil
}

// find returns the key of that name: its UUID or ARN and, unless byKey is set,
// its alias or alias ARN. A key whose time is over is not there any more.
func (n *snapshot) find(keyID string, byKey bool, now time.Time) (*openKey, error) {
	if byKey && isAlias(keyID) {
		return nil, refuse(codeNotFound, "Invalid keyId '%s': an alias is not accepted here", keyID).of(kmsprovider.ErrInvalidInput)
	}
	if k := n.byName[keyID]; k != nil && !k.record.gone(now) {
		return k, nil
	}
	return nil, missingKey(keyID, n.doc.Account)
}
