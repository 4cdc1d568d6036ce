package volume

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// dataKeyContext is the encryption context of a file's data key. It has no path
// in it: a KMS's log shows it in plaintext.
func dataKeyContext(volume, file crypto.ID) kmsprovider.Context {
	return kmsprovider.Context{"kmsfs:volume": volume.String(), "kmsfs:file": file.String()}
}

// volumeProvider names the entries of sidecars in key mode volume.
const volumeProvider = "volume"

// unwrapFile reads a file's sidecar, has one of its entries opened, and checks
// that the key is the file's. Any entry will do; those of other wrapping keys
// than the volume's are refused before any call.
func (v *Volume) unwrapFile(ctx context.Context, id crypto.ID) (*fileKeys, error) {
	sc, err := v.sidecars.read(v.id, id)
	if err != nil {
		return nil, err
	}
	dek, err := v.unwrapEntry(ctx, sc)
	if err != nil {
		if dek, sc, err = v.unwrapAgain(ctx, sc, err); err != nil {
			return nil, err
		}
	}
	secret, err := v.fileSecret(sc, dek)
	dek.Wipe()
	if err != nil {
		return nil, err
	}
	return deriveFileKeys(secret, id, v.uptime()), nil
}

// fileSecret makes the file's secret of a data key that an entry of sc held, and
// checks that it is the one sc commits to. The caller wipes both.
func (v *Volume) fileSecret(sc *crypto.Sidecar, dek *crypto.Key) (*crypto.Key, error) {
	secret := v.dataKeys.FileSecret(dek)
	if err := sc.CheckCommitment(secret); err != nil {
		secret.Wipe()
		return nil, &sidecarError{sidecarPath(sc.File), err}
	}
	return secret, nil
}

// unwrapAgain follows rewrap, which may have replaced the sidecar, or the key
// that opens it, since both were read. Where neither changed, the failure stands.
func (v *Volume) unwrapAgain(ctx context.Context, sc *crypto.Sidecar, failure error) (*crypto.Key, *crypto.Sidecar, error) {
	if v.mode == ModeVolume || ctx.Err() != nil {
		return nil, nil, failure
	}
	before := v.conf()
	v.followConfig()
	again, err := v.sidecars.read(v.id, sc.File)
	if err != nil || v.conf() == before && reflect.DeepEqual(again, sc) {
		return nil, nil, failure
	}
	dek, err := v.unwrapEntry(ctx, again)
	return dek, again, err
}

func (v *Volume) unwrapEntry(ctx context.Context, sc *crypto.Sidecar) (*crypto.Key, error) {
	name := sidecarPath(sc.File)
	if v.mode == ModeVolume {
		if len(sc.Keys) != 1 || sc.Keys[0].Provider != volumeProvider || sc.Keys[0].KeyID != "" {
			return nil, &sidecarError{name, errors.New("it is not of key mode volume")}
		}
		dek, err := v.dataKeys.Unwrap(sc.File, sc.Keys[0].Wrapped)
		if err != nil {
			return nil, &sidecarError{name, err}
		}
		return dek, nil
	}
	ctx, cancel := context.WithTimeout(ctx, v.kmsDeadline)
	defer cancel()
	var known []crypto.WrappedKey
	for _, want := range v.conf().wrappingKeys() {
		for _, e := range sc.Keys {
			if e.Provider == want.Provider && e.KeyID == want.KeyID {
				known = append(known, e)
			}
		}
	}
	v.setbacks.order(known)
	var failed []error
	for i, e := range known {
		its, cancel := share(ctx, len(known)-i)
		dek, err := v.decryptDataKey(its, sc.File, e)
		cancel()
		if err == nil {
			for _, before := range known[:i] {
				v.setbacks.note(before.KeyID)
			}
			return dek, nil
		}
		if doesNotFit(err) {
			err = &sidecarError{name, err}
		}
		failed = append(failed, err)
	}
	if len(failed) == 0 {
		return nil, &sidecarError{name, errors.New("none of its entries is of one of the volume's keys")}
	}
	return nil, joinFailures(failed)
}

func (v *Volume) decryptDataKey(ctx context.Context, file crypto.ID, e crypto.WrappedKey) (*crypto.Key, error) {
	p, err := v.providers.Provider(ctx, e.Provider)
	if err != nil {
		return nil, err
	}
	plain, err := p.Decrypt(ctx, e.KeyID, e.Wrapped, dataKeyContext(v.id, file))
	if err != nil {
		return nil, fmt.Errorf("decrypt data key with %s: %w", e.KeyID, err)
	}
	defer clear(plain)
	dek, err := crypto.NewKey(plain)
	if err != nil {
		return nil, &sidecarError{sidecarPath(file), fmt.Errorf("decrypt data key with %s: %w", e.KeyID, err)}
	}
	return dek, nil
}

// newDataKey makes a data key for a new file ID, wrapped under each of the
// volume's keys, and stores its sidecar.
func (v *Volume) newDataKey(ctx context.Context) (newFileKey, error) {
	if err := v.custody.gate.enter(ordinary); err != nil {
		return newFileKey{}, err
	}
	defer v.custody.gate.leave()
	id, err := crypto.NewID(v.random)
	if err != nil {
		return newFileKey{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, v.kmsDeadline)
	defer cancel()
	var wrappers []ConfigKey
	if v.mode == ModeFile {
		config := v.beginIssue()
		defer v.endIssue(config) // only when the sidecar is written
		wrappers = config.activeKeys()
	}
	dek, wrapped, err := v.generate(ctx, id, wrappers)
	if err != nil {
		return newFileKey{}, err
	}
	secret := v.dataKeys.FileSecret(dek)
	dek.Wipe()
	sc := &crypto.Sidecar{
		Volume: v.id, File: id, Keys: wrapped,
		Commitment: crypto.Commitment(secret, v.id, id),
	}
	k, err := v.readyKey(id, deriveFileKeys(secret, id, v.uptime()))
	if err != nil {
		return newFileKey{}, err
	}
	if err := v.sidecars.write(sc); err != nil {
		k.wipe()
		return newFileKey{}, err
	}
	v.debts.owe(sidecarDebt(id), nil)
	return k, nil
}

// readyKey begins the writer sessions of a new file.
func (v *Volume) readyKey(id crypto.ID, keys *fileKeys) (newFileKey, error) {
	k := newFileKey{id: id, keys: keys, records: crypto.NewRecordCipher(v.vk, v.id, id)}
	var err error
	if k.recSealer, err = k.records.NewSealer(v.random); err != nil {
		k.wipe()
		return newFileKey{}, err
	}
	blocks, err := keys.blocks.NewSealer(v.random)
	if err != nil {
		k.wipe()
		return newFileKey{}, err
	}
	k.writes = &writerSession{keys, blocks}
	return k, nil
}

// generate draws the data key: from the KMS, wrapped under each of wrappers, or
// under the volume key.
func (v *Volume) generate(ctx context.Context, id crypto.ID, wrappers []ConfigKey) (*crypto.Key, []crypto.WrappedKey, error) {
	if v.mode == ModeVolume {
		dek, err := crypto.GenerateKey(v.random)
		if err != nil {
			return nil, nil, err
		}
		w, err := v.dataKeys.Wrap(v.random, id, dek)
		return dek, []crypto.WrappedKey{{Provider: volumeProvider, Wrapped: w}}, err
	}
	ec := dataKeyContext(v.id, id)
	var dek *crypto.Key
	var wrapped []crypto.WrappedKey
	for _, key := range wrappers {
		p, err := v.providers.Provider(ctx, key.Provider)
		if err != nil {
			dek.Wipe()
			return nil, nil, err
		}
		var w []byte
		if dek == nil {
			var plain []byte
			if plain, w, err = p.GenerateDataKey(ctx, key.KeyID, ec); err == nil {
				dek, err = crypto.NewKey(plain)
				clear(plain)
			}
		} else {
			w, err = p.Encrypt(ctx, key.KeyID, dek.Bytes(), ec)
		}
		if err != nil {
			dek.Wipe()
			return nil, nil, fmt.Errorf("generate data key with %s: %w", key.KeyID, err)
		}
		wrapped = append(wrapped, crypto.WrappedKey{Provider: key.Provider, KeyID: key.KeyID, Wrapped: w})
	}
	return dek, wrapped, nil
}

// defaultKMSDeadline is how long a file operation waits for the KMS.
const defaultKMSDeadline = 30 * time.Second
