package policy

import "strings"

// operator is a condition operator without its prefix and suffix.
type operator struct {
	null    bool // it asks whether the key is there
	negated bool
	// compile reads a value of the policy.
	compile func(path, value string, withVariables bool) (matcher, error)
}

// operators are all there are. A negated one compiles as its opposite.
var operators = map[string]operator{
	"StringEquals":              {compile: stringEquals},
	"StringNotEquals":           {compile: stringEquals, negated: true},
	"StringEqualsIgnoreCase":    {compile: stringEqualsIgnoreCase},
	"StringNotEqualsIgnoreCase": {compile: stringEqualsIgnoreCase, negated: true},
	"StringLike":                {compile: stringLike},
	"StringNotLike":             {compile: stringLike, negated: true},
	"ArnEquals":                 {compile: arnLike},
	"ArnNotEquals":              {compile: arnLike, negated: true},
	"ArnLike":                   {compile: arnLike},
	"ArnNotLike":                {compile: arnLike, negated: true},
	"NumericEquals":             {compile: numeric(func(order int) bool { return order == 0 })},
	"NumericNotEquals":          {compile: numeric(func(order int) bool { return order == 0 }), negated: true},
	"NumericLessThan":           {compile: numeric(func(order int) bool { return order < 0 })},
	"NumericLessThanEquals":     {compile: numeric(func(order int) bool { return order <= 0 })},
	"NumericGreaterThan":        {compile: numeric(func(order int) bool { return order > 0 })},
	"NumericGreaterThanEquals":  {compile: numeric(func(order int) bool { return order >= 0 })},
	"DateEquals":                {compile: date(func(order int) bool { return order == 0 })},
	"DateNotEquals":             {compile: date(func(order int) bool { return order == 0 }), negated: true},
	"DateLessThan":              {compile: date(func(order int) bool { return order < 0 })},
	"DateLessThanEquals":        {compile: date(func(order int) bool { return order <= 0 })},
	"DateGreaterThan":           {compile: date(func(order int) bool { return order > 0 })},
	"DateGreaterThanEquals":     {compile: date(func(order int) bool { return order >= 0 })},
	"IpAddress":                 {compile: ipAddress},
	"NotIpAddress":              {compile: ipAddress, negated: true},
	"Bool":                      {compile: boolean},
	"Null":                      {compile: boolean, null: true},
}

func stringEquals(path, value string, withVariables bool) (matcher, error) {
	p, err := parsePattern(path, value, variablesIf(withVariables))
	return func(v string, r *Request) bool {
		wanted, ok := p.expand(r)
		return ok && string(wanted) == v
	}, err
}

func stringEqualsIgnoreCase(path, value string, withVariables bool) (matcher, error) {
	p, err := parsePattern(path, value, variablesIf(withVariables))
	return func(v string, r *Request) bool {
		wanted, ok := p.expand(r)
		return ok && strings.EqualFold(string(wanted), v)
	}, err
}

func stringLike(path, value string, withVariables bool) (matcher, error) {
	p, err := parsePattern(path, value, wildcards|variablesIf(withVariables))
	return func(v string, r *Request) bool {
		glob, ok := p.expand(r)
		return ok && matchGlob(glob, []rune(v))
	}, err
}

// arnLike is ArnEquals too: AWS gives both the same meaning.
func arnLike(path, value string, withVariables bool) (matcher, error) {
	if value != "*" && (len(splitARN([]rune(value))) != arnParts || !strings.HasPrefix(value, "arn:")) {
		return nil, malformed(path, "%s is no ARN of six parts", quote(value))
	}
	p, err := parsePattern(path, value, wildcards|variablesIf(withVariables))
	return func(v string, r *Request) bool {
		glob, ok := p.expand(r)
		return ok && matchARN(glob, v)
	}, err
}

func numeric(fits func(order int) bool) func(string, string, bool) (matcher, error) {
	return func(path, value string, _ bool) (matcher, error) {
		wanted, ok := parseNumber(value)
		if !ok {
			return nil, malformed(path, "%s is no number", quote(value))
		}
		return func(v string, _ *Request) bool {
			n, ok := parseNumber(v)
			return ok && fits(n.Cmp(wanted))
		}, nil
	}
}

func date(fits func(order int) bool) func(string, string, bool) (matcher, error) {
	return func(path, value string, _ bool) (matcher, error) {
		wanted, ok := parseDate(value)
		if !ok {
			return nil, malformed(path, "%s is no date: want 2026-01-31T12:00:00Z, 2026-01-31, or seconds since 1970", quote(value))
		}
		return func(v string, _ *Request) bool {
			t, ok := parseDate(v)
			return ok && fits(t.Compare(wanted))
		}, nil
	}
}

func ipAddress(path, value string, _ bool) (matcher, error) {
	network, ok := parseNetwork(value)
	if !ok {
		return nil, malformed(path, "%s is no IP address or network such as 192.0.2.0/24", quote(value))
	}
	return func(v string, _ *Request) bool {
		address, ok := parseAddress(v)
		return ok && network.Contains(address)
	}, nil
}

func boolean(path, value string, _ bool) (matcher, error) {
	if !strings.EqualFold(value, "true") && !strings.EqualFold(value, "false") {
		return nil, malformed(path, "%s is neither true nor false", quote(value))
	}
	return func(v string, _ *Request) bool { return strings.EqualFold(v, value) }, nil
}
