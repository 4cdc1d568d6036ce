package crypto

import (
	"encoding/json"
	"testing"
)

func TestIDIsThirtyTwoLowerCaseHexDigits(t *testing.T) {
	const text = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
	if got := testVolume.String(); got != text {
		t.Errorf("String: %s", got)
	}
	if got, err := ParseID(text); err != nil || got != testVolume {
		t.Errorf("ParseID: %s, %v", got, err)
	}
	for _, bad := range []string{
		"", "a0", text + "a0", text[:31], text[:31] + "g", "A" + text[1:], " " + text[:31], text[:31] + "\n", "0x" + text[:30],
	} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q parses", bad)
		} else {
			wantError(t, err, ErrMalformed)
		}
	}
}

func TestIDTravelsThroughJSON(t *testing.T) {
	in := map[ID]ID{testVolume: testFile}
	text := must(json.Marshal(in))
	if want := `{"a0a1a2a3a4a5a6a7a8a9aaabacadaeaf":"b0b1b2b3b4b5b6b7b8b9babbbcbdbebf"}`; string(text) != want {
		t.Errorf("marshals to %s", text)
	}
	var out map[ID]ID
	if err := json.Unmarshal(text, &out); err != nil || out[testVolume] != testFile {
		t.Errorf("unmarshals to %v, %v", out, err)
	}
	id := testFile
	if err := id.UnmarshalText([]byte("nonsense")); err == nil || id != testFile {
		t.Errorf("after a refused text: %s, %v", id, err)
	}
}

func TestNewIDIsRandomAndZeroIDIsZero(t *testing.T) {
	random := newStream(1)
	a, b := must(NewID(random)), must(NewID(random))
	if a == b || a.IsZero() || !(ID{}).IsZero() || (ID{15: 1}).IsZero() {
		t.Errorf("%s, %s", a, b)
	}
	_, err := NewID(dry{})
	wantError(t, err, errNoRandom)
}

func FuzzParseID(f *testing.F) {
	addSeeds(f, func(b []byte) bool { _, err := ParseID(string(b)); return err == nil },
		[]byte(testVolume.String()), []byte("A0A1A2A3A4A5A6A7A8A9AAABACADAEAF"), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := ParseID(string(b))
		if err == nil && id.String() != string(b) {
			t.Errorf("%q parses and prints as %s", b, id)
		}
	})
}
