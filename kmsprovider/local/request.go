package local

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kmsfs/kmsprovider/local/policy"
)

// request is what policies decide on: the condition keys that AWS documents
// for KMS and that have a meaning here. kms:ViaService, kms:GrantIsForAWSResource
// and the like never have a value: no AWS service calls this KMS.
func (c *call) request(n *need) policy.Request {
	account := c.account()
	ctx := map[string][]string{
		"aws:PrincipalArn":     {c.caller.ARN},
		"aws:PrincipalAccount": {account},
		"aws:PrincipalType":    {"User"},
		"aws:CurrentTime":      {c.now.Format(time.RFC3339)},
		"aws:EpochTime":        {strconv.FormatInt(c.now.Unix(), 10)},
		"kms:CallerAccount":    {account},
	}
	put := func(key, value string) {
		if value != "" {
			ctx[key] = []string{value}
		}
	}
	if c.caller.SourceIP != "" { // it came over a network, in plaintext
		put("aws:SourceIp", c.caller.SourceIP)
		put("aws:SecureTransport", "false")
	}
	put("aws:UserAgent", c.caller.UserAgent)
	if name, ok := strings.CutPrefix(c.caller.ARN, userARN(account, "")); ok {
		put("aws:username", name)
	}
	if c.isRoot() {
		ctx["aws:PrincipalType"] = []string{"Account"}
	}
	if in, ok := c.in.(conditioner); ok {
		maps.Copy(ctx, in.conditions())
	}
	r := policy.Request{Principal: c.caller.ARN, Account: account, Action: "kms:" + n.action, Resource: n.resource, Context: ctx}
	if n.key != nil {
		r.Resource = n.key.arn
		c.describeKey(n, ctx)
	}
	if n.hasEC {
		ctx["kms:EncryptionAlgorithm"] = []string{algorithm}
		for key, value := range n.ec {
			ctx["kms:EncryptionContext:"+key] = []string{value}
		}
		if len(n.ec) > 0 {
			ctx["kms:EncryptionContextKeys"] = slices.Sorted(maps.Keys(n.ec))
		}
	}
	return r
}

// describeKey adds the condition keys that say what key it is.
func (c *call) describeKey(n *need, ctx map[string][]string) {
	r := n.key.record
	ctx["kms:KeyOrigin"] = []string{r.Origin}
	ctx["kms:KeySpec"] = []string{keySpec}
	ctx["kms:KeyUsage"] = []string{keyUsage}
	ctx["kms:MultiRegion"] = []string{"false"}
	for _, t := range r.Tags {
		ctx["aws:ResourceTag/"+t.TagKey] = []string{t.TagValue}
	}
	if isAlias(n.keyID) {
		ctx["kms:RequestAlias"] = []string{n.keyID[strings.Index(n.keyID, aliasPrefix):]}
	}
	for _, a := range c.state.doc.Aliases {
		if a.Target == r.ID {
			ctx["kms:ResourceAliases"] = append(ctx["kms:ResourceAliases"], a.Name)
		}
	}
}
