package policy

import (
	"encoding/json"
	"slices"
	"strings"
)

// principals is a Principal or NotPrincipal element.
type principals struct {
	given    bool // false in identity policies: everybody
	not      bool
	everyone bool
	arns     []string // of users, roles and sessions
	accounts []string // IDs: an account as a whole
}

func parsePrincipals(path string, raw json.RawMessage, not bool) (principals, error) {
	p := principals{given: true, not: not}
	if s, err := text(path, raw); err == nil {
		if s != "*" {
			return p, malformed(path, `%s is neither "*" nor an object such as {"AWS": "…"}`, quote(s))
		}
		p.everyone = true
		return p, p.check(path)
	}
	list, err := members(path, raw)
	if err != nil {
		return p, err
	}
	if len(list) == 0 {
		return p, malformed(path, "names nobody")
	}
	for _, m := range list {
		inner := path + "." + m.name
		names, err := texts(inner, m.value)
		if err != nil {
			return p, err
		}
		switch m.name {
		case "AWS":
			for _, name := range names {
				if err := p.add(inner, name); err != nil {
					return p, err
				}
			}
		case "Service":
			for _, name := range names {
				if !strings.Contains(name, ".") || strings.ContainsAny(name, "*?:/ ") {
					return p, malformed(inner, "%s is no name of a service, such as logs.amazonaws.com", quote(name))
				}
			}
		case "Federated", "CanonicalUser":
			return p, malformed(path, "principals of type %s are not supported, only AWS and Service are", m.name)
		default:
			return p, malformed(path, "unknown type of principal %s", quote(m.name))
		}
	}
	return p, p.check(path)
}

func (p *principals) check(path string) error {
	if p.not && p.everyone {
		return malformed(path, "with * it excludes everybody")
	}
	return nil
}

// add reads one principal of type AWS.
func (p *principals) add(path, name string) error {
	switch {
	case name == "*":
		p.everyone = true
		return nil
	case isAccount(name):
		p.accounts = append(p.accounts, name)
		return nil
	}
	parts := strings.SplitN(name, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || !isPartition(parts[1]) || parts[3] != "" || !isAccount(parts[4]) || strings.ContainsAny(name, "*?") {
		return malformed(path, "%s is no account, ARN or *; * stands alone only", quote(name))
	}
	kind, rest, _ := strings.Cut(parts[5], "/")
	switch {
	case parts[2] == "iam" && parts[5] == "root":
		p.accounts = append(p.accounts, parts[4])
		return nil
	case parts[2] == "iam" && (kind == "user" || kind == "role") && rest != "",
		parts[2] == "sts" && (kind == "assumed-role" || kind == "federated-user") && rest != "":
		p.arns = append(p.arns, name)
		return nil
	}
	return malformed(path, "%s is not the ARN of an account's root, a user, a role or a session", quote(name))
}

// match tells whether a statement is about the principal of r. Whoever asks is
// both themselves and part of their account; to allow something to the account
// does not allow it to its users, but to deny it to the account does.
func (p *principals) match(r *Request, allow bool) bool {
	if !p.given || p.everyone {
		return true
	}
	isRoot := r.Principal != "" && r.Principal == rootARN(r.Principal, r.Account)
	self := slices.Contains(p.arns, r.Principal)
	account := slices.Contains(p.accounts, r.Account)
	switch {
	case p.not && isRoot:
		return !account
	case p.not: // excluded only if both are
		return !(self && account)
	case allow:
		return self || isRoot && account
	}
	return self || account
}

// nameAccount tells whether the account itself is named.
func (p *principals) nameAccount(account string) bool {
	return p.given && !p.not && slices.Contains(p.accounts, account)
}

// rootARN is the ARN of an account's root in the partition of principal.
func rootARN(principal, account string) string {
	parts := strings.SplitN(principal, ":", 3)
	if len(parts) != 3 {
		return ""
	}
	return "arn:" + parts[1] + ":iam::" + account + ":root"
}

// userName returns NAME of arn:aws:iam::ACCOUNT:user/PATH/NAME.
func userName(principal string) (string, bool) {
	parts := strings.SplitN(principal, ":", 6)
	if len(parts) != 6 || parts[2] != "iam" || !strings.HasPrefix(parts[5], "user/") {
		return "", false
	}
	name := parts[5][strings.LastIndexByte(parts[5], '/')+1:]
	return name, name != ""
}

func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

func isPartition(s string) bool {
	return s == "aws" || strings.HasPrefix(s, "aws-")
}
