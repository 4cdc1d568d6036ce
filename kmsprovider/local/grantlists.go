package local

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
)

// GrantListEntry is a grant in a list.
type GrantListEntry struct {
	KeyID             string            `json:"KeyId"` // ARN
	GrantID           string            `json:"GrantId"`
	Name              string            `json:"Name,omitempty"`
	CreationDate      Timestamp         `json:"CreationDate"`
	GranteePrincipal  string            `json:"GranteePrincipal"`
	RetiringPrincipal string            `json:"RetiringPrincipal,omitempty"`
	IssuingAccount    string            `json:"IssuingAccount"` // ARN of the root
	Operations        []string          `json:"Operations"`
	Constraints       *GrantConstraints `json:"Constraints,omitempty"`
}

func (g *grantRecord) entry(account, arn string) GrantListEntry {
	return GrantListEntry{
		KeyID: arn, GrantID: g.ID, Name: g.Name, CreationDate: Timestamp{g.Created}, GranteePrincipal: g.Grantee,
		RetiringPrincipal: g.Retiring, IssuingAccount: rootARN(account), Operations: g.Operations, Constraints: g.Constraints,
	}
}

// ListGrantsInput lists a key's grants, the oldest first.
type ListGrantsInput struct {
	KeyID            string `json:"KeyId"`
	GrantID          string `json:"GrantId,omitempty"`          // this one alone
	GranteePrincipal string `json:"GranteePrincipal,omitempty"` // those to this one alone
	Limit            *int   `json:"Limit,omitempty"`            // 1 to 1000; nil: 50
	Marker           string `json:"Marker,omitempty"`
}

// ListGrantsOutput is that of ListGrants and of ListRetirableGrants.
type ListGrantsOutput struct {
	Grants     []GrantListEntry `json:"Grants"`
	NextMarker string           `json:"NextMarker,omitempty"`
	Truncated  bool             `json:"Truncated"`
}

func (in *ListGrantsInput) operation() operation {
	op := onKey("ListGrants", in.KeyID, anyState)
	op.byKey = true
	return op
}

func (in *ListGrantsInput) perform(c *call) (any, error) {
	return c.listGrants([]keyRecord{*c.key.record}, in.Limit, in.Marker, func(g *grantRecord) bool {
		return (in.GrantID == "" || g.ID == in.GrantID) && (in.GranteePrincipal == "" || g.Grantee == in.GranteePrincipal)
	})
}

// ListRetirableGrantsInput lists the grants of all keys that a principal can
// retire as their retiring principal.
type ListRetirableGrantsInput struct {
	RetiringPrincipal string `json:"RetiringPrincipal"`
	Limit             *int   `json:"Limit,omitempty"` // 1 to 1000; nil: 50
	Marker            string `json:"Marker,omitempty"`
}

func (in *ListRetirableGrantsInput) operation() operation {
	return operation{name: "ListRetirableGrants"}
}

func (in *ListRetirableGrantsInput) check() error {
	if in.RetiringPrincipal == "" {
		return invalid("retiringPrincipal", "Member must have length greater than or equal to 1")
	}
	return nil
}

func (in *ListRetirableGrantsInput) perform(c *call) (any, error) {
	if err := c.checkGrantPrincipal(in.RetiringPrincipal); err != nil {
		return nil, err
	}
	return c.listGrants(c.state.doc.Keys, in.Limit, in.Marker, func(g *grantRecord) bool { return g.Retiring == in.RetiringPrincipal })
}

func (c *call) listGrants(keys []keyRecord, limit *int, marker string, want func(*grantRecord) bool) (*ListGrantsOutput, error) {
	var all []GrantListEntry
	for _, r := range keys {
		for i := range r.Grants {
			if want(&r.Grants[i]) && !r.gone(c.now) {
				all = append(all, r.Grants[i].entry(c.account(), keyARN(c.account(), r.ID)))
			}
		}
	}
	some, next, err := page(all, limit, 50, marker, func(g GrantListEntry) string { return g.GrantID })
	return &ListGrantsOutput{Grants: some, NextMarker: next, Truncated: next != ""}, err
}

// A grant token is base64 of: version 1, UUID of the key (16), grant ID (32),
// 16 random bytes that make it one of its own. It opens nothing by itself: a
// grant counts for its grantee without it.
const (
	grantTokenVersion = 1
	grantTokenSize    = 1 + 16 + 32 + 16
	maxGrantTokens    = 10
)

type grantToken struct {
	key     keyUUID
	grantID string
}

func (k *Keystore) newGrantToken(key keyUUID, grantID string) (string, error) {
	random, err := k.draw("grant token", 16)
	if err != nil {
		return "", err
	}
	id, err := hex.DecodeString(grantID)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(slices.Concat([]byte{grantTokenVersion}, key[:], id, random)), nil
}

func parseGrantToken(s string) (grantToken, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != grantTokenSize || b[0] != grantTokenVersion {
		return grantToken{}, refuse("InvalidGrantTokenException", "The grant token is not valid.").of(errBadToken)
	}
	return grantToken{key: keyUUID(b[1:17]), grantID: hex.EncodeToString(b[17:49])}, nil
}

// checkTokens refuses GrantTokens that are none.
func (c *call) checkTokens() error {
	if len(c.op.tokens) > maxGrantTokens {
		return invalid("grantTokens", "Member must have length less than or equal to %d", maxGrantTokens)
	}
	for _, t := range c.op.tokens {
		if _, err := parseGrantToken(t); err != nil {
			return err
		}
	}
	return nil
}
