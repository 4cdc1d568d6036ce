package envelope

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func TestContextIsSerializedSorted(t *testing.T) {
	for want, c := range map[string]kmsprovider.Context{
		"":                            nil,
		"\x00\x01\x00\x00\x00\x00":    {"": ""},
		"\x00\x01\x00\x01a\x00\x02bc": {"a": "bc"},
		"\x00\x03\x00\x01B\x00\x011\x00\x01a\x00\x012\x00\x02ä\x00\x013": {"ä": "3", "a": "2", "B": "1"},
		// Sorted by UTF-8: U+FFFD before U+10000, which UTF-16 has the other way round.
		"\x00\x02\x00\x03\ufffd\x00\x00\x00\x04\U00010000\x00\x00": {"\U00010000": "", "\ufffd": ""},
	} {
		got, err := serializeContext(c)
		if err != nil || string(got) != want {
			t.Errorf("%v: %x, %v, want %x", c, got, err, want)
		}
		if back, err := parseContext(got); err != nil || !maps.Equal(back, c) {
			t.Errorf("%v: parsed back %v, %v", c, back, err)
		}
	}
}

func TestContextsThatDoNotFitAreRefused(t *testing.T) {
	many := make(kmsprovider.Context)
	for i := range math.MaxUint16 + 1 {
		many[fmt.Sprint(i)] = ""
	}
	const room = math.MaxUint16 - 2 - 2 - 1 - 2
	for name, c := range map[string]struct {
		context kmsprovider.Context
		want    error
	}{
		"as large as there is room": {kmsprovider.Context{"k": strings.Repeat("v", room)}, nil},
		"a byte more":               {kmsprovider.Context{"k": strings.Repeat("v", room+1)}, ErrContext},
		"a huge key":                {kmsprovider.Context{strings.Repeat("k", 1<<17): ""}, ErrContext},
		"65,536 pairs":              {many, ErrContext},
		"no UTF-8":                  {kmsprovider.Context{"k": "\xff"}, ErrContext},
	} {
		b, err := serializeContext(c.context)
		if !errors.Is(err, c.want) || len(b) > math.MaxUint16 {
			t.Errorf("%s: %d bytes, %v, want %v", name, len(b), err, c.want)
		}
	}
}
