package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local/audit"
)

// ChangePassphrase seals the keystore's key under another passphrase, and under
// params; nil: those it has. The current passphrase is asked for first and must
// be right, else ErrWrongPassphrase. What the functions return is wiped. Nothing
// else of the keystore changes: other processes that have it open go on, and a
// copy of the old file still opens with the old passphrase.
func (k *Keystore) ChangePassphrase(ctx context.Context, current, next func() ([]byte, error), params *KDFParams) error {
	err := k.changePassphrase(ctx, current, next, params)
	if err != nil {
		return fmt.Errorf("change passphrase of keystore %s: %w", k.path, err)
	}
	return nil
}

func (k *Keystore) changePassphrase(ctx context.Context, current, next func() ([]byte, error), params *KDFParams) error {
	state, err := k.acquire(ctx)
	if err != nil {
		return err
	}
	old := *state.doc
	k.mu.RUnlock()
	// Argon2id takes its time: no lock is held meanwhile.
	sealed, err := k.reseal(old, current, next, params)
	if err != nil {
		return err
	}
	return k.update(ctx, func(_ *snapshot, d *document) error {
		if !bytes.Equal(d.KEK, old.KEK) {
			return errors.New("another process has changed it meanwhile")
		}
		d.KDF, d.KEK = sealed.KDF, sealed.KEK
		return nil
	}, func() error {
		c := call{k: k, caller: k.Root()}
		return k.append(audit.Event{
			EventTime: k.timestamp().Format(time.RFC3339), EventName: "ChangePassphrase", AWSRegion: region,
			UserIdentity: c.identity(), SourceIPAddress: inProcess, UserAgent: c.caller.UserAgent, RecipientAccountID: k.account,
		})
	})
}

// reseal returns d with its key sealed under the next passphrase.
func (k *Keystore) reseal(d document, current, next func() ([]byte, error), params *KDFParams) (*document, error) {
	if params != nil {
		if err := params.check(); err != nil {
			return nil, fmt.Errorf("check key derivation: %w: %w", kmsprovider.ErrInvalidInput, err)
		}
	}
	was, err := ask(current)
	if err != nil {
		return nil, err
	}
	defer clear(was)
	kek, err := d.openKEK(was)
	if err != nil {
		return nil, err
	}
	defer kek.Wipe()
	now, err := ask(next)
	if err != nil {
		return nil, err
	}
	defer clear(now)
	if len(now) == 0 {
		return nil, fmt.Errorf("the new passphrase is empty: %w", kmsprovider.ErrInvalidInput)
	}
	if params != nil {
		d.KDF.Time, d.KDF.MemoryKiB, d.KDF.Threads = params.Time, params.MemoryKiB, params.Threads
	}
	d.KDF.Salt = make([]byte, minSalt)
	if _, err := io.ReadFull(k.random, d.KDF.Salt); err != nil {
		return nil, fmt.Errorf("draw salt: %w", err)
	}
	d.KEK, err = d.sealKEK(k.random, now, kek)
	return &d, err
}
