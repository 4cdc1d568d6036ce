package volume

import (
	"context"
	"errors"
	"fmt"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// volumeKeyContext is the encryption context of the volume key.
func volumeKeyContext(id crypto.ID) kmsprovider.Context {
	return kmsprovider.Context{"kmsfs:volume": id.String(), "kmsfs:purpose": "volume-key"}
}

// unlockVolumeKey unwraps the volume key with the first wrapping key that opens
// it, and authenticates the configuration with it. One KMS call when all is well.
func unlockVolumeKey(ctx context.Context, c *Config, providers *kmsprovider.Registry) (*crypto.Key, error) {
	var failed []error
	for _, k := range c.wrappingKeys() {
		vk, err := decryptVolumeKey(ctx, c.ID, k, providers)
		if err != nil {
			failed = append(failed, fmt.Errorf("unwrap volume key with %s key %s: %w", k.Provider, k.KeyID, err))
			continue
		}
		if err := c.authenticate(vk); err != nil {
			vk.Wipe()
			return nil, err
		}
		return vk, nil
	}
	return nil, errors.Join(failed...)
}

func decryptVolumeKey(ctx context.Context, volume crypto.ID, k ConfigKey, providers *kmsprovider.Registry) (*crypto.Key, error) {
	p, err := providers.Provider(ctx, k.Provider)
	if err != nil {
		return nil, err
	}
	plain, err := p.Decrypt(ctx, k.KeyID, k.Wrapped, volumeKeyContext(volume))
	if errors.Is(err, kmsprovider.ErrInvalidCiphertext) || errors.Is(err, kmsprovider.ErrIncorrectKey) {
		err = fmt.Errorf("%s does not fit the key: %w: %w", configName, ErrIntegrity, err)
	}
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return crypto.NewKey(plain)
}

// newVolumeKey makes a volume key and wraps it under each of the keys, which
// are resolved to their ARNs.
func newVolumeKey(ctx context.Context, volume crypto.ID, keys []kmsprovider.KeyURI, providers *kmsprovider.Registry) (*crypto.Key, []ConfigKey, error) {
	var vk *crypto.Key
	var out []ConfigKey
	for _, uri := range keys {
		k, err := wrapVolumeKey(ctx, volume, uri, providers, &vk)
		if err != nil {
			vk.Wipe()
			return nil, nil, fmt.Errorf("wrap volume key with %s: %w", uri, err)
		}
		out = append(out, k)
	}
	if vk == nil {
		return nil, nil, errors.New("wrap volume key: no key given")
	}
	return vk, out, nil
}

// wrapVolumeKey wraps *vk under one key, or makes *vk if there is none yet.
func wrapVolumeKey(ctx context.Context, volume crypto.ID, uri kmsprovider.KeyURI, providers *kmsprovider.Registry, vk **crypto.Key) (ConfigKey, error) {
	p, err := providers.Provider(ctx, uri.Provider)
	if err != nil {
		return ConfigKey{}, err
	}
	info, err := p.DescribeKey(ctx, uri.KeyID)
	if err != nil {
		return ConfigKey{}, err
	}
	k := ConfigKey{Provider: uri.Provider, KeyID: info.KeyID, State: keyActive}
	ec := volumeKeyContext(volume)
	if *vk != nil {
		k.Wrapped, err = p.Encrypt(ctx, info.KeyID, (*vk).Bytes(), ec)
		return k, err
	}
	var plain []byte
	if plain, k.Wrapped, err = p.GenerateDataKey(ctx, info.KeyID, ec); err != nil {
		return ConfigKey{}, err
	}
	defer clear(plain)
	*vk, err = crypto.NewKey(plain)
	return k, err
}
