package local

import (
	"context"
	"slices"
	"strings"

	"kmsfs/kmsprovider"
)

// aliasNeed is the permission for an action on an alias.
func (c *call) aliasNeed(alias string) need {
	return need{action: c.op.name, resource: aliasARN(c.account(), alias)}
}

// aliasKeyNeed is the permission for an action on an alias's key.
func (c *call) aliasKeyNeed(key *openKey, in states) need {
	return need{action: c.op.name, key: key, states: in, customer: true}
}

// CreateAliasInput makes a name of a key: alias/NAME.
type CreateAliasInput struct {
	AliasName   string `json:"AliasName"`
	TargetKeyID string `json:"TargetKeyId"` // a UUID or an ARN
}

func (in *CreateAliasInput) operation() operation {
	return operation{name: "CreateAlias", changes: true}
}

func (in *CreateAliasInput) check() error { return checkAlias(in.AliasName) }

func (in *CreateAliasInput) needs(c *call) ([]need, error) {
	key, err := c.state.find(in.TargetKeyID, true, c.now)
	return []need{c.aliasKeyNeed(key, notDying), c.aliasNeed(in.AliasName)}, err
}

func (in *CreateAliasInput) perform(c *call) (any, error) {
	if c.doc.findAlias(in.AliasName) >= 0 {
		return nil, refuse(codeAlreadyExists, "An alias with the name %s already exists", aliasARN(c.account(), in.AliasName))
	}
	c.doc.Aliases = append(c.doc.Aliases, aliasRecord{Name: in.AliasName, Target: c.key.record.ID, Created: c.now, Updated: c.now})
	return nil, nil
}

// CreateAlias is CreateAliasInput's operation, as the account's root. An alias
// that exists is ErrAliasExists.
func (k *Keystore) CreateAlias(ctx context.Context, alias, keyID string) error {
	_, err := do[struct{}](ctx, k, &CreateAliasInput{AliasName: alias, TargetKeyID: keyID})
	return err
}

// UpdateAliasInput makes an alias a name of another key.
type UpdateAliasInput struct {
	AliasName   string `json:"AliasName"`
	TargetKeyID string `json:"TargetKeyId"` // a UUID or an ARN
}

func (in *UpdateAliasInput) operation() operation {
	return operation{name: "UpdateAlias", changes: true}
}

func (in *UpdateAliasInput) check() error { return checkAlias(in.AliasName) }

// needs are one on the alias and one on each of its keys, before and after. The
// key that loses the alias may be about to be deleted.
func (in *UpdateAliasInput) needs(c *call) ([]need, error) {
	to, err := c.state.find(in.TargetKeyID, true, c.now)
	if err != nil {
		return nil, err
	}
	from, err := c.aliased(in.AliasName)
	return []need{c.aliasKeyNeed(to, notDying), c.aliasKeyNeed(from, anyState), c.aliasNeed(in.AliasName)}, err
}

func (in *UpdateAliasInput) perform(c *call) (any, error) {
	a := &c.doc.Aliases[c.doc.findAlias(in.AliasName)]
	if a.Target == c.key.record.ID {
		return nil, errUnchanged
	}
	a.Target, a.Updated = c.key.record.ID, c.now
	return nil, nil
}

// DeleteAliasInput takes a name from a key.
type DeleteAliasInput struct {
	AliasName string `json:"AliasName"`
}

func (in *DeleteAliasInput) operation() operation {
	return operation{name: "DeleteAlias", changes: true}
}

func (in *DeleteAliasInput) check() error { return checkAlias(in.AliasName) }

func (in *DeleteAliasInput) needs(c *call) ([]need, error) {
	key, err := c.aliased(in.AliasName)
	return []need{c.aliasKeyNeed(key, anyState), c.aliasNeed(in.AliasName)}, err
}

func (in *DeleteAliasInput) perform(c *call) (any, error) {
	i := c.doc.findAlias(in.AliasName)
	c.doc.Aliases = slices.Delete(c.doc.Aliases, i, i+1)
	return nil, nil
}

// aliased returns the key that has the alias.
func (c *call) aliased(alias string) (*openKey, error) {
	if c.state.byName[alias] == nil {
		return nil, missingKey(alias, c.account())
	}
	return c.state.find(alias, false, c.now)
}

// ListAliasesInput lists all aliases in the order of their creation, or those
// of one key.
type ListAliasesInput struct {
	KeyID  string `json:"KeyId,omitempty"`
	Limit  *int   `json:"Limit,omitempty"` // 1 to 1000; nil: 50
	Marker string `json:"Marker,omitempty"`
}

// ListAliasesOutput is ListAliases's.
type ListAliasesOutput struct {
	Aliases    []Alias `json:"Aliases"`
	NextMarker string  `json:"NextMarker,omitempty"`
	Truncated  bool    `json:"Truncated"`
}

func (in *ListAliasesInput) operation() operation { return operation{name: "ListAliases"} }

func (in *ListAliasesInput) perform(c *call) (any, error) {
	only := ""
	if in.KeyID != "" {
		key, err := c.state.find(in.KeyID, false, c.now)
		if err != nil {
			return nil, err
		}
		only = key.record.ID
	}
	var all []Alias
	for i := range c.state.doc.Aliases {
		if a := &c.state.doc.Aliases[i]; only == "" || a.Target == only {
			all = append(all, a.alias(c.account()))
		}
	}
	some, next, err := page(all, in.Limit, 50, in.Marker, func(a Alias) string { return a.AliasName })
	return &ListAliasesOutput{Aliases: some, NextMarker: next, Truncated: next != ""}, err
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

// checkAlias applies AWS's rules for the name of an alias: alias/ and then
// letters, digits, /, _ and -; alias/aws/ is reserved.
func checkAlias(alias string) error {
	name, found := strings.CutPrefix(alias, aliasPrefix)
	switch {
	case len(alias) > maxAlias:
		return invalid("aliasName", "Member must have length less than or equal to %d", maxAlias)
	case !found || name == "":
		return refuse(codeValidation, "Invalid identifier: '%s' does not start with alias/ and a name", alias)
	case strings.HasPrefix(name, "aws/"):
		return refuse("NotAuthorizedException", "%s is reserved for AWS", alias).of(kmsprovider.ErrInvalidInput)
	case strings.ContainsFunc(name, func(r rune) bool { return !aliasRune(r) }):
		return refuse(codeInvalidAlias, "'%s' has characters other than a-z, A-Z, 0-9, /, _ and -", alias)
	}
	return nil
}

func aliasRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '/' || r == '_' || r == '-'
}
