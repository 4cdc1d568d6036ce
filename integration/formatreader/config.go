package formatreader

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// configuration is the first line of volume.json.
type configuration struct {
	FormatVersion int       `json:"format_version"`
	Volume        string    `json:"volume_id"`
	Created       time.Time `json:"created"`
	Generation    uint64    `json:"generation"`
	KeyMode       string    `json:"key_mode"`
	Features      []string  `json:"features"`
	Keys          []struct {
		Provider string `json:"provider"`
		KeyID    string `json:"key_id"`
		State    string `json:"state"`
		Wrapped  []byte `json:"wrapped"`
	} `json:"keys"`
}

// readConfig opens volume.json with every key that it has: they must all give the
// same volume key.
func (v *volume) readConfig(b []byte) error {
	line, rest, _ := bytes.Cut(b, []byte{'\n'})
	sum, rest, ended := bytes.Cut(rest, []byte{'\n'})
	if !ended || len(rest) > 0 {
		return fmt.Errorf("not two lines")
	}
	c := &v.config
	if err := json.Unmarshal(line, c); err != nil {
		return err
	}
	if again, err := json.Marshal(c); err != nil || !bytes.Equal(again, line) {
		return fmt.Errorf("the first line is %s, want %s", line, again)
	}
	raw, err := hex.DecodeString(c.Volume)
	if err != nil || len(raw) != 16 {
		return fmt.Errorf("volume ID %q", c.Volume)
	}
	v.id = id(raw)
	if c.FormatVersion != 1 || c.Generation == 0 || len(c.Features) > 0 || c.KeyMode != "file" && c.KeyMode != "volume" {
		return fmt.Errorf("%s", line)
	}
	for _, k := range c.Keys {
		if k.State != "active" && k.State != "retiring" {
			return fmt.Errorf("state %q", k.State)
		}
		vk, err := v.unwrap(k.Provider, k.KeyID, k.Wrapped, map[string]string{"kmsfs:volume": c.Volume, "kmsfs:purpose": "volume-key"})
		if err != nil {
			return fmt.Errorf("volume key of %s: %w", k.Provider, err)
		}
		if v.key != nil && !bytes.Equal(v.key, vk) {
			return fmt.Errorf("%s has another volume key", k.Provider)
		}
		v.key = vk
	}
	if len(v.key) != 32 {
		return fmt.Errorf("volume key of %d bytes", len(v.key))
	}
	if hex.EncodeToString(mac(derive(v.key, "config"), line)) != string(sum) {
		return fmt.Errorf("HMAC")
	}
	return nil
}
