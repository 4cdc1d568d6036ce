package volume

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// fileKeys is what a file's data key yields: the data key itself is wiped once
// they are derived. They are shared by all who use the file.
type fileKeys struct {
	blocks *crypto.BlockCipher
	rooter *crypto.Rooter
}

// deriveFileKeys makes a file's keys from its secret, which it wipes.
func deriveFileKeys(secret *crypto.Key, id crypto.ID) *fileKeys {
	content, root := secret.Derive(crypto.LabelContent), secret.Derive(crypto.LabelRoot)
	secret.Wipe()
	k := &fileKeys{blocks: crypto.NewBlockCipher(content, id), rooter: crypto.NewRooter(root)}
	content.Wipe()
	root.Wipe()
	return k
}

// keyCache holds the keys of files in use. A file that several callers want at
// once is unwrapped once; the others wait without a lock.
type keyCache struct {
	unwrap   func(context.Context, crypto.ID) (*fileKeys, error)
	measured func(time.Duration, error) // told what each unwrap took and came to; may be nil

	mu     sync.Mutex
	m      map[crypto.ID]*keyEntry
	used   uint64 // keys unwrapped ahead that were asked for
	unused uint64 // and those that were dropped before
}

type keyEntry struct {
	done chan struct{} // closed when keys or err is set
	keys *fileKeys
	err  error

	ahead   *stream // that had it unwrapped before anybody asked; nil for most
	claimed bool    // somebody has asked since
}

func newKeyCache(unwrap func(context.Context, crypto.ID) (*fileKeys, error)) *keyCache {
	return &keyCache{unwrap: unwrap, m: make(map[crypto.ID]*keyEntry)}
}

// get returns the keys of a file, unwrapping them if they are not cached.
// Failures are not cached: the next caller asks again, and so does one who
// waited for a call that was made ahead.
func (c *keyCache) get(ctx context.Context, id crypto.ID) (*fileKeys, error) {
	for {
		c.mu.Lock()
		e := c.m[id]
		if e == nil {
			e = c.begin(id)
			c.mu.Unlock()
			c.finish(ctx, id, e)
			return e.keys, e.err
		}
		c.claim(e)
		c.mu.Unlock()
		select {
		case <-e.done:
			if e.err == nil || e.ahead == nil {
				return e.keys, e.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin makes the entry of a file whose keys will be unwrapped. The caller
// holds mu.
func (c *keyCache) begin(id crypto.ID) *keyEntry {
	e := &keyEntry{done: make(chan struct{})}
	c.m[id] = e
	return e
}

// finish unwraps the keys of an entry.
func (c *keyCache) finish(ctx context.Context, id crypto.ID, e *keyEntry) {
	began := time.Now()
	e.keys, e.err = c.unwrap(ctx, id)
	if c.measured != nil {
		c.measured(time.Since(began), e.err)
	}
	if e.err != nil {
		c.mu.Lock()
		if c.m[id] == e {
			delete(c.m, id)
		}
		c.mu.Unlock()
	}
	close(e.done)
}

// claim notes that somebody asked for an entry. The caller holds mu.
func (c *keyCache) claim(e *keyEntry) {
	if e.ahead != nil && !e.claimed {
		e.claimed = true
		c.used++
	}
}

// put caches the keys of a file that was just created.
func (c *keyCache) put(id crypto.ID, k *fileKeys) {
	e := &keyEntry{done: make(chan struct{}), keys: k}
	close(e.done)
	c.mu.Lock()
	c.m[id] = e
	c.mu.Unlock()
}

// drop forgets the keys of a file. Calls that hold them go on with them; the
// memory is wiped when the last of them is done with it.
func (c *keyCache) drop(id crypto.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.m[id]; e != nil && e.ahead != nil && !e.claimed {
		c.unused++
	}
	delete(c.m, id)
}

// size is how many files' keys are cached.
func (c *keyCache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.m)
}

// wipe drops and wipes everything.
func (c *keyCache) wipe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, e := range c.m {
		if e.ahead != nil && !e.claimed {
			c.unused++
		}
		select {
		case <-e.done:
			if e.keys != nil {
				e.keys.blocks.Wipe()
			}
		default:
		}
		delete(c.m, id)
	}
}

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
	secret := crypto.FileSecret(v.vk, dek)
	dek.Wipe()
	if err := sc.CheckCommitment(secret); err != nil {
		secret.Wipe()
		return nil, &sidecarError{sidecarPath(id), err}
	}
	return deriveFileKeys(secret, id), nil
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
		dek, err := crypto.UnwrapDataKey(v.vk, v.id, sc.File, sc.Keys[0].Wrapped)
		if err != nil {
			return nil, &sidecarError{name, err}
		}
		return dek, nil
	}
	ctx, cancel := context.WithTimeout(ctx, v.kmsDeadline)
	defer cancel()
	var failed []error
	for _, want := range v.conf().wrappingKeys() {
		for _, e := range sc.Keys {
			if e.Provider != want.Provider || e.KeyID != want.KeyID {
				continue
			}
			dek, err := v.decryptDataKey(ctx, sc.File, e)
			if err == nil {
				return dek, nil
			}
			if errors.Is(err, kmsprovider.ErrInvalidCiphertext) || errors.Is(err, kmsprovider.ErrIncorrectKey) {
				err = &sidecarError{name, err}
			}
			failed = append(failed, err)
		}
	}
	if len(failed) == 0 {
		return nil, &sidecarError{name, errors.New("none of its entries is of one of the volume's keys")}
	}
	return nil, errors.Join(failed...)
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
		return nil, fmt.Errorf("decrypt data key with %s: %w", e.KeyID, err)
	}
	return dek, nil
}

// newDataKey makes a data key for a new file ID, wrapped under each of the
// volume's keys, and stores its sidecar.
func (v *Volume) newDataKey(ctx context.Context) (newFileKey, error) {
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
	secret := crypto.FileSecret(v.vk, dek)
	dek.Wipe()
	sc := &crypto.Sidecar{
		Volume: v.id, File: id, Keys: wrapped,
		Commitment: crypto.Commitment(secret, v.id, id),
	}
	if err := v.sidecars.write(sc); err != nil {
		secret.Wipe()
		return newFileKey{}, err
	}
	v.debts.oweSidecar(id)
	return newFileKey{id: id, keys: deriveFileKeys(secret, id)}, nil
}

// generate draws the data key: from the KMS, wrapped under each of wrappers, or
// under the volume key.
func (v *Volume) generate(ctx context.Context, id crypto.ID, wrappers []ConfigKey) (*crypto.Key, []crypto.WrappedKey, error) {
	if v.mode == ModeVolume {
		dek, err := crypto.GenerateKey(v.random)
		if err != nil {
			return nil, nil, err
		}
		w, err := crypto.WrapDataKey(v.vk, v.random, v.id, id, dek)
		return dek, []crypto.WrappedKey{{Provider: volumeProvider, Wrapped: w}}, err
	}
	ec := dataKeyContext(v.id, id)
	var dek *crypto.Key
	var wrapped []crypto.WrappedKey
	for _, key := range wrappers {
		p, err := v.providers.Provider(ctx, key.Provider)
		if err != nil {
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
