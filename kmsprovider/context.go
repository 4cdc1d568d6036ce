package kmsprovider

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// MaxContext is the most bytes that Context.Canonical may have. AWS KMS has
// the same number for its own encoding.
const MaxContext = 8192

// Context is an encryption context: pairs that a wrapped key is bound to.
// They are authenticated, not secret, and a KMS logs them in plaintext. Nil and
// empty are the same context.
type Context map[string]string

// Canonical returns the one encoding of c that is authenticated. Two contexts
// have the same encoding only if they are equal: the number of pairs, and then
// for each pair, sorted by the bytes of its key, the key and the value, each
// after its length. All numbers are u32, little-endian.
func (c Context) Canonical() []byte {
	return c.AppendCanonical(make([]byte, 0, c.size()))
}

// AppendCanonical appends Canonical to b.
func (c Context) AppendCanonical(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c)))
	var few [8]string // most contexts have two pairs: no allocation for those
	keys := slices.AppendSeq(few[:0], maps.Keys(c))
	slices.Sort(keys)
	for _, k := range keys {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(k)))
		b = append(b, k...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(c[k])))
		b = append(b, c[k]...)
	}
	return b
}

// size is len(c.Canonical()).
func (c Context) size() int {
	n := 4
	for k, v := range c {
		n += 8 + len(k) + len(v)
	}
	return n
}

// Check returns ErrInvalidInput if c is over MaxContext or not all UTF-8. What
// is not UTF-8 cannot be carried in JSON without becoming another context.
func (c Context) Check() error {
	if n := c.size(); n > MaxContext {
		return fmt.Errorf("check encryption context: %d bytes, at most %d: %w", n, MaxContext, ErrInvalidInput)
	}
	for k, v := range c {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("check encryption context: key or value of pair %q is not UTF-8: %w", k, ErrInvalidInput)
		}
	}
	return nil
}
