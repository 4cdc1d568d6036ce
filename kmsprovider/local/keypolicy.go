package local

import (
	"kmsfs/kmsprovider/local/policy"
)

// maxPolicy bounds a policy document, in bytes.
const maxPolicy = 32 << 10

// policyName is the one policy that a key has.
const policyName = "default"

// PutKeyPolicyInput replaces a key's policy.
type PutKeyPolicyInput struct {
	KeyID                          string `json:"KeyId"`
	PolicyName                     string `json:"PolicyName,omitempty"` // default
	Policy                         string `json:"Policy"`
	BypassPolicyLockoutSafetyCheck bool   `json:"BypassPolicyLockoutSafetyCheck,omitempty"`
}

func (in *PutKeyPolicyInput) operation() operation {
	return managing("PutKeyPolicy", in.KeyID, anyState)
}

func (in *PutKeyPolicyInput) check() error {
	if in.Policy == "" {
		return invalid("policy", "Member must have length greater than or equal to 1")
	}
	return firstError(checkPolicyName(in.PolicyName), checkKeyPolicy(in.Policy))
}

func (in *PutKeyPolicyInput) conditions() map[string][]string {
	return map[string][]string{"kms:BypassPolicyLockoutSafetyCheck": {conditionBool(in.BypassPolicyLockoutSafetyCheck)}}
}

func (in *PutKeyPolicyInput) perform(c *call) (any, error) {
	return nil, c.setPolicy(c.keyRecord(), in.Policy, in.BypassPolicyLockoutSafetyCheck)
}

// setPolicy gives r the policy, which was checked; an empty one is the default.
// One under which the caller could not change it again is refused, unless that
// check is bypassed.
func (c *call) setPolicy(r *keyRecord, document string, bypass bool) error {
	r.Policy = document
	if document == "" || bypass {
		return nil
	}
	p, err := policy.Parse([]byte(document), policy.KeyPolicy)
	if err != nil {
		return refuse(codeMalformedPolicy, "%v", err)
	}
	n := need{action: "PutKeyPolicy", key: &openKey{record: r, arn: keyARN(c.account(), r.ID), policy: p}, keyID: r.ID}
	if c.decide(&n) != "" {
		return refuse(codeMalformedPolicy, "The new key policy will not allow you to update the key policy in the future.")
	}
	return nil
}

// GetKeyPolicyInput asks for a key's policy.
type GetKeyPolicyInput struct {
	KeyID      string `json:"KeyId"`
	PolicyName string `json:"PolicyName,omitempty"` // default
}

// GetKeyPolicyOutput is GetKeyPolicy's.
type GetKeyPolicyOutput struct {
	Policy     string `json:"Policy"`
	PolicyName string `json:"PolicyName"`
}

func (in *GetKeyPolicyInput) operation() operation {
	op := onKey("GetKeyPolicy", in.KeyID, anyState)
	op.byKey = true
	return op
}

func (in *GetKeyPolicyInput) check() error { return checkPolicyName(in.PolicyName) }

func (in *GetKeyPolicyInput) perform(c *call) (any, error) {
	document := c.key.record.Policy
	if document == "" {
		document = string(policy.Default(c.account()))
	}
	return &GetKeyPolicyOutput{Policy: document, PolicyName: policyName}, nil
}

// ListKeyPoliciesInput lists the names of a key's policies, of which there is
// one.
type ListKeyPoliciesInput struct {
	KeyID  string `json:"KeyId"`
	Limit  *int   `json:"Limit,omitempty"`
	Marker string `json:"Marker,omitempty"`
}

// ListKeyPoliciesOutput is ListKeyPolicies's.
type ListKeyPoliciesOutput struct {
	PolicyNames []string `json:"PolicyNames"`
	NextMarker  string   `json:"NextMarker,omitempty"`
	Truncated   bool     `json:"Truncated"`
}

func (in *ListKeyPoliciesInput) operation() operation {
	op := onKey("ListKeyPolicies", in.KeyID, anyState)
	op.byKey = true
	return op
}

func (in *ListKeyPoliciesInput) perform(*call) (any, error) {
	some, next, err := page([]string{policyName}, in.Limit, 100, in.Marker, func(s string) string { return s })
	return &ListKeyPoliciesOutput{PolicyNames: some, NextMarker: next, Truncated: next != ""}, err
}

func checkPolicyName(name string) error {
	if name != "" && name != policyName {
		return refuse(codeNotFound, "No such policy exists: a key's policy is named default").of(errBadPolicyName)
	}
	return nil
}
