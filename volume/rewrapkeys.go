package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// ErrKeyChange: the wrapping keys cannot be changed as they were asked to.
var ErrKeyChange = errors.New("keys cannot be changed so")

// changeKeys gives the keys of volume.json their new states and writes it, if
// that changes anything. All that can be refused is refused before.
func (r *rewrap) changeKeys(ctx context.Context) error {
	now := r.vol.conf()
	next := *now
	next.Keys = slices.Clone(now.Keys)
	added, err := r.plan(ctx, &next)
	if err != nil {
		return err
	}
	if err := r.tryKeys(ctx, &next, added); err != nil {
		return err
	}
	if slices.EqualFunc(next.Keys, now.Keys, func(a, b ConfigKey) bool { return a.id() == b.id() && a.State == b.State }) {
		return nil // as after an interruption
	}
	if added != "" {
		r.report.Added = append(r.report.Added, added)
	}
	return r.writeKeys(&next)
}

// plan changes the keys of c as the options say. It returns the key ID of To
// where that became active, "" where it was.
func (r *rewrap) plan(ctx context.Context, c *Config) (added string, err error) {
	from, to := r.options.From, r.options.To
	toAt := -1
	if to != (kmsprovider.KeyURI{}) {
		if toAt, err = r.take(ctx, c, to); err != nil {
			return "", err
		}
		if k := &c.Keys[toAt]; k.State != keyActive {
			k.State, added = keyActive, k.KeyID
		}
	}
	if from != (kmsprovider.KeyURI{}) {
		fromAt, _, err := r.find(ctx, c, from)
		switch {
		case err != nil:
			return "", err
		case fromAt < 0 && toAt >= 0 && added == "":
			r.vol.log.Warn("the volume has no such key, or none any more", "key", from)
		case fromAt < 0:
			return "", fmt.Errorf("%s is none of the volume's keys: %w", from, ErrKeyChange)
		case fromAt == toAt:
			return "", fmt.Errorf("%s and %s are the same key: %w", from, to, ErrKeyChange)
		default:
			c.Keys[fromAt].State = keyRetiring
		}
	}
	if len(c.activeKeys()) == 0 {
		return "", fmt.Errorf("%s is the only key that opens new files, and a volume must have one: %w", from, ErrKeyChange)
	}
	return added, nil
}

// take returns the place of a key in c, after adding it if it is new: not active
// yet, with the volume key wrapped.
func (r *rewrap) take(ctx context.Context, c *Config, to kmsprovider.KeyURI) (int, error) {
	at, keyID, err := r.find(ctx, c, to)
	if err != nil || at >= 0 {
		return at, err
	}
	if len(c.Keys) == crypto.MaxWrappedKeys {
		return -1, fmt.Errorf("the volume has %d keys, and that is all it can have: %w", len(c.Keys), ErrKeyChange)
	}
	k := ConfigKey{Provider: to.Provider, KeyID: keyID, State: keyRetiring}
	vk := r.vol.vk
	if err := wrapVolumeKey(ctx, c.ID, &k, r.vol.providers, &vk); err != nil {
		return -1, fmt.Errorf("wrap volume key with %s: %w", to, err)
	}
	c.Keys = append(c.Keys, k)
	return len(c.Keys) - 1, nil
}

// find returns the place of a key in c, or -1 and its key ID. The name that
// stands there, or the last part of it, is known without asking the KMS: the key
// may be gone.
func (r *rewrap) find(ctx context.Context, c *Config, uri kmsprovider.KeyURI) (at int, keyID string, err error) {
	for i, k := range c.Keys {
		if k.Provider == uri.Provider && (k.KeyID == uri.KeyID || strings.HasSuffix(k.KeyID, ":key/"+uri.KeyID)) {
			return i, k.KeyID, nil
		}
	}
	keyID, err = describeKey(ctx, uri, r.vol.providers)
	if errors.Is(err, kmsprovider.ErrKeyNotFound) && uri == r.options.From {
		return -1, "", nil
	}
	if err != nil {
		return -1, "", fmt.Errorf("look up key %s: %w", uri, err)
	}
	at = slices.IndexFunc(c.Keys, func(k ConfigKey) bool { return k.Provider == uri.Provider && k.KeyID == keyID })
	return at, keyID, nil
}

// tryKeys finds out which active keys of c open what they wrapped. That the one
// to be added does, it must show, also for a data key; where a key is to be
// given up, another one must.
func (r *rewrap) tryKeys(ctx context.Context, c *Config, added string) error {
	r.usable = make(map[wrapperID]bool)
	for _, k := range c.activeKeys() {
		err := r.tryKey(ctx, &k, k.KeyID == added)
		switch {
		case err == nil:
			r.usable[k.id()] = true
			r.report.Opened = append(r.report.Opened, k.KeyID)
			continue
		case ctx.Err() != nil:
			return err
		case k.KeyID == added && !r.options.Offline:
			return fmt.Errorf("try new key %s: %w", k.KeyID, err)
		}
		r.report.Unopened = append(r.report.Unopened, k.KeyID)
		r.vol.log.Warn("a key of the volume cannot be used here, and what it wraps is not proven", "key", k.KeyID, "error", err)
	}
	if len(r.usable) == 0 {
		return fmt.Errorf("none of the keys that would be left can be used here, so nothing could be proven: %w", ErrKeyChange)
	}
	return nil
}

// tryKey opens the volume key with k, and with full also a new data key.
func (r *rewrap) tryKey(ctx context.Context, k *ConfigKey, full bool) error {
	v := r.vol
	vk, err := decryptVolumeKey(ctx, v.id, *k, v.providers)
	if err != nil {
		return err
	}
	defer vk.Wipe()
	if !vk.Equal(v.vk) {
		return fmt.Errorf("it wraps another volume key: %w", ErrIntegrity)
	}
	if !full || v.mode == ModeVolume {
		return nil
	}
	id, err := crypto.NewID(v.random)
	if err != nil {
		return err
	}
	p, err := v.providers.Provider(ctx, k.Provider)
	if err != nil {
		return err
	}
	plain, wrapped, err := p.GenerateDataKey(ctx, k.KeyID, dataKeyContext(v.id, id))
	if err != nil {
		return err
	}
	defer clear(plain)
	again, err := p.Decrypt(ctx, k.KeyID, wrapped, dataKeyContext(v.id, id))
	if err != nil {
		return err
	}
	defer clear(again)
	if !bytes.Equal(plain, again) {
		return errors.New("it does not return the data key that it wrapped")
	}
	return nil
}

// writeKeys makes c the configuration of the volume and of this Rewrap.
func (r *rewrap) writeKeys(c *Config) error {
	v := r.vol
	c.Generation++
	b, err := c.marshal(v.vk)
	if err != nil {
		return err
	}
	if err := writeConfig(v.backing, v.meta, v.conf(), b); err != nil {
		return err
	}
	v.config.Store(c)
	r.describe()
	// The next mount finds the keys that the host expects.
	return v.admit(r.dir, Options{StateDir: r.options.StateDir})
}

// dropRetiring takes the keys that are retiring out of volume.json.
func (r *rewrap) dropRetiring() error {
	now := r.vol.conf()
	retiring := now.keysIn(keyRetiring)
	if len(retiring) == 0 {
		return nil
	}
	next := *now
	next.Keys = now.activeKeys()
	if err := r.writeKeys(&next); err != nil {
		return err
	}
	for _, k := range retiring {
		r.report.Removed = append(r.report.Removed, k.KeyID)
	}
	return nil
}
