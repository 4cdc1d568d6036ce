package policy

import (
	"slices"
	"strings"
)

// Kind is what a document is attached to.
type Kind int

const (
	// KeyPolicy is attached to a key; its statements name principals.
	KeyPolicy Kind = iota
	// IdentityPolicy is attached to a principal; its statements name none.
	IdentityPolicy
)

// Policy is a document that was read. It never changes.
type Policy struct {
	statements []statement
}

// statement is one rule. Of principals the zero value matches everybody.
type statement struct {
	allow      bool
	principals principals
	actions    actions
	resources  resources
	conditions []condition
}

// Request is what is to be decided.
type Request struct {
	Principal string // ARN of who asks
	Account   string // the 12 digits of their account
	Action    string // kms:Decrypt
	Resource  string // ARN of the key
	// Context has the values of condition keys: "kms:EncryptionContext:purpose",
	// "aws:SourceIp". Of aws:PrincipalArn, aws:PrincipalAccount,
	// aws:PrincipalType, aws:username and kms:CallerAccount, those that are not
	// there follow from Principal and Account.
	Context map[string][]string
}

// Decision is what one policy says.
type Decision int

const (
	// None: nothing in the policy applies, so others decide.
	None Decision = iota
	// Allow: allowed, unless another policy denies it.
	Allow
	// Deny: denied, whatever else allows it.
	Deny
)

// String returns "none", "allow" or "deny".
func (d Decision) String() string {
	return [...]string{"none", "allow", "deny"}[d]
}

// Decide says what p says about r.
func (p *Policy) Decide(r Request) Decision {
	d := None
	for i := range p.statements {
		s := &p.statements[i]
		if d == Allow && s.allow {
			continue
		}
		if !s.principals.match(&r, s.allow) || !s.applies(&r) {
			continue
		}
		if !s.allow {
			return Deny
		}
		d = Allow
	}
	return d
}

// Delegates tells whether the key policy p lets the identity policies of the
// account decide r: whether it allows r to the account as a whole. A Deny is
// Decide's business.
func (p *Policy) Delegates(account string, r Request) bool {
	return slices.ContainsFunc(p.statements, func(s statement) bool {
		return s.allow && s.principals.nameAccount(account) && s.applies(&r)
	})
}

// applies tells whether everything but the principal matches.
func (s *statement) applies(r *Request) bool {
	if !s.actions.match(r.Action) || !s.resources.match(r) {
		return false
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(r) {
			return false
		}
	}
	return true
}

// values returns the request's values of a condition key; none if it has not
// the key.
func (r *Request) values(key string) []string {
	var names []string
	for name := range r.Context {
		if strings.EqualFold(name, key) {
			names = append(names, name)
		}
	}
	if len(names) == 1 {
		return r.Context[names[0]]
	}
	if len(names) > 1 {
		slices.Sort(names)
		var all []string
		for _, name := range names {
			all = append(all, r.Context[name]...)
		}
		return all
	}
	switch strings.ToLower(key) {
	case "aws:principalarn":
		return present(r.Principal)
	case "aws:principalaccount", "kms:calleraccount":
		return present(r.Account)
	case "aws:principaltype":
		if _, ok := userName(r.Principal); ok {
			return []string{"User"}
		}
		if r.Principal != "" && r.Principal == rootARN(r.Principal, r.Account) {
			return []string{"Account"}
		}
	case "aws:username":
		if name, ok := userName(r.Principal); ok {
			return []string{name}
		}
	}
	return nil
}

func present(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}
