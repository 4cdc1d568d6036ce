package local

import (
	"context"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local/policy"
)

// A principal is a user of the keystore's account: who may call through a
// server, with an access key as AWS has them. The operations on principals are
// kmsfs's own, not AWS KMS's, and the account's root alone may call them.

// Sizes in bytes, of AWS's shape.
const (
	secretSize       = 40 // characters of a secret access key: 30 random bytes
	sealedSecretSize = 24 + secretSize + 16
	accessKeySize    = 20 // characters of an access key ID: AKIA and 80 random bits
	maxPrincipalName = 64
)

// PrincipalMetadata is what is known of a principal.
type PrincipalMetadata struct {
	PrincipalName string    `json:"PrincipalName"`
	ARN           string    `json:"Arn"`
	AccessKeyID   string    `json:"AccessKeyId"`
	CreationDate  Timestamp `json:"CreationDate"`
}

func (p *principalRecord) metadata(account string) PrincipalMetadata {
	return PrincipalMetadata{PrincipalName: p.Name, ARN: userARN(account, p.Name), AccessKeyID: p.AccessKeyID, CreationDate: Timestamp{p.Created}}
}

// CreatePrincipalInput makes a principal and its access key.
type CreatePrincipalInput struct {
	PrincipalName string `json:"PrincipalName"` // 1 to 64 letters, digits and +=,.@_-
}

// CreatePrincipalOutput is CreatePrincipal's. Nothing shows the secret again.
type CreatePrincipalOutput struct {
	Principal       PrincipalMetadata `json:"Principal"`
	SecretAccessKey string            `json:"SecretAccessKey" audit:"-"`
}

func (in *CreatePrincipalInput) operation() operation {
	return operation{name: "CreatePrincipal", own: true, changes: true}
}

func (in *CreatePrincipalInput) check() error { return checkPrincipalName(in.PrincipalName) }

func (in *CreatePrincipalInput) perform(c *call) (any, error) {
	if c.doc.findPrincipal(in.PrincipalName) >= 0 {
		return nil, refuse(codeAlreadyExists, "Principal %s already exists", in.PrincipalName).of(errPrincipalExists)
	}
	id, err := c.k.draw("access key ID", 10)
	if err != nil {
		return nil, err
	}
	raw, err := c.k.draw("secret access key", secretSize/4*3)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	secret := []byte(base64.StdEncoding.EncodeToString(raw))
	defer clear(secret)
	p := principalRecord{Name: in.PrincipalName, AccessKeyID: "AKIA" + base32.StdEncoding.EncodeToString(id), Created: c.now}
	if p.Sealed, err = c.k.sealer.materials.Seal(nil, c.k.random, secret, c.k.sealer.secretAAD(c.account(), &p)); err != nil {
		return nil, fmt.Errorf("seal secret access key: %w", err)
	}
	c.doc.Principals = append(c.doc.Principals, p)
	return &CreatePrincipalOutput{Principal: p.metadata(c.account()), SecretAccessKey: string(secret)}, nil
}

// ListPrincipalsInput lists all principals in the order of their creation.
type ListPrincipalsInput struct {
	Limit  *int   `json:"Limit,omitempty"` // 1 to 1000; nil: 100
	Marker string `json:"Marker,omitempty"`
}

// ListPrincipalsOutput is ListPrincipals's.
type ListPrincipalsOutput struct {
	Principals []PrincipalMetadata `json:"Principals"`
	NextMarker string              `json:"NextMarker,omitempty"`
	Truncated  bool                `json:"Truncated"`
}

func (in *ListPrincipalsInput) operation() operation {
	return operation{name: "ListPrincipals", own: true}
}

func (in *ListPrincipalsInput) perform(c *call) (any, error) {
	var all []PrincipalMetadata
	for i := range c.state.doc.Principals {
		all = append(all, c.state.doc.Principals[i].metadata(c.account()))
	}
	some, next, err := page(all, in.Limit, 100, in.Marker, func(p PrincipalMetadata) string { return p.PrincipalName })
	return &ListPrincipalsOutput{Principals: some, NextMarker: next, Truncated: next != ""}, err
}

// DeletePrincipalInput deletes a principal, its access key, its policy and the
// grants to it. Key policies that name it stay as they are: they would apply to
// a new principal of that name.
type DeletePrincipalInput struct {
	PrincipalName string `json:"PrincipalName"`
}

func (in *DeletePrincipalInput) operation() operation {
	return operation{name: "DeletePrincipal", own: true, changes: true}
}

func (in *DeletePrincipalInput) perform(c *call) (any, error) {
	i, err := c.principal(in.PrincipalName)
	if err != nil {
		return nil, err
	}
	c.doc.Principals = slices.Delete(c.doc.Principals, i, i+1)
	arn := userARN(c.account(), in.PrincipalName)
	for i := range c.doc.Keys {
		r := &c.doc.Keys[i]
		r.Grants = slices.DeleteFunc(r.Grants, func(g grantRecord) bool { return g.Grantee == arn })
	}
	return nil, nil
}

// PutPrincipalPolicyInput replaces a principal's policy: what it may do where a
// key's policy leaves that to the account. An empty one is none.
type PutPrincipalPolicyInput struct {
	PrincipalName string `json:"PrincipalName"`
	Policy        string `json:"Policy"`
}

func (in *PutPrincipalPolicyInput) operation() operation {
	return operation{name: "PutPrincipalPolicy", own: true, changes: true}
}

func (in *PutPrincipalPolicyInput) check() error {
	if in.Policy == "" {
		return nil
	}
	if len(in.Policy) > maxPolicy {
		return invalid("policy", "Member must have length less than or equal to %d", maxPolicy)
	}
	if _, err := policy.Parse([]byte(in.Policy), policy.IdentityPolicy); err != nil {
		return refuse(codeMalformedPolicy, "%v", err)
	}
	return nil
}

func (in *PutPrincipalPolicyInput) perform(c *call) (any, error) {
	i, err := c.principal(in.PrincipalName)
	if err != nil {
		return nil, err
	}
	c.doc.Principals[i].Policy = in.Policy
	return nil, nil
}

// GetPrincipalPolicyInput asks for a principal's policy.
type GetPrincipalPolicyInput struct {
	PrincipalName string `json:"PrincipalName"`
}

// GetPrincipalPolicyOutput is GetPrincipalPolicy's.
type GetPrincipalPolicyOutput struct {
	Policy string `json:"Policy"` // empty: none
}

func (in *GetPrincipalPolicyInput) operation() operation {
	return operation{name: "GetPrincipalPolicy", own: true}
}

func (in *GetPrincipalPolicyInput) perform(c *call) (any, error) {
	i, err := c.principal(in.PrincipalName)
	if err != nil {
		return nil, err
	}
	return &GetPrincipalPolicyOutput{c.state.doc.Principals[i].Policy}, nil
}

// principal returns the index of the principal of that name.
func (c *call) principal(name string) (int, error) {
	i := c.state.doc.findPrincipal(name)
	if i < 0 {
		return 0, refuse(codeNotFound, "Principal '%.100s' does not exist", name).of(errUnknownPrincipal)
	}
	return i, nil
}

// Principal returns the caller whose access key ID that is, and a copy of its
// secret access key, which the caller wipes. An unknown ID is
// UnrecognizedClientException.
func (k *Keystore) Principal(ctx context.Context, accessKeyID string) (c Caller, secret []byte, err error) {
	state, err := k.acquire(ctx)
	if err != nil {
		return Caller{}, nil, asError(ctx, err)
	}
	defer k.mu.RUnlock()
	for i := range state.doc.Principals {
		p := &state.doc.Principals[i]
		if p.AccessKeyID != accessKeyID {
			continue
		}
		secret, err := k.sealer.materials.Open(nil, p.Sealed, k.sealer.secretAAD(k.account, p))
		if err != nil {
			return Caller{}, nil, asError(ctx, fmt.Errorf("open secret access key of %s: %w: %w", p.Name, ErrDamaged, err))
		}
		return Caller{ARN: userARN(k.account, p.Name), AccessKeyID: accessKeyID}, secret, nil
	}
	return Caller{}, nil, refuse("UnrecognizedClientException", "The security token included in the request is invalid.").of(errUnknownPrincipal)
}

// secretAAD binds a sealed secret to its keystore, principal and access key.
func (s *sealer) secretAAD(account string, p *principalRecord) []byte {
	return appendStrings(nil, labelSecret, s.keystoreID, userARN(account, p.Name), p.AccessKeyID)
}

func (d *document) findPrincipal(name string) int {
	return slices.IndexFunc(d.Principals, func(p principalRecord) bool { return p.Name == name })
}

func checkPrincipalName(name string) error {
	bad := strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+=,.@_-", r))
	})
	if name == "" || len(name) > maxPrincipalName || bad {
		return refuse(codeValidation, "Principal name '%.100s': want 1 to %d letters, digits and +=,.@_-", name, maxPrincipalName).of(kmsprovider.ErrInvalidInput)
	}
	return nil
}

func validAccessKeyID(s string) bool {
	digits, found := strings.CutPrefix(s, "AKIA")
	_, err := base32.StdEncoding.DecodeString(digits)
	return found && err == nil && len(s) == accessKeySize && !strings.ContainsAny(s, "\r\n")
}

func userARN(account, name string) string { return "arn:aws:iam::" + account + ":user/" + name }
