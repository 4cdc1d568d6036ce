package volume

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// must ends the test if a call failed: must(call())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func volumeKeyOf(seed byte) *crypto.Key {
	k, err := crypto.NewKey(bytes.Repeat([]byte{seed}, crypto.KeySize))
	if err != nil {
		panic(err)
	}
	return k
}

func sampleConfig() *Config {
	return &Config{
		FormatVersion: 1, ID: crypto.ID{0xab, 15: 1}, Created: time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC), Generation: 7,
		KeyMode: ModeFile, Features: []string{}, Keys: []ConfigKey{
			{Provider: "local", KeyID: "arn:aws:kms:local:000000000000:key/1", State: keyActive, Wrapped: []byte("wrapped once")},
			{Provider: "aws", KeyID: "arn:aws:kms:eu-central-1:123456789012:key/2", State: keyRetiring, Wrapped: []byte("wrapped twice")},
		},
	}
}

// configFile is a volume.json with this first line.
func configFile(line string, vk *crypto.Key) []byte {
	return fmt.Appendf(nil, "%s\n%x\n", line, configMAC(vk, []byte(line)))
}

func sampleLine(t testing.TB) string {
	b := must(sampleConfig().marshal(volumeKeyOf(1)))(t)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func TestAConfigurationIsTwoLinesJSONAndItsHMAC(t *testing.T) {
	vk := volumeKeyOf(1)
	b := must(sampleConfig().marshal(vk))(t)
	want := `{"format_version":1,"volume_id":"ab000000000000000000000000000001","created":"2026-03-01T12:30:00Z","generation":7,` +
		`"key_mode":"file","features":[],"keys":[` +
		`{"provider":"local","key_id":"arn:aws:kms:local:000000000000:key/1","state":"active","wrapped":"d3JhcHBlZCBvbmNl"},` +
		`{"provider":"aws","key_id":"arn:aws:kms:eu-central-1:123456789012:key/2","state":"retiring","wrapped":"d3JhcHBlZCB0d2ljZQ=="}]}`
	key := must(hkdf.Expand(sha256.New, vk.Bytes(), "kmsfs v1 config", 32))(t)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(want))
	if want += "\n" + hex.EncodeToString(mac.Sum(nil)) + "\n"; string(b) != want {
		t.Errorf("wrote\n%s\nwant\n%s", b, want)
	}
}

func TestAParsedConfigurationMarshalsToTheSameBytes(t *testing.T) {
	vk := volumeKeyOf(1)
	b := must(sampleConfig().marshal(vk))(t)
	c := must(parseConfig(b))(t)
	if err := c.authenticate(vk); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.bytes(), b) || !bytes.Equal(must(c.marshal(vk))(t), b) {
		t.Errorf("read %s\nwrote %s", b, c.bytes())
	}
	if c.Generation != 7 || len(c.Keys) != 2 || string(c.Keys[1].Wrapped) != "wrapped twice" || !c.Created.Equal(sampleConfig().Created) {
		t.Errorf("parsed %+v", c)
	}
}

func TestEveryChangedBitOfAConfigurationIsRefused(t *testing.T) {
	vk := volumeKeyOf(1)
	good := must(sampleConfig().marshal(vk))(t)
	for at := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[at] ^= 1 << bit
			c, err := parseConfig(b)
			if err == nil {
				err = c.authenticate(vk)
			}
			if !errors.Is(err, ErrIntegrity) && !errors.Is(err, ErrFormat) {
				t.Errorf("byte %d, bit %d: %v", at, bit, err)
			}
			if err != nil && (!strings.Contains(err.Error(), configName) || len(err.Error()) > 600) {
				t.Errorf("byte %d, bit %d: unclear error: %v", at, bit, err)
			}
		}
	}
}

func TestATruncatedOrLengthenedConfigurationIsRefused(t *testing.T) {
	good := must(sampleConfig().marshal(volumeKeyOf(1)))(t)
	for n := range good {
		if _, err := parseConfig(good[:n]); !errors.Is(err, ErrIntegrity) {
			t.Errorf("first %d of %d bytes: %v", n, len(good), err)
		}
	}
	for _, more := range []string{"\n", " ", "x", "\x00", string(good)} {
		if _, err := parseConfig(append(bytes.Clone(good), more...)); !errors.Is(err, ErrIntegrity) {
			t.Errorf("followed by %q: %v", more, err)
		}
	}
	if _, err := parseConfig(bytes.Repeat([]byte{'x'}, maxConfig+1)); !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "longer") {
		t.Errorf("too long: %v", err)
	}
}

func TestAConfigurationSpelledInAnotherWayIsRefused(t *testing.T) {
	vk, line := volumeKeyOf(1), sampleLine(t)
	change := func(old, new string) string {
		t.Helper()
		if strings.Count(line, old) == 0 {
			t.Fatalf("%q is not in the sample", old)
		}
		return strings.Replace(line, old, new, 1)
	}
	for what, changed := range map[string]string{
		"a doubled field":             change(`"generation":7`, `"generation":7,"generation":7`),
		"a doubled field in a key":    change(`"state":"active"`, `"state":"retiring","state":"active"`),
		"another case":                change(`"key_mode"`, `"Key_Mode"`),
		"an unknown field":            change(`"generation"`, `"colour":1,"generation"`),
		"an unknown field in a key":   change(`"state"`, `"colour":1,"state"`),
		"a missing field":             change(`"generation":7,`, ``),
		"another order":               change(`"generation":7,"key_mode":"file"`, `"key_mode":"file","generation":7`),
		"white space":                 change(`,"generation"`, `, "generation"`),
		"an escape":                   change(`"file"`, `"fil\u0065"`),
		"a number as text":            change(`:7`, `:"7"`),
		"a number with a point":       change(`:7`, `:7.0`),
		"a negative generation":       change(`:7`, `:-7`),
		"a generation beyond 64 bits": change(`:7`, `:18446744073709551616`),
		"a second object":             line + line,
		"something behind":            line + " 1",
		"an array":                    "[" + line + "]",
		"null":                        "null",
		"nothing":                     "",
		"features null":               change(`"features":[]`, `"features":null`),
		"keys null":                   line[:strings.Index(line, `[{`)] + `null}`,
		"an ID in capitals":           change(`"ab00`, `"AB00`),
		"a short ID":                  change(`"ab00`, `"ab0`),
		"base64 without padding":      change(`d2ljZQ==`, `d2ljZQ`),
		"base64 with trailing bits":   change(`d2ljZQ==`, `d2ljZR==`),
		"base64 with a line break":    change(`d2ljZQ==`, `d2lj\nZQ==`),
		"a date without time":         change(`2026-03-01T12:30:00Z`, `2026-03-01`),
	} {
		_, err := parseConfig(configFile(changed, vk))
		if !errors.Is(err, ErrIntegrity) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestConfigurationsOfOtherVersionsAreRefusedByName(t *testing.T) {
	vk, line := volumeKeyOf(1), sampleLine(t)
	for _, v := range []string{"0", "2", "-1", "17"} {
		// The fields of another version may be others.
		for _, l := range []string{strings.Replace(line, `version":1`, `version":`+v, 1), `{"format_version":` + v + `,"x":{}}`} {
			_, err := parseConfig(configFile(l, vk))
			if !errors.Is(err, ErrFormat) || errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "version "+v+",") {
				t.Errorf("version %s: %v", v, err)
			}
		}
	}
}

func TestAVolumeOfADevelopmentVersionIsRefusedWithWhatToDo(t *testing.T) {
	line := strings.Replace(sampleLine(t), `version":1`, `version":0`, 1)
	_, err := parseConfig(configFile(line, volumeKeyOf(1)))
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "development version") || !strings.Contains(err.Error(), "copy the files out") {
		t.Error(err)
	}
}

func TestUnknownFeaturesAreRefusedByName(t *testing.T) {
	line := strings.Replace(sampleLine(t), `"features":[]`, `"features":["compression"],"compression":"zstd"`, 1)
	_, err := parseConfig(configFile(line, volumeKeyOf(1)))
	if !errors.Is(err, ErrFormat) || errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), `"compression"`) {
		t.Error(err)
	}
	c := sampleConfig()
	c.Features = []string{"compression"}
	if _, err := c.marshal(volumeKeyOf(1)); !errors.Is(err, ErrFormat) {
		t.Errorf("marshal: %v", err)
	}
}

// badConfigs change one thing that makes a configuration wrong.
func badConfigs() map[string]func(*Config) {
	key := func(f func(*ConfigKey)) func(*Config) { return func(c *Config) { f(&c.Keys[1]) } }
	return map[string]func(*Config){
		"no volume ID":        func(c *Config) { c.ID = crypto.ID{} },
		"no creation time":    func(c *Config) { c.Created = time.Time{} },
		"no generation":       func(c *Config) { c.Generation = 0 },
		"no key mode":         func(c *Config) { c.KeyMode = "" },
		"unknown key mode":    func(c *Config) { c.KeyMode = "directory" },
		"features nil":        func(c *Config) { c.Features = nil },
		"no keys":             func(c *Config) { c.Keys = []ConfigKey{} },
		"nine keys":           func(c *Config) { c.Keys = manyKeys(9) },
		"no active key":       func(c *Config) { c.Keys[0].State = keyRetiring },
		"one key twice":       func(c *Config) { c.Keys[1] = c.Keys[0]; c.Keys[1].State = keyRetiring },
		"unknown state":       key(func(k *ConfigKey) { k.State = "dead" }),
		"no provider":         key(func(k *ConfigKey) { k.Provider = "" }),
		"long provider":       key(func(k *ConfigKey) { k.Provider = strings.Repeat("p", 256) }),
		"volume as provider":  key(func(k *ConfigKey) { k.Provider = "volume" }),
		"a space in provider": key(func(k *ConfigKey) { k.Provider = "aw s" }),
		"no key ID":           key(func(k *ConfigKey) { k.KeyID = "" }),
		"long key ID":         key(func(k *ConfigKey) { k.KeyID = strings.Repeat("k", 2049) }),
		"escape in key ID":    key(func(k *ConfigKey) { k.KeyID = "arn\x1b[2J" }),
		"no wrapped key":      key(func(k *ConfigKey) { k.Wrapped = []byte{} }),
		"long wrapped key":    key(func(k *ConfigKey) { k.Wrapped = make([]byte, 8193) }),
	}
}

func manyKeys(n int) []ConfigKey {
	keys := make([]ConfigKey, n)
	for i := range keys {
		keys[i] = ConfigKey{Provider: strings.Repeat("<", 255), KeyID: fmt.Sprint(i) + strings.Repeat("<", 2047), State: keyActive, Wrapped: make([]byte, 8192)}
	}
	return keys
}

func TestWrongValuesAreNeitherReadNorWritten(t *testing.T) {
	vk := volumeKeyOf(1)
	for what, spoil := range badConfigs() {
		c := sampleConfig()
		spoil(c)
		if _, err := c.marshal(vk); err == nil {
			t.Errorf("%s: written", what)
		}
		line := must(json.Marshal(c))(t)
		if _, err := parseConfig(configFile(string(line), vk)); !errors.Is(err, ErrIntegrity) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTheLargestConfigurationFits(t *testing.T) {
	vk, c := volumeKeyOf(1), sampleConfig()
	c.Keys = manyKeys(8)
	b := must(c.marshal(vk))(t)
	if len(b) > maxConfig {
		t.Fatalf("%d bytes", len(b))
	}
	if err := must(parseConfig(b))(t).authenticate(vk); err != nil {
		t.Error(err)
	}
}

func TestAConfigurationIsAuthenticatedByItsOwnVolumeKeyAlone(t *testing.T) {
	mine, other := volumeKeyOf(1), volumeKeyOf(2)
	c := must(parseConfig(must(sampleConfig().marshal(mine))(t)))(t)
	if err := c.authenticate(other); !errors.Is(err, ErrIntegrity) {
		t.Errorf("wrong key: %v", err)
	}
	// The MAC of another volume's configuration, under the same key.
	foreign := sampleConfig()
	foreign.ID[0]++
	_, macLine, _ := bytes.Cut(must(foreign.marshal(mine))(t), []byte{'\n'})
	mixed := append(append(bytes.Clone(c.raw), '\n'), macLine...)
	if err := must(parseConfig(mixed))(t).authenticate(mine); !errors.Is(err, ErrIntegrity) {
		t.Errorf("MAC of another configuration: %v", err)
	}
	if err := sampleConfig().authenticate(mine); !errors.Is(err, ErrIntegrity) {
		t.Errorf("never read: %v", err)
	}
}

func TestKeyModesAreFileAndVolume(t *testing.T) {
	for _, s := range []string{"file", "volume"} {
		if m, err := ParseKeyMode(s); err != nil || string(m) != s {
			t.Errorf("%s: %v, %v", s, m, err)
		}
	}
	for _, s := range []string{"", "File", "volume ", "x"} {
		if _, err := ParseKeyMode(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestActiveKeysComeBeforeRetiringOnes(t *testing.T) {
	c := sampleConfig()
	c.Keys[0], c.Keys[1] = c.Keys[1], c.Keys[0]
	if got := c.wrappingKeys(); len(got) != 2 || got[0].State != keyActive || got[1].State != keyRetiring {
		t.Errorf("wrapping keys %+v", got)
	}
	if got := c.activeKeys(); len(got) != 1 || got[0].Provider != "local" {
		t.Errorf("active keys %+v", got)
	}
}

func TestAVolumeWhoseConfigurationIsDamagedDoesNotOpenAndIsLeftAsItIs(t *testing.T) {
	b := newBench(t, ModeFile)
	path := filepath.Join(b.dir, metaDir, configName)
	good := must(os.ReadFile(path))(t)
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 7)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := b.tryOpen()
		if err == nil {
			b.close(v)
			t.Errorf("byte %d: opens", at)
			continue
		}
		// A damaged key ID or provider names a key that there is none of.
		known := []error{ErrIntegrity, ErrFormat, kmsprovider.ErrKeyNotFound, kmsprovider.ErrInvalidInput}
		if !matchesAny(err, known...) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("byte %d: %v", at, err)
		}
		if now := must(os.ReadFile(path))(t); !bytes.Equal(now, bad) {
			t.Fatalf("byte %d: the file was changed", at)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
}

func matchesAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func FuzzParseConfig(f *testing.F) {
	vk := volumeKeyOf(1)
	good := 0
	add := func(b []byte) {
		f.Add(b)
		if _, err := parseConfig(b); err == nil {
			good++
		}
	}
	add(must(sampleConfig().marshal(vk))(f))
	one := sampleConfig()
	one.Keys, one.KeyMode = one.Keys[:1], ModeVolume
	add(must(one.marshal(vk))(f))
	add([]byte("{}\n\n"))
	add(configFile(`{"format_version":1,"format_version":1}`, vk))
	if good != 2 {
		f.Fatalf("%d seeds parse", good)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig(b)
		if err != nil {
			if c != nil || !errors.Is(err, ErrIntegrity) && !errors.Is(err, ErrFormat) {
				t.Fatalf("%v, %v", c, err)
			}
			return
		}
		if !bytes.Equal(c.bytes(), b) {
			t.Fatalf("reads %q, writes %q", b, c.bytes())
		}
		raw := bytes.Clone(c.raw)
		if again, err := c.marshal(vk); err != nil || !bytes.HasPrefix(again, append(raw, '\n')) {
			t.Fatalf("marshals to %q, %v", again, err)
		}
	})
}
