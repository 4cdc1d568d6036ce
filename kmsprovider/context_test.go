package kmsprovider_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func TestCanonicalContextIsSortedAndLengthPrefixed(t *testing.T) {
	for want, c := range map[string]kmsprovider.Context{
		"00000000": nil,
		"01000000" + "01000000" + "61" + "01000000" + "62":                                           {"a": "b"},
		"01000000" + "02000000" + "6162" + "00000000":                                                {"ab": ""},
		"02000000" + "01000000" + "61" + "01000000" + "32" + "02000000" + "6162" + "01000000" + "31": {"ab": "1", "a": "2"},
		"02000000" + "00000000" + "01000000" + "78" + "02000000" + "c3a4" + "00000000":               {"": "x", "ä": ""},
	} {
		if got := hex.EncodeToString(c.Canonical()); got != want {
			t.Errorf("%v: %s, want %s", c, got, want)
		}
	}
}

func TestCanonicalContextAppendsToWhatIsThere(t *testing.T) {
	c := kmsprovider.Context{"a": "b"}
	if got := string(c.AppendCanonical([]byte("head"))); got != "head"+string(c.Canonical()) {
		t.Errorf("%q", got)
	}
}

func TestContextIsLimitedInSizeAndToUTF8(t *testing.T) {
	room := kmsprovider.MaxContext - 4 - 8 - 1
	for name, c := range map[string]struct {
		context kmsprovider.Context
		ok      bool
	}{
		"nil":                      {nil, true},
		"as large as allowed":      {kmsprovider.Context{"a": strings.Repeat("b", room)}, true},
		"one byte over":            {kmsprovider.Context{"a": strings.Repeat("b", room+1)}, false},
		"a value that is no UTF-8": {kmsprovider.Context{"a": "\xff"}, false},
		"a key that is no UTF-8":   {kmsprovider.Context{"\xc3": "a"}, false},
		"all of Unicode":           {kmsprovider.Context{"ключ": "值\x00"}, true},
	} {
		err := c.context.Check()
		if c.ok && err != nil || !c.ok && !errors.Is(err, kmsprovider.ErrInvalidInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two contexts of two pairs each have the same bytes only if they are equal.
func FuzzCanonicalContext(f *testing.F) {
	f.Add("a", "b", "", "", "ab", "", "", "")
	f.Add("a", "bc", "d", "e", "ab", "c", "d", "e")
	f.Add("a", "1", "b", "2", "b", "2", "a", "1")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, l1, w1, l2, w2 string) {
		a := kmsprovider.Context{k1: v1, k2: v2}
		b := kmsprovider.Context{l1: w1, l2: w2}
		equal := len(a) == len(b)
		for k, v := range a {
			if w, ok := b[k]; !ok || w != v {
				equal = false
			}
		}
		if same := string(a.Canonical()) == string(b.Canonical()); same != equal {
			t.Errorf("%v and %v: equal %t, same bytes %t", a, b, equal, same)
		}
	})
}
