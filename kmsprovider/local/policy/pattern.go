package policy

import (
	"strings"
	"unicode/utf8"
)

// pattern is a text with wildcards and policy variables.
type pattern struct {
	pieces []piece
}

// piece is some runes, among them wildcards, or a policy variable.
type piece struct {
	glob     []rune
	variable string
	fallback string // the variable's default
	hasOne   bool
}

// Wildcards within a glob: no rune is negative.
const (
	anyRunes rune = -1 // *
	oneRune  rune = -2 // ?
)

// syntax says what is special in a pattern.
type syntax int

const (
	wildcards syntax = 1 << iota // * and ?
	variables                    // ${…}
)

func variablesIf(yes bool) syntax {
	if yes {
		return variables
	}
	return 0
}

// parsePattern reads s. Where variables are special, ${*}, ${?} and ${$} are
// the characters themselves.
func parsePattern(path, s string, special syntax) (pattern, error) {
	var p pattern
	var glob []rune
	for s != "" {
		if special&variables != 0 && strings.HasPrefix(s, "${") {
			inner, rest, found := strings.Cut(s[2:], "}")
			if !found {
				return p, malformed(path, "%s has no } after ${", quote(s))
			}
			s = rest
			if inner == "*" || inner == "?" || inner == "$" {
				glob = append(glob, rune(inner[0]))
				continue
			}
			v, err := parseVariable(path, inner)
			if err != nil {
				return p, err
			}
			p.pieces = append(p.pieces, piece{glob: glob}, v)
			glob = nil
			continue
		}
		c, size := utf8.DecodeRuneInString(s)
		s = s[size:]
		switch {
		case special&wildcards != 0 && c == '*':
			if n := len(glob); n == 0 || glob[n-1] != anyRunes {
				glob = append(glob, anyRunes)
			}
		case special&wildcards != 0 && c == '?':
			glob = append(glob, oneRune)
		default:
			glob = append(glob, c)
		}
	}
	p.pieces = append(p.pieces, piece{glob: glob})
	return p, nil
}

// parseVariable reads what stands between ${ and }: NAME or NAME, 'DEFAULT'.
func parseVariable(path, inner string) (piece, error) {
	name, fallback, hasDefault := strings.Cut(inner, ",")
	v := piece{variable: strings.TrimSpace(name), hasOne: hasDefault}
	if !conditionKey(v.variable) {
		return v, malformed(path, "${%s} is no policy variable", inner)
	}
	if hasDefault {
		fallback = strings.TrimSpace(fallback)
		if len(fallback) < 2 || fallback[0] != '\'' || fallback[len(fallback)-1] != '\'' {
			return v, malformed(path, "${%s}: the default is not between single quotes", inner)
		}
		v.fallback = fallback[1 : len(fallback)-1]
	}
	return v, nil
}

// expand puts the values of r in the places of the variables. ok is false if
// one has no value, or several.
func (p pattern) expand(r *Request) (glob []rune, ok bool) {
	if len(p.pieces) == 1 {
		return p.pieces[0].glob, true
	}
	for _, piece := range p.pieces {
		if piece.variable == "" {
			glob = append(glob, piece.glob...)
			continue
		}
		switch values := r.values(piece.variable); {
		case len(values) == 1:
			glob = append(glob, []rune(values[0])...)
		case len(values) == 0 && piece.hasOne:
			glob = append(glob, []rune(piece.fallback)...)
		default:
			return nil, false
		}
	}
	return glob, true
}

// matchGlob tells whether glob describes the whole of s. It takes
// len(glob)·len(s) steps at most.
func matchGlob(glob, s []rune) bool {
	g, i := 0, 0
	star, from := -1, 0 // the last *, and where in s what follows it is tried
	for i < len(s) {
		switch {
		case g < len(glob) && glob[g] == anyRunes:
			star, from = g, i
			g++
		case g < len(glob) && (glob[g] == oneRune || glob[g] == s[i]):
			g++
			i++
		case star >= 0:
			from++
			g, i = star+1, from
		default:
			return false
		}
	}
	for g < len(glob) && glob[g] == anyRunes {
		g++
	}
	return g == len(glob)
}
