package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a document in bytes, AWS's.
const (
	maxKeyPolicy      = 32 << 10
	maxIdentityPolicy = 6144
)

// The versions of the language.
const (
	version2012 = "2012-10-17" // with policy variables
	version2008 = "2008-10-17"
)

// Parse reads a policy document of that kind. Its errors are ErrMalformed and
// name the element.
func Parse(document []byte, kind Kind) (*Policy, error) {
	p, err := parse(document, kind)
	if err != nil {
		return nil, fmt.Errorf("parse policy: %w", err)
	}
	return p, nil
}

// document is the root's path in messages.
const root = "document"

func parse(document []byte, kind Kind) (*Policy, error) {
	limit := maxKeyPolicy
	if kind == IdentityPolicy {
		limit = maxIdentityPolicy
	}
	if len(document) > limit {
		return nil, malformed(root, "is longer than %d bytes", limit)
	}
	if !utf8.Valid(document) {
		return nil, malformed(root, "is no UTF-8")
	}
	if !json.Valid(document) {
		return nil, malformed(root, "is no JSON")
	}
	list, err := members(root, document)
	if err != nil {
		return nil, err
	}
	version := version2008
	var statements json.RawMessage
	for _, m := range list {
		switch m.name {
		case "Version":
			if version, err = text(m.name, m.value); err != nil {
				return nil, err
			}
			if version != version2012 && version != version2008 {
				return nil, malformed(m.name, "%s is neither %s nor %s", quote(version), version2012, version2008)
			}
		case "Id":
			if _, err := text(m.name, m.value); err != nil {
				return nil, err
			}
		case "Statement":
			statements = m.value
		default:
			return nil, malformed(root, "unknown element %s", quote(m.name))
		}
	}
	if statements == nil {
		return nil, malformed(root, "has no Statement")
	}
	return parseStatements(statements, kind, version == version2012)
}

func parseStatements(raw json.RawMessage, kind Kind, variables bool) (*Policy, error) {
	list, err := items("Statement", raw)
	if err != nil {
		return nil, err
	}
	p := &Policy{statements: make([]statement, 0, len(list))}
	ids := make(map[string]bool)
	for i, item := range list {
		r := statementReader{path: fmt.Sprintf("Statement[%d]", i), kind: kind, variables: variables, ids: ids}
		s, err := r.read(item)
		if err != nil {
			return nil, err
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

// statementReader reads one statement.
type statementReader struct {
	path      string
	kind      Kind
	variables bool            // the version has policy variables
	ids       map[string]bool // Sids so far

	s    statement
	seen map[string]bool // elements
}

func (r *statementReader) read(raw json.RawMessage) (statement, error) {
	list, err := members(r.path, raw)
	if err != nil {
		return statement{}, err
	}
	r.seen = make(map[string]bool)
	for _, m := range list {
		r.seen[m.name] = true
		if err := r.element(m); err != nil {
			return statement{}, err
		}
	}
	return r.s, r.complete()
}

func (r *statementReader) element(m member) (err error) {
	path := r.path + "." + m.name
	switch m.name {
	case "Sid":
		return r.sid(path, m.value)
	case "Effect":
		effect, err := text(path, m.value)
		if err != nil {
			return err
		}
		if effect != "Allow" && effect != "Deny" {
			return malformed(path, "%s is neither Allow nor Deny", quote(effect))
		}
		r.s.allow = effect == "Allow"
	case "Principal", "NotPrincipal":
		if r.kind == IdentityPolicy {
			return malformed(path, "a policy of a principal names no other")
		}
		r.s.principals, err = parsePrincipals(path, m.value, m.name == "NotPrincipal")
	case "Action", "NotAction":
		r.s.actions, err = parseActions(path, m.value, m.name == "NotAction")
	case "Resource", "NotResource":
		r.s.resources, err = parseResources(path, m.value, m.name == "NotResource", r.variables)
	case "Condition":
		r.s.conditions, err = parseConditions(path, m.value, r.variables)
	default:
		return malformed(r.path, "unknown element %s", quote(m.name))
	}
	return err
}

// sid applies AWS's rules: letters and digits, in key policies also spaces and
// other printable ASCII; no two alike.
func (r *statementReader) sid(path string, raw json.RawMessage) error {
	id, err := text(path, raw)
	if err != nil {
		return err
	}
	if strings.ContainsFunc(id, func(c rune) bool {
		if r.kind == KeyPolicy {
			return c < ' ' || c > '~'
		}
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9')
	}) {
		return malformed(path, "%s has characters that are not allowed in it", quote(id))
	}
	if id != "" && r.ids[id] {
		return malformed(path, "%s is the Sid of another statement too", quote(id))
	}
	r.ids[id] = true
	return nil
}

// complete checks that all is there that has to be, and only once.
func (r *statementReader) complete() error {
	if !r.seen["Effect"] {
		return malformed(r.path, "has no Effect")
	}
	for _, name := range []string{"Principal", "Action", "Resource"} {
		if name == "Principal" && r.kind == IdentityPolicy {
			continue
		}
		switch one, other := r.seen[name], r.seen["Not"+name]; {
		case one && other:
			return malformed(r.path, "has both %s and Not%s", name, name)
		case !one && !other:
			return malformed(r.path, "has no %s", name)
		}
	}
	if r.s.allow && r.seen["NotPrincipal"] {
		return malformed(r.path+".NotPrincipal", "goes with Deny only: with Allow it would let everybody else in")
	}
	return nil
}
