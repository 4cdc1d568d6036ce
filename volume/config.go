package volume

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"kmsfs/crypto"
)

// KeyMode says where files' data keys come from.
type KeyMode string

const (
	ModeFile   KeyMode = "file"   // each from the KMS, and wrapped by it
	ModeVolume KeyMode = "volume" // random, wrapped under the volume key
)

// ParseKeyMode reads a key mode as the command and volume.json spell it.
func ParseKeyMode(s string) (KeyMode, error) {
	switch m := KeyMode(s); m {
	case ModeFile, ModeVolume:
		return m, nil
	}
	return "", fmt.Errorf("key mode %q: want %q or %q", s, ModeFile, ModeVolume)
}

// formatVersion is what volume.json says until the format is frozen as 1.
const formatVersion = 0

// States of a wrapping key in volume.json.
const (
	keyActive   = "active"   // wraps new data keys
	keyRetiring = "retiring" // only opens old ones
)

// Config is the first line of volume.json. Nothing in it is authenticated
// before authenticate has succeeded.
type Config struct {
	FormatVersion int         `json:"format_version"`
	ID            crypto.ID   `json:"volume_id"`
	Created       time.Time   `json:"created"`
	Generation    uint64      `json:"generation"`
	KeyMode       KeyMode     `json:"key_mode"`
	Features      []string    `json:"features"`
	Keys          []ConfigKey `json:"keys"`

	raw []byte // the first line as it was read, without its newline
	mac []byte
}

// ConfigKey is the volume key under one wrapping key.
type ConfigKey struct {
	Provider string `json:"provider"`
	KeyID    string `json:"key_id"` // the key's ARN, never an alias
	State    string `json:"state"`  // active or retiring
	Wrapped  []byte `json:"wrapped"`
}

// maxConfig is longer than any volume.json, in bytes.
const maxConfig = 1 << 18

// parseConfig reads volume.json: its two lines, strictly. What it returns is
// well-formed, and still anybody's.
func parseConfig(b []byte) (*Config, error) {
	line, rest, ok := bytes.Cut(b, []byte{'\n'})
	if !ok {
		return nil, malformedConfig("the second line is missing")
	}
	macHex, rest, ok := bytes.Cut(rest, []byte{'\n'})
	if !ok || len(rest) != 0 {
		return nil, malformedConfig("it has other than two lines")
	}
	mac := make([]byte, hex.DecodedLen(len(macHex)))
	if _, err := hex.Decode(mac, macHex); err != nil || len(mac) != sha256.Size || hex.EncodeToString(mac) != string(macHex) {
		return nil, malformedConfig("the second line is no HMAC in hex")
	}
	// The version first: a newer one may have fields that we do not know.
	var version struct {
		V *int `json:"format_version"`
	}
	if err := json.Unmarshal(line, &version); err != nil || version.V == nil {
		return nil, malformedConfig("the first line has no format version")
	}
	if *version.V != formatVersion {
		return nil, fmt.Errorf("%s: format version %d, this kmsfs knows %d", configName, *version.V, formatVersion)
	}
	c := &Config{raw: bytes.Clone(line), mac: mac}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, malformedConfig(err.Error())
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, malformedConfig("something follows the first object")
	}
	// Exactly what marshal writes: this refuses doubled and differently
	// spelled fields, which two readers could understand differently.
	if again, err := json.Marshal(c); err != nil || !bytes.Equal(again, line) {
		return nil, malformedConfig("the first line is not written as kmsfs writes it")
	}
	return c, c.check()
}

func (c *Config) check() error {
	if _, err := ParseKeyMode(string(c.KeyMode)); err != nil {
		return malformedConfig(err.Error())
	}
	if len(c.Features) > 0 {
		return fmt.Errorf("%s: unknown feature %q: made by a newer kmsfs", configName, c.Features[0])
	}
	if c.ID.IsZero() {
		return malformedConfig("no volume ID")
	}
	if len(c.Keys) == 0 || len(c.Keys) > crypto.MaxWrappedKeys {
		return malformedConfig(fmt.Sprintf("%d keys, want 1 to %d", len(c.Keys), crypto.MaxWrappedKeys))
	}
	active := 0
	for i, k := range c.Keys {
		switch k.State {
		case keyActive:
			active++
		case keyRetiring:
		default:
			return malformedConfig(fmt.Sprintf("key %d: unknown state %q", i, k.State))
		}
		if k.Provider == "" || len(k.Provider) > crypto.MaxProviderLen || k.KeyID == "" || len(k.KeyID) > crypto.MaxKeyIDLen ||
			len(k.Wrapped) == 0 || len(k.Wrapped) > crypto.MaxWrappedLen {
			return malformedConfig(fmt.Sprintf("key %d: a length is out of bounds", i))
		}
		for _, other := range c.Keys[:i] {
			if other.Provider == k.Provider && other.KeyID == k.KeyID {
				return malformedConfig("key " + k.KeyID + " stands there twice")
			}
		}
	}
	if active == 0 {
		return malformedConfig("no active key")
	}
	return nil
}

func malformedConfig(why string) error {
	return fmt.Errorf("%s is damaged: %s: %w", configName, why, ErrIntegrity)
}

// authenticate checks the HMAC of the first line.
func (c *Config) authenticate(vk *crypto.Key) error {
	if !hmac.Equal(c.mac, configMAC(vk, c.raw)) {
		return fmt.Errorf("%s was changed, or belongs to another key: %w", configName, ErrIntegrity)
	}
	return nil
}

// marshal gives the bytes of volume.json.
func (c *Config) marshal(vk *crypto.Key) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	line, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("marshal %s: %w", configName, err)
	}
	c.raw, c.mac = line, configMAC(vk, line)
	return fmt.Appendf(nil, "%s\n%x\n", line, c.mac), nil
}

func configMAC(vk *crypto.Key, line []byte) []byte {
	key := vk.Derive(crypto.LabelConfig)
	defer key.Wipe()
	m := hmac.New(sha256.New, key.Bytes())
	m.Write(line)
	return m.Sum(nil)
}

// wrappingKeys are the keys that may open a data key, active ones first.
func (c *Config) wrappingKeys() []ConfigKey {
	return append(c.keysIn(keyActive), c.keysIn(keyRetiring)...)
}

// activeKeys are the keys that wrap new data keys.
func (c *Config) activeKeys() []ConfigKey { return c.keysIn(keyActive) }

func (c *Config) keysIn(state string) []ConfigKey {
	var out []ConfigKey
	for _, k := range c.Keys {
		if k.State == state {
			out = append(out, k)
		}
	}
	return out
}
