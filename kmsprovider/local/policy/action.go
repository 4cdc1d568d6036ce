package policy

import (
	"encoding/json"
	"slices"
	"strings"
)

// actions is an Action or NotAction element. Case does not matter.
type actions struct {
	not      bool
	patterns []pattern // in lower case
}

func parseActions(path string, raw json.RawMessage, not bool) (actions, error) {
	list, err := texts(path, raw)
	if err != nil {
		return actions{}, err
	}
	a := actions{not: not}
	for _, s := range list {
		service, name, found := strings.Cut(s, ":")
		if s != "*" && (!found || !only(service, "-") || !only(name, "*?")) {
			return a, malformed(path, "%s is no action: want * or SERVICE:NAME, such as kms:Decrypt or kms:Re*", quote(s))
		}
		p, err := parsePattern(path, strings.ToLower(s), wildcards)
		if err != nil {
			return a, err
		}
		a.patterns = append(a.patterns, p)
	}
	return a, nil
}

// only tells whether s has letters, digits and the extra characters, at least
// one.
func only(s, extra string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(extra, c))
	})
}

func (a *actions) match(action string) bool {
	action = strings.ToLower(action)
	return a.not != slices.ContainsFunc(a.patterns, func(p pattern) bool {
		glob, ok := p.expand(nil)
		return ok && matchGlob(glob, []rune(action))
	})
}

// resources is a Resource or NotResource element.
type resources struct {
	not      bool
	patterns []pattern
}

func parseResources(path string, raw json.RawMessage, not, variables bool) (resources, error) {
	list, err := texts(path, raw)
	if err != nil {
		return resources{}, err
	}
	rs := resources{not: not}
	for _, s := range list {
		if s != "*" && !resourceShape(s) {
			return rs, malformed(path, "%s is neither * nor an ARN", quote(s))
		}
		p, err := parsePattern(path, s, wildcards|variablesIf(variables))
		if err != nil {
			return rs, err
		}
		rs.patterns = append(rs.patterns, p)
	}
	return rs, nil
}

// resourceShape tells whether s is a pattern of ARNs: six parts, or fewer of
// which the last ends with a *. The service is written out.
func resourceShape(s string) bool {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) < 3 || parts[0] != "arn" || !only(parts[2], "-") {
		return false
	}
	return len(parts) == 6 && parts[5] != "" || strings.HasSuffix(s, "*")
}

func (rs *resources) match(r *Request) bool {
	return rs.not != slices.ContainsFunc(rs.patterns, func(p pattern) bool {
		glob, ok := p.expand(r)
		return ok && matchResource(glob, r.Resource)
	})
}
