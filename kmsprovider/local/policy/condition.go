package policy

import (
	"encoding/json"
	"slices"
	"strings"
)

// condition is one key of one operator of a Condition element, with the values
// that the policy gives it.
type condition struct {
	operator operator
	set      setOperator
	ifExists bool
	key      string
	wanted   []matcher
}

// setOperator says how many of a request's several values count.
type setOperator int

const (
	noSet  setOperator = iota // as forAny, but the opposite under a negated operator
	forAll                    // ForAllValues: each value, if any
	forAny                    // ForAnyValue: at least one
)

// matcher compares a value of the request with one of the policy.
type matcher func(value string, r *Request) bool

// parseConditions reads {"OPERATOR": {"KEY": VALUE or [VALUE…]}}.
func parseConditions(path string, raw json.RawMessage, withVariables bool) ([]condition, error) {
	operators, err := members(path, raw)
	if err != nil {
		return nil, err
	}
	var list []condition
	for _, m := range operators {
		template, err := parseOperator(path, m.name)
		if err != nil {
			return nil, err
		}
		inner := path + "." + m.name
		keys, err := members(inner, m.value)
		if err != nil {
			return nil, err
		}
		if len(keys) == 0 {
			return nil, malformed(inner, "has no condition key")
		}
		for _, k := range keys {
			c := template
			if err := c.parseKey(inner, k, withVariables); err != nil {
				return nil, err
			}
			list = append(list, c)
		}
	}
	return list, nil
}

// parseOperator reads ForAllValues:NAMEIfExists, or less.
func parseOperator(path, text string) (condition, error) {
	var c condition
	name := text
	if rest, found := strings.CutPrefix(name, "ForAllValues:"); found {
		name, c.set = rest, forAll
	} else if rest, found := strings.CutPrefix(name, "ForAnyValue:"); found {
		name, c.set = rest, forAny
	}
	name, c.ifExists = strings.CutSuffix(name, "IfExists")
	o, ok := operators[name]
	if !ok {
		return c, malformed(path, "unknown operator %s", quote(text))
	}
	if o.null && (c.ifExists || c.set != noSet) {
		return c, malformed(path, "%s: Null stands alone", quote(text))
	}
	c.operator = o
	return c, nil
}

func (c *condition) parseKey(path string, m member, withVariables bool) error {
	if !conditionKey(m.name) {
		return malformed(path, "%s is no condition key: want SERVICE:NAME", quote(m.name))
	}
	c.key = m.name
	path += "." + m.name
	values, err := scalars(path, m.value)
	if err != nil {
		return err
	}
	for _, v := range values {
		f, err := c.operator.compile(path, v, withVariables)
		if err != nil {
			return err
		}
		c.wanted = append(c.wanted, f)
	}
	return nil
}

// conditionKey tells whether s is SERVICE:NAME. NAME may be anything, since
// encryption contexts have their keys in it.
func conditionKey(s string) bool {
	service, name, found := strings.Cut(s, ":")
	return found && only(service, "-") && name != ""
}

// holds tells whether the request fulfils the condition.
func (c *condition) holds(r *Request) bool {
	values := r.values(c.key)
	if c.operator.null {
		absent := "false"
		if len(values) == 0 {
			absent = "true"
		}
		return c.one(absent, r)
	}
	if len(values) == 0 {
		switch c.set {
		case forAll:
			return true
		case forAny:
			return c.ifExists
		}
		return c.ifExists || c.operator.negated
	}
	one := func(v string) bool { return c.one(v, r) }
	switch {
	case c.set == forAll, c.set == noSet && c.operator.negated:
		return !slices.ContainsFunc(values, func(v string) bool { return !one(v) })
	default:
		return slices.ContainsFunc(values, one)
	}
}

// one tells whether one value of the request does: it has to match one of the
// policy's, or under a negated operator none.
func (c *condition) one(value string, r *Request) bool {
	return c.operator.negated != slices.ContainsFunc(c.wanted, func(m matcher) bool { return m(value, r) })
}
