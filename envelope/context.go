package envelope

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"kmsfs/kmsprovider"
)

// serializeContext returns the bytes that stand for c in a message and wherever else c is authenticated: nothing for an
// empty one, else the number of pairs and, sorted by the bytes of the keys, each key and value after its length. All
// numbers are u16, big-endian. ErrContext if c does not fit. Specification: structures.md, Serialization.
func serializeContext(c kmsprovider.Context) ([]byte, error) {
	if len(c) == 0 {
		return nil, nil
	}
	if len(c) > math.MaxUint16 {
		return nil, fmt.Errorf("serialize encryption context: %d pairs, at most %d: %w", len(c), math.MaxUint16, ErrContext)
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(len(c)))
	for _, k := range slices.Sorted(maps.Keys(c)) {
		for _, s := range []string{k, c[k]} {
			if !utf8.ValidString(s) {
				return nil, fmt.Errorf("serialize encryption context: pair %q is not UTF-8: %w", k, ErrContext)
			}
			if n := len(b) + 2 + len(s); n > math.MaxUint16 {
				return nil, fmt.Errorf("serialize encryption context: over %d bytes: %w", math.MaxUint16, ErrContext)
			}
			b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
			b = append(b, s...)
		}
	}
	return b, nil
}

// parseContext is the inverse of serializeContext and takes nothing that serializeContext does not write. The official
// Python SDK, unlike the specification, also reads pairs in another order; nothing known writes them so.
func parseContext(b []byte) (kmsprovider.Context, error) {
	if len(b) == 0 {
		return nil, nil
	}
	const field = "encryption context"
	p := parser{rest: b}
	count, ok := p.uint16()
	if !ok || count == 0 {
		return nil, malformed(field, "no pairs in %d bytes", len(b))
	}
	c := make(kmsprovider.Context)
	last := ""
	for i := range count {
		k, okKey := p.prefixed()
		v, okValue := p.prefixed()
		key, value := string(k), string(v)
		switch {
		case !okKey || !okValue:
			return nil, malformed(field, "ends within pair %d of %d", i+1, count)
		case !utf8.ValidString(key) || !utf8.ValidString(value):
			return nil, malformed(field, "pair %q is not UTF-8", key)
		case i > 0 && key == last:
			return nil, malformed(field, "key %q twice", key)
		case i > 0 && key < last:
			return nil, malformed(field, "keys are not sorted: %q after %q", key, last)
		}
		c[key], last = value, key
	}
	if len(p.rest) > 0 {
		return nil, malformed(field, "%d bytes after its %d pairs", len(p.rest), count)
	}
	return c, nil
}

// parser takes big-endian fields off the front of rest.
type parser struct{ rest []byte }

func (p *parser) uint16() (int, bool) {
	if len(p.rest) < 2 {
		return 0, false
	}
	n := int(binary.BigEndian.Uint16(p.rest))
	p.rest = p.rest[2:]
	return n, true
}

// prefixed takes bytes that stand after their length, a u16.
func (p *parser) prefixed() ([]byte, bool) {
	n, ok := p.uint16()
	if !ok || len(p.rest) < n {
		return nil, false
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b, true
}
