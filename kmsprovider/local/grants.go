package local

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"kmsfs/kmsprovider"
)

// CreateGrantInput lets a principal do some operations with a key. With a Name,
// the same request a second time makes no second grant.
type CreateGrantInput struct {
	KeyID             string            `json:"KeyId"`
	GranteePrincipal  string            `json:"GranteePrincipal"` // ARN of the root or of a user of this account
	RetiringPrincipal string            `json:"RetiringPrincipal,omitempty"`
	Operations        []string          `json:"Operations"`
	Constraints       *GrantConstraints `json:"Constraints,omitempty"`
	GrantTokens       []string          `json:"GrantTokens,omitempty" audit:"-"`
	Name              string            `json:"Name,omitempty"`
	DryRun            bool              `json:"DryRun,omitempty"`
}

// CreateGrantOutput is CreateGrant's. A grant counts at once, also without its
// token.
type CreateGrantOutput struct {
	GrantToken string `json:"GrantToken" audit:"-"`
	GrantID    string `json:"GrantId"` // 64 hex digits
}

// grantOperations are what a grant on a symmetric key can allow.
var grantOperations = []string{
	"CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair",
	"GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo", "RetireGrant",
}

var grantName = regexp.MustCompile(`^[a-zA-Z0-9:/_-]{1,256}$`)

func (in *CreateGrantInput) operation() operation {
	return operation{name: "CreateGrant", changes: true, needsKey: true, keyID: in.KeyID, byKey: true, states: enabled, tokens: in.GrantTokens, dryRun: in.DryRun}
}

func (in *CreateGrantInput) check() error {
	if len(in.Operations) == 0 {
		return invalid("operations", "Member must have length greater than or equal to 1")
	}
	for _, o := range in.Operations {
		if err := checkEnum("operations", o, grantOperations...); err != nil {
			return err
		}
	}
	if in.Name != "" && !grantName.MatchString(in.Name) {
		return invalid("name", "Member must satisfy regular expression pattern: %s", grantName)
	}
	if in.Constraints != nil {
		return in.Constraints.check()
	}
	return nil
}

func (in *CreateGrantInput) conditions() map[string][]string {
	c := map[string][]string{"kms:GrantOperations": in.Operations, "kms:GranteePrincipal": {in.GranteePrincipal}}
	if in.RetiringPrincipal != "" {
		c["kms:RetiringPrincipal"] = []string{in.RetiringPrincipal}
	}
	if kinds := in.Constraints.kinds(); len(kinds) > 0 {
		c["kms:GrantConstraintType"] = kinds
	}
	return c
}

func (in *CreateGrantInput) perform(c *call) (any, error) {
	if err := firstError(c.checkGrantPrincipal(in.GranteePrincipal), c.checkGrantPrincipal(in.RetiringPrincipal)); err != nil {
		return nil, err
	}
	if in.GranteePrincipal == "" {
		return nil, refuse(codeValidation, "You must specify a grantee principal.")
	}
	g := grantRecord{Name: in.Name, Created: c.now, Grantee: in.GranteePrincipal, Retiring: in.RetiringPrincipal, Operations: in.operations(), Constraints: in.Constraints}
	r := c.keyRecord()
	if i := slices.IndexFunc(r.Grants, g.same); in.Name != "" && i >= 0 {
		out, err := c.grantAnswer(r.Grants[i].ID)
		return out, firstError(err, errUnchanged)
	}
	var err error
	if g.ID, err = c.k.drawHex("grant ID", 32); err != nil {
		return nil, err
	}
	r.Grants = append(r.Grants, g)
	return c.grantAnswer(g.ID)
}

// operations are sorted and each there once.
func (in *CreateGrantInput) operations() []string {
	return slices.Compact(slices.Sorted(slices.Values(in.Operations)))
}

// same tells whether other is the grant that g asks for.
func (g grantRecord) same(other grantRecord) bool {
	return g.Name == other.Name && g.Grantee == other.Grantee && g.Retiring == other.Retiring &&
		slices.Equal(g.Operations, other.Operations) && reflect.DeepEqual(g.Constraints, other.Constraints)
}

func (c *call) grantAnswer(grantID string) (*CreateGrantOutput, error) {
	token, err := c.k.newGrantToken(c.key.id, grantID)
	return &CreateGrantOutput{GrantToken: token, GrantID: grantID}, err
}

// checkGrantPrincipal refuses a name that is set and no principal's here.
func (c *call) checkGrantPrincipal(arn string) error {
	if arn == "" || arn == rootARN(c.account()) || c.state.principals[arn] != nil {
		return nil
	}
	return refuse(codeInvalidArn, "ARN does not refer to a valid principal: %.300s", arn)
}

// RevokeGrantInput ends a grant: for those who manage the key.
type RevokeGrantInput struct {
	KeyID   string `json:"KeyId"`
	GrantID string `json:"GrantId"`
	DryRun  bool   `json:"DryRun,omitempty"`
}

func (in *RevokeGrantInput) operation() operation {
	return operation{name: "RevokeGrant", changes: true, needsKey: true, keyID: in.KeyID, byKey: true, states: anyState, dryRun: in.DryRun}
}

func (in *RevokeGrantInput) perform(c *call) (any, error) { return nil, c.endGrant(in.GrantID) }

// endGrant removes a grant of the call's key.
func (c *call) endGrant(grantID string) error {
	r := c.keyRecord()
	i := slices.IndexFunc(r.Grants, func(g grantRecord) bool { return g.ID == grantID })
	if i < 0 {
		return noGrant(grantID, c.key.arn)
	}
	r.Grants = slices.Delete(r.Grants, i, i+1)
	return nil
}

func noGrant(grantID, arn string) error {
	return refuse(codeNotFound, "Grant ID %.130s not found for key %s", grantID, arn).of(errUnknownGrant)
}

// RetireGrantInput ends a grant: for those who have it. Either GrantToken or
// both KeyId and GrantId name it.
type RetireGrantInput struct {
	GrantToken string `json:"GrantToken,omitempty" audit:"-"`
	KeyID      string `json:"KeyId,omitempty"` // ARN
	GrantID    string `json:"GrantId,omitempty"`
	DryRun     bool   `json:"DryRun,omitempty"`
}

func (in *RetireGrantInput) operation() operation {
	return operation{name: "RetireGrant", changes: true, dryRun: in.DryRun}
}

func (in *RetireGrantInput) check() error {
	if (in.GrantToken == "") == (in.KeyID == "" && in.GrantID == "") || (in.KeyID == "") != (in.GrantID == "") {
		return refuse(codeValidation, "Please specify either a grant token, or both a key ID and a grant ID.")
	}
	return nil
}

// needs finds the grant. The retiring principal and a grantee whose grant says
// so need no permission but that.
func (in *RetireGrantInput) needs(c *call) ([]need, error) {
	key, id, err := in.find(c)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(key.record.Grants, func(g grantRecord) bool { return g.ID == id })
	if i < 0 {
		return nil, noGrant(id, key.arn)
	}
	g := key.record.Grants[i]
	return []need{{action: "RetireGrant", key: key, keyID: in.KeyID, states: anyState, standing: g.Retiring == c.caller.ARN || g.Grantee == c.caller.ARN && slices.Contains(g.Operations, "RetireGrant")}}, nil
}

func (in *RetireGrantInput) find(c *call) (*openKey, string, error) {
	if in.GrantToken == "" {
		key, err := c.state.find(in.KeyID, true, c.now)
		return key, in.GrantID, err
	}
	t, err := parseGrantToken(in.GrantToken)
	if err != nil {
		return nil, "", err
	}
	key := c.state.byID[t.key]
	if key == nil || key.record.gone(c.now) {
		return nil, "", refuse(codeNotFound, "The key of the grant token does not exist")
	}
	return key, t.grantID, nil
}

func (in *RetireGrantInput) perform(c *call) (any, error) {
	_, id, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return nil, c.endGrant(id)
}

// GrantConstraints limit a grant to encryption contexts: those that have all
// pairs of EncryptionContextSubset, or the one that is EncryptionContextEquals.
type GrantConstraints struct {
	EncryptionContextSubset kmsprovider.Context `json:"EncryptionContextSubset,omitempty"`
	EncryptionContextEquals kmsprovider.Context `json:"EncryptionContextEquals,omitempty"`
}

// Limits of one constraint, AWS's.
const (
	maxConstraintPairs = 8
	maxConstraintChars = 384
)

func (g *GrantConstraints) check() error {
	for _, ec := range []kmsprovider.Context{g.EncryptionContextSubset, g.EncryptionContextEquals} {
		size := 0
		for key, value := range ec {
			size += len(key) + len(value)
		}
		if len(ec) > maxConstraintPairs || size > maxConstraintChars {
			return invalid("constraints", "A constraint has up to %d pairs and %d characters", maxConstraintPairs, maxConstraintChars)
		}
		if err := checkContext("constraints", ec); err != nil {
			return err
		}
	}
	return nil
}

// kinds names the constraints that are set. A nil g has none.
func (g *GrantConstraints) kinds() (kinds []string) {
	if g != nil && len(g.EncryptionContextEquals) > 0 {
		kinds = append(kinds, "EncryptionContextEquals")
	}
	if g != nil && len(g.EncryptionContextSubset) > 0 {
		kinds = append(kinds, "EncryptionContextSubset")
	}
	return kinds
}

// allow tells whether ec keeps to g.
func (g *GrantConstraints) allow(ec kmsprovider.Context) bool {
	if g == nil {
		return true
	}
	return includes(ec, g.EncryptionContextSubset) && (len(g.EncryptionContextEquals) == 0 || maps.Equal(ec, g.EncryptionContextEquals))
}

// includes tells whether ec has all pairs of part.
func includes(ec, part kmsprovider.Context) bool {
	for key, value := range part {
		if v, ok := ec[key]; !ok || v != value {
			return false
		}
	}
	return true
}

// within tells whether whoever is held by g is held by outer too.
func (g *GrantConstraints) within(outer *GrantConstraints) bool {
	if len(outer.kinds()) == 0 {
		return true
	}
	if g == nil {
		return false
	}
	tightest := g.EncryptionContextSubset
	if len(g.EncryptionContextEquals) > 0 {
		tightest = g.EncryptionContextEquals
	} else if len(outer.EncryptionContextEquals) > 0 {
		return false
	}
	return outer.allow(tightest)
}

// allows tells whether g, which is the caller's and names the action, lets n
// pass. A constraint holds only where there is an encryption context; whoever
// may create grants by a grant can hand on no more than that allows.
func (g *grantRecord) allows(n *need, in Input) bool {
	if child, ok := in.(*CreateGrantInput); ok {
		for _, o := range child.Operations {
			if !slices.Contains(g.Operations, o) {
				return false
			}
		}
		return child.Constraints.within(g.Constraints)
	}
	return !n.hasEC || g.Constraints.allow(n.ec)
}

func (g *grantRecord) check() error {
	in := CreateGrantInput{Name: g.Name, Operations: g.Operations, Constraints: g.Constraints}
	if !slices.Equal(in.operations(), g.Operations) || !strings.HasPrefix(g.Grantee, "arn:") {
		return errBadGrant
	}
	if _, ok := parseMaterialID(g.ID); !ok { // it has the same form
		return errBadGrant
	}
	return in.check()
}
