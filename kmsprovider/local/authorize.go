package local

import (
	"slices"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local/policy"
)

// need is one permission that a call needs: an action on a key, an alias or
// on nothing in particular.
type need struct {
	action   string   // without kms:
	key      *openKey // nil: resource says what it is about
	resource string   // of a need without a key: an ARN or *
	keyID    string   // the key as the caller named it
	states   states
	origin   string
	customer bool
	ec       kmsprovider.Context
	hasEC    bool
	standing bool // granted by what the caller is, see RetireGrant
}

// authorize decides whether the caller may, and then whether the state of the
// keys allows it. The order is AWS's: who may not call does not learn a state.
func (c *call) authorize() error {
	if c.op.own && !c.isRoot() {
		return refuse(codeAccessDenied, "User: %s is not authorized to perform: kmsfs:%s, which only the account's root may", c.caller.ARN, c.op.name)
	}
	if err := c.checkTokens(); err != nil {
		return err
	}
	if err := c.findNeeds(); err != nil {
		return err
	}
	for i := range c.needs {
		if err := c.permit(&c.needs[i]); err != nil {
			return err
		}
	}
	for i := range c.needs {
		if err := c.needs[i].checkKey(c); err != nil {
			return err
		}
	}
	return nil
}

// findNeeds sets c.needs and c.key.
func (c *call) findNeeds() (err error) {
	switch in := c.in.(type) {
	case needer:
		c.needs, err = in.needs(c)
	default:
		n := need{action: c.op.name, resource: "*", keyID: c.op.keyID, states: c.op.states, origin: c.op.origin,
			customer: c.op.customer, ec: c.op.ec, hasEC: c.op.hasEC}
		if c.op.needsKey {
			n.key, err = c.state.find(c.op.keyID, c.op.byKey, c.now)
		}
		c.needs = []need{n}
	}
	if err == nil && len(c.needs) > 0 {
		c.key = c.needs[0].key
	}
	return err
}

func (c *call) isRoot() bool { return c.caller.ARN == rootARN(c.k.account) }

// permit returns AccessDeniedException unless the caller may do n.
func (c *call) permit(n *need) error {
	if c.op.own {
		return nil
	}
	if c.isRoot() && (n.key == nil || n.key.policy == nil) {
		return nil // what policy.Default says
	}
	why := c.decide(n)
	if why == "" || n.key != nil && why != explicitDeny && (n.standing || c.granted(n)) {
		return nil
	}
	resource := n.resource
	if n.key != nil {
		resource = n.key.arn
	}
	return refuse(codeAccessDenied, "User: %s is not authorized to perform: kms:%s on resource: %s %s", c.caller.ARN, n.action, resource, why)
}

// Why a caller may not.
const (
	explicitDeny  = "with an explicit deny"
	noKeyPolicy   = "because no resource-based policy allows the action"
	noIdentity    = "because no identity-based policy allows the action"
	noKeyStanding = "because the principal does not exist"
)

// decide returns why policies do not let the caller do n, or "" if they do.
func (c *call) decide(n *need) string {
	r := c.request(n)
	p := c.state.principals[c.caller.ARN]
	if p == nil && !c.isRoot() {
		return noKeyStanding
	}
	identity := policy.None
	if p != nil && p.policy != nil {
		identity = p.policy.Decide(r)
	}
	if n.key == nil {
		return verdict(identity == policy.Allow, identity == policy.Deny, noIdentity)
	}
	keyPolicy := n.key.policy
	if keyPolicy == nil {
		keyPolicy = c.state.defaultPolicy
	}
	resource := keyPolicy.Decide(r)
	if resource == policy.Deny || identity == policy.Deny {
		return explicitDeny
	}
	if resource == policy.Allow {
		return ""
	}
	if c.isRoot() || !keyPolicy.Delegates(c.k.account, r) {
		return noKeyPolicy
	}
	return verdict(identity == policy.Allow, false, noIdentity)
}

func verdict(allow, deny bool, otherwise string) string {
	switch {
	case deny:
		return explicitDeny
	case allow:
		return ""
	}
	return otherwise
}

// checkKey refuses unless the key's kind and state allow what n needs.
func (n *need) checkKey(c *call) error {
	if n.key == nil {
		return nil
	}
	if n.customer && n.key.record.Manager == kmsprovider.ManagerService {
		return refuse(codeAccessDenied, "%s is managed by kmsfs, which rotates it every year: it cannot be changed, disabled or deleted. Create a key of your own for that.", n.key.arn)
	}
	if n.origin != "" && n.key.record.Origin != n.origin {
		return refuse(codeUnsupported, "%s origin is %s which is not valid for this operation.", n.key.arn, n.key.record.Origin)
	}
	return n.key.mustBe(n.states, c)
}

// mustBe refuses unless the key is in one of the states.
func (k *openKey) mustBe(allowed states, c *call) error {
	state := k.record.state(c.now)
	switch {
	case allowed&stateSet[state] != 0:
		return nil
	case allowed == pendingDeletion:
		return refuse(codeInvalidState, "%s is not pending deletion.", k.arn)
	case state == kmsprovider.StateDisabled:
		return refuse(codeDisabled, "%s is disabled.", k.arn)
	case state == kmsprovider.StatePendingDeletion:
		return refuse(codeInvalidState, "%s is pending deletion.", k.arn)
	case state == kmsprovider.StatePendingImport:
		return refuse(codeInvalidState, "%s is pending import.", k.arn)
	}
	return refuse(codeInvalidState, "%s is %s, which is not valid for this operation.", k.arn, state)
}

var stateSet = map[string]states{
	kmsprovider.StateEnabled:         enabled,
	kmsprovider.StateDisabled:        disabled,
	kmsprovider.StatePendingDeletion: pendingDeletion,
	kmsprovider.StatePendingImport:   pendingImport,
}

// granted tells whether a grant on the key lets the caller do n.
func (c *call) granted(n *need) bool {
	return slices.ContainsFunc(n.key.record.Grants, func(g grantRecord) bool {
		return g.Grantee == c.caller.ARN && slices.Contains(g.Operations, n.action) && g.allows(n, c.in)
	})
}
