package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// volumeKeyContext is the encryption context of the volume key.
func volumeKeyContext(id crypto.ID) kmsprovider.Context {
	return kmsprovider.Context{"kmsfs:volume": id.String(), "kmsfs:purpose": "volume-key"}
}

// unlockVolumeKey unwraps the volume key with the first wrapping key that opens
// it, active ones first, and authenticates the configuration with it. That is
// one KMS call where all is well; keys that failed before another one opened
// are logged. The caller wipes the key.
//
// If none opens it, the error is the causes of all, the one that says most about
// what to do first, each with its provider and key ID. A wrapped key that its KMS
// refuses, or that holds something else, is ErrIntegrity as well.
func unlockVolumeKey(ctx context.Context, c *Config, providers *kmsprovider.Registry, log *slog.Logger) (*crypto.Key, error) {
	var failed []error
	keys := c.wrappingKeys()
	for i, k := range keys {
		its, cancel := share(ctx, len(keys)-i)
		vk, err := decryptVolumeKey(its, c.ID, k, providers)
		cancel()
		if err != nil {
			failed = append(failed, fmt.Errorf("unwrap volume key with %s key %s: %w", k.Provider, k.KeyID, err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		if err := c.authenticate(vk); err != nil {
			vk.Wipe()
			return nil, err
		}
		for _, err := range failed {
			log.Warn("a wrapping key did not open the volume, another one did", "error", err)
		}
		return vk, nil
	}
	return nil, joinFailures(failed)
}

// usefulness sorts the causes for which no wrapping key opens the volume: first
// what somebody has to allow or repair, then what may pass, last what no retry
// will change. What is not known here (a wrong passphrase, a missing provider)
// stands in the middle.
func usefulness(err error) int {
	if errors.Is(err, kmsprovider.ErrNotUsable) {
		return math.MaxInt
	}
	first := []error{kmsprovider.ErrAccessDenied, kmsprovider.ErrKeyDisabled, kmsprovider.ErrThrottled, kmsprovider.ErrUnavailable}
	if i := slices.IndexFunc(first, func(target error) bool { return errors.Is(err, target) }); i >= 0 {
		return i
	}
	switch {
	case errors.Is(err, ErrIntegrity):
		return len(first) + 2
	case errors.Is(err, kmsprovider.ErrKeyNotFound):
		return len(first) + 1
	}
	return len(first)
}

// doesNotFit tells that a KMS refused what was wrapped, and not the call.
func doesNotFit(err error) bool {
	return errors.Is(err, kmsprovider.ErrInvalidCiphertext) || errors.Is(err, kmsprovider.ErrIncorrectKey)
}

func decryptVolumeKey(ctx context.Context, volume crypto.ID, k ConfigKey, providers *kmsprovider.Registry) (*crypto.Key, error) {
	p, err := providers.Provider(ctx, k.Provider)
	if err != nil {
		return nil, err
	}
	plain, err := p.Decrypt(ctx, k.KeyID, k.Wrapped, volumeKeyContext(volume))
	defer clear(plain)
	if doesNotFit(err) {
		return nil, fmt.Errorf("%s does not fit the key: %w: %w", configName, err, ErrIntegrity)
	}
	if err != nil {
		return nil, err
	}
	if len(plain) != crypto.KeySize {
		return nil, fmt.Errorf("it holds %d bytes, want %d: %w", len(plain), crypto.KeySize, ErrIntegrity)
	}
	return crypto.NewKey(plain)
}

// newVolumeKey makes a volume key (GenerateDataKey with the first of keys) and
// wraps it under each of the others (Encrypt). Keys are recorded by the ID that
// DescribeKey gives, never by an alias; two names of one key are refused before
// anything is made. The caller wipes the key.
func newVolumeKey(ctx context.Context, volume crypto.ID, keys []kmsprovider.KeyURI, providers *kmsprovider.Registry) (*crypto.Key, []ConfigKey, error) {
	if len(keys) == 0 || len(keys) > crypto.MaxWrappedKeys {
		return nil, nil, fmt.Errorf("make volume key: %d wrapping keys, want 1 to %d", len(keys), crypto.MaxWrappedKeys)
	}
	out := make([]ConfigKey, len(keys))
	for i, uri := range keys {
		keyID, err := describeKey(ctx, uri, providers)
		if err != nil {
			return nil, nil, fmt.Errorf("look up key %s: %w", uri, err)
		}
		for j := range i {
			if out[j].Provider == uri.Provider && out[j].KeyID == keyID {
				return nil, nil, fmt.Errorf("make volume key: %s and %s are the same key %s", keys[j], uri, keyID)
			}
		}
		out[i] = ConfigKey{Provider: uri.Provider, KeyID: keyID, State: keyActive}
	}
	var vk *crypto.Key
	for i := range out {
		if err := wrapVolumeKey(ctx, volume, &out[i], providers, &vk); err != nil {
			vk.Wipe()
			return nil, nil, fmt.Errorf("wrap volume key with %s: %w", keys[i], err)
		}
	}
	return vk, out, nil
}

// describeKey resolves the name of a key to its ID.
func describeKey(ctx context.Context, uri kmsprovider.KeyURI, providers *kmsprovider.Registry) (string, error) {
	p, err := providers.Provider(ctx, uri.Provider)
	if err != nil {
		return "", err
	}
	info, err := p.DescribeKey(ctx, uri.KeyID)
	return info.KeyID, err
}

// wrapVolumeKey fills k.Wrapped with *vk, or makes *vk if there is none yet.
func wrapVolumeKey(ctx context.Context, volume crypto.ID, k *ConfigKey, providers *kmsprovider.Registry, vk **crypto.Key) error {
	p, err := providers.Provider(ctx, k.Provider)
	if err != nil {
		return err
	}
	ec := volumeKeyContext(volume)
	if *vk != nil {
		k.Wrapped, err = p.Encrypt(ctx, k.KeyID, (*vk).Bytes(), ec)
	} else {
		var plain []byte
		plain, k.Wrapped, err = p.GenerateDataKey(ctx, k.KeyID, ec)
		defer clear(plain)
		if err == nil {
			*vk, err = crypto.NewKey(plain)
		}
	}
	if err != nil {
		return err
	}
	return k.check()
}
