package local

import (
	"context"
	"slices"
	"unicode/utf8"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local/policy"
)

// CreateKeyInput says what key to create: a symmetric encryption key in this
// one place, of which other kinds are refused.
type CreateKeyInput struct {
	Policy                         string `json:"Policy,omitempty"`      // empty: the account's root everything
	Description                    string `json:"Description,omitempty"` // at most 8192 bytes
	KeyUsage                       string `json:"KeyUsage,omitempty"`
	CustomerMasterKeySpec          string `json:"CustomerMasterKeySpec,omitempty"`
	KeySpec                        string `json:"KeySpec,omitempty"`
	Origin                         string `json:"Origin,omitempty"` // AWS_KMS or EXTERNAL
	CustomKeyStoreID               string `json:"CustomKeyStoreId,omitempty"`
	BypassPolicyLockoutSafetyCheck bool   `json:"BypassPolicyLockoutSafetyCheck,omitempty"`
	Tags                           []Tag  `json:"Tags,omitempty"`
	MultiRegion                    bool   `json:"MultiRegion,omitempty"`
}

// CreateKeyOutput is CreateKey's.
type CreateKeyOutput struct {
	KeyMetadata KeyMetadata `json:"KeyMetadata"`
}

func (in *CreateKeyInput) operation() operation { return operation{name: "CreateKey", changes: true} }

func (in *CreateKeyInput) check() error {
	only := func(what, value string, allowed ...string) error {
		if value == "" || slices.Contains(allowed, value) {
			return nil
		}
		return refuse(codeUnsupported, "%s %s is not supported, only %s is.", what, value, allowed[0])
	}
	switch {
	case in.MultiRegion:
		return refuse(codeUnsupported, "Multi-Region keys are not supported: this KMS is in one place.")
	case in.CustomKeyStoreID != "":
		return refuse(codeUnsupported, "Custom key stores are not supported.")
	}
	return firstError(
		only("KeyUsage", in.KeyUsage, keyUsage),
		only("KeySpec", in.KeySpec, keySpec),
		only("CustomerMasterKeySpec", in.CustomerMasterKeySpec, keySpec),
		only("Origin", in.Origin, originKMS, originExternal),
		checkDescription(in.Description),
		checkTags(in.Tags, false),
		checkKeyPolicy(in.Policy),
	)
}

// needs are kms:CreateKey and, for a key with tags, kms:TagResource, both on
// keys that are not there yet.
func (in *CreateKeyInput) needs(*call) ([]need, error) {
	all := []need{{action: "CreateKey", resource: "*"}}
	if len(in.Tags) > 0 {
		all = append(all, need{action: "TagResource", resource: "*"})
	}
	return all, nil
}

func (in *CreateKeyInput) conditions() map[string][]string {
	c := tagConditions(in.Tags)
	c["kms:KeySpec"], c["kms:KeyUsage"], c["kms:MultiRegion"] = []string{keySpec}, []string{keyUsage}, []string{"false"}
	c["kms:KeyOrigin"] = []string{in.origin()}
	c["kms:BypassPolicyLockoutSafetyCheck"] = []string{conditionBool(in.BypassPolicyLockoutSafetyCheck)}
	return c
}

func (in *CreateKeyInput) origin() string {
	if in.Origin == "" {
		return originKMS
	}
	return in.Origin
}

func (in *CreateKeyInput) perform(c *call) (any, error) {
	r, err := c.k.newKey(c.doc, kmsprovider.ManagerCustomer, in.origin())
	if err != nil {
		return nil, err
	}
	r.Created, r.Description, r.Tags = c.now, in.Description, in.Tags
	if err := c.setPolicy(&r, in.Policy, in.BypassPolicyLockoutSafetyCheck); err != nil {
		return nil, err
	}
	c.doc.Keys = append(c.doc.Keys, r)
	return &CreateKeyOutput{r.metadata(c.account(), c.now)}, nil
}

// CreateKey is CreateKeyInput's operation, as the account's root. When it
// returns the key is durable.
func (k *Keystore) CreateKey(ctx context.Context, in CreateKeyInput) (KeyMetadata, error) {
	out, err := do[CreateKeyOutput](ctx, k, &in)
	if err != nil {
		return KeyMetadata{}, err
	}
	return out.KeyMetadata, nil
}

// newKey draws a key for d; it is not added yet.
func (k *Keystore) newKey(d *document, manager, origin string) (keyRecord, error) {
	id, err := newKeyUUID(k.random)
	if err != nil {
		return keyRecord{}, err
	}
	r := keyRecord{ID: id.String(), Created: k.timestamp(), Manager: manager, Origin: origin, State: kmsprovider.StatePendingImport, Materials: []materialRecord{}}
	if origin == originExternal {
		return r, nil
	}
	r.State = kmsprovider.StateEnabled
	return r, k.addMaterial(d, &r, materialRecord{Created: r.Created})
}

// EnsureDefaultKeyInput makes DefaultAlias and its key if there is no such
// alias. The key is managed by kmsfs: it rotates every year, and cannot be
// changed, disabled or deleted. It is an operation of kmsfs's own.
type EnsureDefaultKeyInput struct{}

// EnsureDefaultKeyOutput is EnsureDefaultKey's.
type EnsureDefaultKeyOutput struct {
	KeyID string `json:"KeyId"` // ARN
}

func (in *EnsureDefaultKeyInput) operation() operation {
	return operation{name: "EnsureDefaultKey", own: true, changes: true}
}

func (in *EnsureDefaultKeyInput) perform(c *call) (any, error) {
	if i := c.doc.findAlias(DefaultAlias); i >= 0 {
		return &EnsureDefaultKeyOutput{keyARN(c.account(), c.doc.Aliases[i].Target)}, errUnchanged
	}
	r, err := c.k.newKey(c.doc, kmsprovider.ManagerService, originKMS)
	if err != nil {
		return nil, err
	}
	r.Description = "default key of kmsfs"
	r.Rotation = r.rotation()
	c.doc.Keys = append(c.doc.Keys, r)
	c.doc.Aliases = append(c.doc.Aliases, aliasRecord{Name: DefaultAlias, Target: r.ID, Created: r.Created, Updated: r.Created})
	return &EnsureDefaultKeyOutput{keyARN(c.account(), r.ID)}, nil
}

// EnsureDefaultKey returns the ARN of the key that DefaultAlias names, and
// makes both if there is no such alias: of several processes that do so at the
// same time one makes them.
func (k *Keystore) EnsureDefaultKey(ctx context.Context) (arn string, err error) {
	state, err := k.acquire(ctx)
	if err != nil {
		return "", asError(ctx, err)
	}
	existing := state.byName[DefaultAlias]
	k.mu.RUnlock()
	if existing != nil {
		return existing.arn, nil
	}
	out, err := do[EnsureDefaultKeyOutput](ctx, k, &EnsureDefaultKeyInput{})
	if err != nil {
		return "", err
	}
	return out.KeyID, nil
}

// ListKeysInput lists all keys in the order of their creation.
type ListKeysInput struct {
	Limit  *int   `json:"Limit,omitempty"` // 1 to 1000; nil: 100
	Marker string `json:"Marker,omitempty"`
}

// ListKeysOutput is ListKeys's.
type ListKeysOutput struct {
	Keys       []KeyListEntry `json:"Keys"`
	NextMarker string         `json:"NextMarker,omitempty"`
	Truncated  bool           `json:"Truncated"`
}

// KeyListEntry is a key in a list.
type KeyListEntry struct {
	KeyID  string `json:"KeyId"` // a UUID
	KeyARN string `json:"KeyArn"`
}

func (in *ListKeysInput) operation() operation { return operation{name: "ListKeys"} }

func (in *ListKeysInput) perform(c *call) (any, error) {
	all := make([]KeyListEntry, 0, len(c.state.doc.Keys))
	for i := range c.state.doc.Keys {
		if r := &c.state.doc.Keys[i]; !r.gone(c.now) {
			all = append(all, KeyListEntry{KeyID: r.ID, KeyARN: keyARN(c.account(), r.ID)})
		}
	}
	some, next, err := page(all, in.Limit, 100, in.Marker, func(e KeyListEntry) string { return e.KeyID })
	return &ListKeysOutput{Keys: some, NextMarker: next, Truncated: next != ""}, err
}

// DescribeKeyInput asks what is known of a key, in any state.
type DescribeKeyInput struct {
	KeyID       string   `json:"KeyId"`
	GrantTokens []string `json:"GrantTokens,omitempty" audit:"-"`
}

// DescribeKeyOutput is DescribeKey's.
type DescribeKeyOutput struct {
	KeyMetadata KeyMetadata `json:"KeyMetadata"`
}

func (in *DescribeKeyInput) operation() operation {
	op := onKey("DescribeKey", in.KeyID, anyState)
	op.tokens = in.GrantTokens
	return op
}

func (in *DescribeKeyInput) perform(c *call) (any, error) {
	return &DescribeKeyOutput{c.key.record.metadata(c.account(), c.now)}, nil
}

// UpdateKeyDescriptionInput changes a key's description.
type UpdateKeyDescriptionInput struct {
	KeyID       string `json:"KeyId"`
	Description string `json:"Description"`
}

func (in *UpdateKeyDescriptionInput) operation() operation {
	return managing("UpdateKeyDescription", in.KeyID, notDying)
}

func (in *UpdateKeyDescriptionInput) check() error { return checkDescription(in.Description) }

func (in *UpdateKeyDescriptionInput) perform(c *call) (any, error) {
	c.keyRecord().Description = in.Description
	return nil, nil
}

func checkDescription(s string) error {
	if len(s) > maxDescription || !utf8.ValidString(s) {
		return invalid("description", "Member must have length less than or equal to %d and be UTF-8", maxDescription)
	}
	return nil
}

func checkKeyPolicy(document string) error {
	if document == "" {
		return nil
	}
	if len(document) > maxPolicy {
		return invalid("policy", "Member must have length less than or equal to %d", maxPolicy)
	}
	if _, err := policy.Parse([]byte(document), policy.KeyPolicy); err != nil {
		return refuse(codeMalformedPolicy, "%v", err)
	}
	return nil
}

// firstError is the first of errs that is none of nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// key returns the record of the key with that UUID, which is there.
func (d *document) key(uuid string) *keyRecord {
	return &d.Keys[slices.IndexFunc(d.Keys, func(r keyRecord) bool { return r.ID == uuid })]
}
