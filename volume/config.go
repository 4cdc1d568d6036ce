package volume

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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

// formatVersion is the frozen format of docs/FORMAT.md. What versions of kmsfs
// under development wrote before it says 0.
const (
	formatVersion      = 1
	developmentVersion = 0
)

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
	Created       time.Time   `json:"created"`    // RFC 3339
	Generation    uint64      `json:"generation"` // 1 at first, one more with every change
	KeyMode       KeyMode     `json:"key_mode"`
	Features      []string    `json:"features"` // never nil; none is defined yet
	Keys          []ConfigKey `json:"keys"`     // 1 to crypto.MaxWrappedKeys, at least one active

	raw []byte // the first line as it was read or written, without its newline
	mac []byte // HMAC-SHA-256 of raw, as it was read or written
}

// ConfigKey is the volume key under one wrapping key.
type ConfigKey struct {
	Provider string `json:"provider"`
	KeyID    string `json:"key_id"` // the key's ARN, never an alias
	State    string `json:"state"`  // active or retiring
	Wrapped  []byte `json:"wrapped"`
}

// maxConfig is longer than any volume.json, in bytes: eight keys with
// everything at its limit make about 200 KiB.
const maxConfig = 1 << 18

// parseConfig reads volume.json: its two lines, strictly. What it returns is
// well-formed, and still anybody's. What another version of kmsfs wrote is
// ErrFormat, anything else that it does not write is ErrIntegrity.
func parseConfig(b []byte) (*Config, error) {
	if len(b) > maxConfig {
		return nil, malformedConfig("it is longer than any that kmsfs writes")
	}
	line, rest, found := bytes.Cut(b, []byte{'\n'})
	macHex, rest, ended := bytes.Cut(rest, []byte{'\n'})
	if !found || !ended || len(rest) != 0 {
		return nil, malformedConfig("it does not have two lines")
	}
	mac := make([]byte, hex.DecodedLen(len(macHex)))
	if _, err := hex.Decode(mac, macHex); err != nil || len(mac) != sha256.Size || hex.EncodeToString(mac) != string(macHex) {
		return nil, malformedConfig("the second line is no HMAC in hex")
	}
	if err := checkFormat(line); err != nil {
		return nil, err
	}
	c := &Config{raw: bytes.Clone(line), mac: mac}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, malformedConfig(err.Error())
	}
	// Exactly what marshal writes: this refuses doubled and differently
	// spelled fields, which two readers could understand differently, and
	// whatever follows the object.
	if again, err := json.Marshal(c); err != nil || !bytes.Equal(again, line) {
		return nil, malformedConfig("the first line is not written as kmsfs writes it")
	}
	if err := c.check(); err != nil {
		return nil, malformedConfig(err.Error())
	}
	return c, nil
}

// checkFormat looks at version and features before anything else: what a newer
// kmsfs wrote may have fields that we do not know, and is not damaged.
func checkFormat(line []byte) error {
	var format struct {
		Version  *int     `json:"format_version"`
		Features []string `json:"features"`
	}
	if err := json.Unmarshal(line, &format); err != nil {
		return malformedConfig(err.Error())
	}
	if format.Version == nil {
		return malformedConfig("the first line has no format version")
	}
	if *format.Version == developmentVersion {
		return fmt.Errorf("%s has format version %d, of a volume that a development version of kmsfs made; mount it with that version and copy the files out: %w",
			configName, developmentVersion, ErrFormat)
	}
	if *format.Version != formatVersion {
		return fmt.Errorf("%s has format version %d, this kmsfs knows %d: %w", configName, *format.Version, formatVersion, ErrFormat)
	}
	if len(format.Features) > 0 {
		return fmt.Errorf("%s asks for feature %s: %w", configName, quoted(format.Features[0]), ErrFormat)
	}
	return nil
}

// check tells what is wrong with the values, but for version and features.
func (c *Config) check() error {
	if c.ID.IsZero() {
		return errors.New("no volume ID")
	}
	if c.Created.IsZero() {
		return errors.New("no creation time")
	}
	if c.Generation == 0 {
		return errors.New("no generation")
	}
	if _, err := ParseKeyMode(string(c.KeyMode)); err != nil {
		return err
	}
	if c.Features == nil {
		return errors.New("no list of features")
	}
	if len(c.Keys) == 0 || len(c.Keys) > crypto.MaxWrappedKeys {
		return fmt.Errorf("%d keys, want 1 to %d", len(c.Keys), crypto.MaxWrappedKeys)
	}
	active := false
	for i, k := range c.Keys {
		if err := k.check(); err != nil {
			return fmt.Errorf("key %d: %w", i+1, err)
		}
		active = active || k.State == keyActive
		for _, other := range c.Keys[:i] {
			if other.Provider == k.Provider && other.KeyID == k.KeyID {
				return fmt.Errorf("key %d: %s stands there twice", i+1, k.KeyID)
			}
		}
	}
	if !active {
		return errors.New("no active key")
	}
	return nil
}

// check tells what is wrong with the entry. The name of the provider of data
// keys that the volume key wraps is no KMS's.
func (k *ConfigKey) check() error {
	switch {
	case !isName(k.Provider, crypto.MaxProviderLen) || k.Provider == volumeProvider:
		return fmt.Errorf("%s is no name of a provider", quoted(k.Provider))
	case !isName(k.KeyID, crypto.MaxKeyIDLen):
		return fmt.Errorf("%s is no key ID", quoted(k.KeyID))
	case k.State != keyActive && k.State != keyRetiring:
		return fmt.Errorf("unknown state %s", quoted(k.State))
	case len(k.Wrapped) == 0 || len(k.Wrapped) > crypto.MaxWrappedLen:
		return fmt.Errorf("wrapped key of %d bytes, want 1 to %d", len(k.Wrapped), crypto.MaxWrappedLen)
	}
	return nil
}

// isName tells whether s is 1 to limit bytes of printable ASCII without spaces,
// as in every key URI: it is shown in messages, and sent to a KMS.
func isName(s string, limit int) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= limit
}

// quoted shows untrusted text in a message: short, and without control characters.
func quoted(s string) string {
	if len(s) > 100 {
		return fmt.Sprintf("%q…", s[:100])
	}
	return fmt.Sprintf("%q", s)
}

func malformedConfig(why string) error {
	if len(why) > 300 { // errors of the JSON decoder quote what they dislike
		why = why[:300] + "…"
	}
	return fmt.Errorf("%s is damaged: %s: %w", configName, why, ErrIntegrity)
}

// authenticate checks the HMAC of the first line as it was read. It is
// ErrIntegrity if nobody who holds vk wrote it.
func (c *Config) authenticate(vk *crypto.Key) error {
	if !hmac.Equal(c.mac, configMAC(vk, c.raw)) {
		return fmt.Errorf("%s was changed, or belongs to another volume key: %w", configName, ErrIntegrity)
	}
	return nil
}

// marshal gives the bytes of volume.json, which parseConfig accepts.
func (c *Config) marshal(vk *crypto.Key) ([]byte, error) {
	if c.FormatVersion != formatVersion || len(c.Features) > 0 {
		return nil, fmt.Errorf("marshal %s: %w", configName, ErrFormat)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("marshal %s: %w", configName, err)
	}
	line, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("marshal %s: %w", configName, err)
	}
	c.raw, c.mac = line, configMAC(vk, line)
	return c.bytes(), nil
}

// bytes is the file as it was read or written last.
func (c *Config) bytes() []byte { return fmt.Appendf(nil, "%s\n%x\n", c.raw, c.mac) }

func configMAC(vk *crypto.Key, line []byte) []byte {
	key := vk.Derive(crypto.LabelConfig)
	defer key.Wipe()
	sum := key.MAC(line)
	return sum[:]
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

// keyIDs lists the wrapping keys as they stand in the configuration.
func (c *Config) keyIDs() []string {
	out := make([]string, len(c.Keys))
	for i, k := range c.Keys {
		out[i] = k.KeyID
	}
	return out
}
