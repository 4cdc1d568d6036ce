package volume

import (
	"context"
	"errors"
	"slices"
	"strings"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// rewrapEntries returns the sidecar that is to take the place of sc, or nil if
// sc is as it should be: one entry for each active key, in the order of
// volume.json. What it keeps and what it adds has been opened and fits the
// commitment, as far as the key can be used here; only then does the caller
// replace the sidecar, and with it what could open it before.
//
// An error that is the sidecar's fault is a sidecarError: none of its entries
// yields the file's key.
func (r *rewrap) rewrapEntries(ctx context.Context, sc *crypto.Sidecar) (*crypto.Sidecar, error) {
	active := r.vol.conf().activeKeys()
	next := &crypto.Sidecar{Volume: sc.Volume, File: sc.File, Commitment: sc.Commitment}
	changed := len(sc.Keys) != len(active)
	for _, k := range active {
		e, kept, err := r.entryFor(ctx, sc, &k)
		if err != nil {
			return nil, err
		}
		changed = changed || !kept
		next.Keys = append(next.Keys, e)
	}
	if !changed {
		return nil, nil
	}
	return next, nil
}

// entryFor returns sc's entry of the key k, or a new one where there is none or
// it does not hold the file's key.
func (r *rewrap) entryFor(ctx context.Context, sc *crypto.Sidecar, k *ConfigKey) (e crypto.WrappedKey, kept bool, err error) {
	at := slices.IndexFunc(sc.Keys, func(e crypto.WrappedKey) bool { return e.Provider == k.Provider && e.KeyID == k.KeyID })
	if at >= 0 {
		if !r.usable[k.id()] {
			return sc.Keys[at], true, nil
		}
		err := r.prove(ctx, sc, sc.Keys[at])
		if err == nil || !isEntryDamage(err) {
			return sc.Keys[at], true, err
		}
	}
	e, err = r.newEntry(ctx, sc, k)
	return e, false, err
}

// prove opens an entry and compares what is in it with the commitment.
func (r *rewrap) prove(ctx context.Context, sc *crypto.Sidecar, e crypto.WrappedKey) error {
	dek, err := r.openEntry(ctx, sc, e)
	if err == nil {
		dek.Wipe()
	}
	return err
}

// openEntry returns the file's data key from an entry; the caller wipes it.
func (r *rewrap) openEntry(ctx context.Context, sc *crypto.Sidecar, e crypto.WrappedKey) (*crypto.Key, error) {
	dek, err := r.vol.decryptDataKey(ctx, sc.File, e)
	if err != nil {
		return nil, err
	}
	secret, err := r.vol.fileSecret(sc, dek)
	if err != nil {
		dek.Wipe()
		return nil, err
	}
	secret.Wipe()
	return dek, nil
}

// newEntry wraps the file's key under k, from the first of sc's entries that
// yields it. The causes of all are the error if none does; the sidecar is only
// damaged if no other cause is among them.
func (r *rewrap) newEntry(ctx context.Context, sc *crypto.Sidecar, k *ConfigKey) (crypto.WrappedKey, error) {
	var failed []error
	for _, from := range r.sources(sc, k) {
		w, err := r.wrapFrom(ctx, sc, from, k)
		if err == nil {
			return crypto.WrappedKey{Provider: k.Provider, KeyID: k.KeyID, Wrapped: w}, nil
		}
		if ctx.Err() != nil {
			return crypto.WrappedKey{}, err
		}
		failed = append(failed, err)
	}
	if len(failed) == 0 {
		failed = append(failed, errors.New("none of its entries is of one of the volume's keys that can be used here"))
	} else if i := slices.IndexFunc(failed, func(err error) bool { return !isEntryDamage(err) }); i >= 0 {
		return crypto.WrappedKey{}, failed[i]
	}
	return crypto.WrappedKey{}, &sidecarError{sidecarPath(sc.File), errors.Join(failed...)}
}

// sources are the entries of sc that may yield the file's key for k: of the
// volume's keys alone, those first from which the KMS itself can re-encrypt. An
// active key that opened nothing at the start opens nothing here.
func (r *rewrap) sources(sc *crypto.Sidecar, k *ConfigKey) []crypto.WrappedKey {
	var near, far []crypto.WrappedKey
	for _, known := range r.vol.conf().Keys {
		for _, e := range sc.Keys {
			switch {
			case e.Provider != known.Provider || e.KeyID != known.KeyID || known.id() == k.id():
			case known.State == keyActive && !r.usable[known.id()]:
			case r.canReEncrypt(&e, k):
				near = append(near, e)
			default:
				far = append(far, e)
			}
		}
	}
	return append(near, far...)
}

// canReEncrypt tells whether one call to a KMS exchanges the key around an
// entry: both keys are at one provider, and in one region where they have such.
// What a key that cannot be used here wraps is made from a key seen to fit.
func (r *rewrap) canReEncrypt(from *crypto.WrappedKey, to *ConfigKey) bool {
	return from.Provider == to.Provider && region(from.KeyID) == region(to.KeyID) && r.usable[to.id()]
}

// region is that of an ARN, with what stands before it.
func region(keyID string) string {
	parts := strings.SplitN(keyID, ":", 5)
	if len(parts) < 5 || parts[0] != "arn" {
		return ""
	}
	return strings.Join(parts[:4], ":")
}

// wrapFrom wraps the file's key, which from holds, under the key to, and opens it
// again where that can be done here.
func (r *rewrap) wrapFrom(ctx context.Context, sc *crypto.Sidecar, from crypto.WrappedKey, to *ConfigKey) ([]byte, error) {
	p, err := r.vol.providers.Provider(ctx, to.Provider)
	if err != nil {
		return nil, err
	}
	var w []byte
	ec := dataKeyContext(sc.Volume, sc.File)
	if r.canReEncrypt(&from, to) {
		w, err = p.ReEncrypt(ctx, from.Wrapped, from.KeyID, ec, to.KeyID, ec)
	}
	if w == nil && (err == nil || errors.Is(err, kmsprovider.ErrInvalidInput)) { // not every provider can
		var dek *crypto.Key
		if dek, err = r.openEntry(ctx, sc, from); err == nil {
			w, err = p.Encrypt(ctx, to.KeyID, dek.Bytes(), ec)
			dek.Wipe()
		}
	}
	if err == nil && r.usable[to.id()] {
		err = r.prove(ctx, sc, crypto.WrappedKey{Provider: to.Provider, KeyID: to.KeyID, Wrapped: w})
	}
	return w, err
}

// isEntryDamage tells that an entry does not hold the file's key, from what ails
// the KMS.
func isEntryDamage(err error) bool {
	var bad *sidecarError
	return errors.As(err, &bad) || doesNotFit(err)
}
