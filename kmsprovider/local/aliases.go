package local

import (
	"context"
	"slices"
	"strings"
)

// CreateAliasInput makes a name of a key: alias/NAME.
type CreateAliasInput struct {
	AliasName   string `json:"AliasName"`
	TargetKeyID string `json:"TargetKeyId"` // a UUID or an ARN
}

func (in *CreateAliasInput) operation() operation {
	return operation{name: "CreateAlias", changes: true, needsKey: true, key: in.TargetKeyID, noAlias: true, states: enabled | disabled | pendingImport}
}

func (in *CreateAliasInput) perform(c *call) (any, error) {
	if err := checkAlias(in.AliasName); err != nil {
		return nil, err
	}
	if c.doc.findAlias(in.AliasName) >= 0 {
		return nil, refuse(codeAlreadyExists, "An alias with the name %s already exists", aliasARN(c.doc.Account, in.AliasName))
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

// ListAliasesInput lists all aliases in the order of their creation, or those
// of one key.
type ListAliasesInput struct {
	KeyID string `json:"KeyId,omitempty"`
}

// ListAliasesOutput is ListAliases's.
type ListAliasesOutput struct {
	Aliases []Alias `json:"Aliases"`
}

func (in *ListAliasesInput) operation() operation { return operation{name: "ListAliases"} }

func (in *ListAliasesInput) perform(c *call) (any, error) {
	only := ""
	if in.KeyID != "" {
		key, err := c.state.find(in.KeyID, false)
		if err != nil {
			return nil, err
		}
		only = key.record.ID
	}
	out := &ListAliasesOutput{Aliases: make([]Alias, 0, len(c.state.doc.Aliases))}
	for i := range c.state.doc.Aliases {
		if a := &c.state.doc.Aliases[i]; only == "" || a.Target == only {
			out.Aliases = append(out.Aliases, a.alias(c.state.doc.Account))
		}
	}
	return out, nil
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
