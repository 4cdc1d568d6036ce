package local

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local/audit"
)

const providerName = "local"

// Options say where a keystore is and what it works with.
type Options struct {
	// Path is the keystore file. Its lock, Path.lock, and its temporary,
	// Path.tmp, stand beside it.
	Path string
	// Passphrase is asked at most once per Open or Create, after all that can
	// fail without it. What it returns is wiped after use.
	Passphrase func() ([]byte, error)
	// Random gives key material, IDs and nonces; nil is crypto/rand's Reader.
	// It must be cryptographically secure and safe for concurrent use.
	Random io.Reader
	// Now is the clock for all dates and for what they make due; nil is time.Now.
	Now func() time.Time
	// AuditLog is the file of the audit log; empty: Path.audit.
	AuditLog string
	// KDF is what Create protects the passphrase with; nil is
	// DefaultKDFParams. Open takes the file's own.
	KDF *KDFParams
}

// Keystore is an open keystore: a KMS in one file. It is safe for concurrent
// use, also of the same file by other processes. Close it to wipe its keys.
type Keystore struct {
	path string // as the user gave it
	real string // without symbolic links

	auditPath string     // empty: beside real
	auditing  sync.Mutex // guards log; taken before mu, and after the file lock
	log       *audit.Log // nil until the first event

	random io.Reader
	now    func() time.Time

	account string        // of the state, for good
	writer  chan struct{} // holds a token while this process changes the file
	retry   atomic.Int64  // Unix nanoseconds before which settle is not tried again

	mu     sync.RWMutex // guards the fields below; held for reading while keys are in use
	closed bool
	sealer *sealer
	state  *snapshot
}

var (
	_ kmsprovider.Provider = (*Keystore)(nil)
	_ io.Closer            = (*Keystore)(nil)
	_ fmt.Formatter        = (*Keystore)(nil)
)

// Create makes a new keystore without keys, and the missing directories above
// it with mode 0700. An existing file is refused with fs.ErrExist.
func Create(ctx context.Context, o Options) (_ *Keystore, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create keystore %s: %w", o.Path, err)
		}
	}()
	params := DefaultKDFParams()
	if o.KDF != nil {
		params = *o.KDF
	}
	if err := params.check(); err != nil {
		return nil, fmt.Errorf("check key derivation: %w: %w", kmsprovider.ErrInvalidInput, err)
	}
	k, err := newKeystore(ctx, o)
	if err != nil {
		return nil, err
	}
	if k.real, err = filepath.Abs(o.Path); err != nil {
		return nil, err
	}
	if err := mustBeMissing(k.real); err != nil {
		return nil, err
	}
	passphrase, err := ask(o.Passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("the passphrase is empty: %w", kmsprovider.ErrInvalidInput)
	}
	d, sealer, err := k.newDocument(params, passphrase)
	if err != nil {
		return nil, err
	}
	if err := k.writeFirst(ctx, d, sealer); err != nil {
		sealer.wipe()
		return nil, err
	}
	if k.state, err = k.load(sealer, nil); err != nil {
		sealer.wipe()
		return nil, err
	}
	k.sealer, k.account = sealer, k.state.doc.Account
	return k, nil
}

// Open opens an existing keystore; it takes as long as Argon2id does. Errors:
// ErrNoKeystore, ErrWrongPassphrase, ErrDamaged, ErrVersion, all with the path.
func Open(ctx context.Context, o Options) (_ *Keystore, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open keystore %s: %w", o.Path, err)
		}
	}()
	k, err := newKeystore(ctx, o)
	if err != nil {
		return nil, err
	}
	absolute, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, err
	}
	if k.real, err = filepath.EvalSymlinks(absolute); err != nil {
		return nil, missingFile(err)
	}
	d, file, _, err := k.read()
	if err != nil {
		return nil, err
	}
	file.Close()
	passphrase, err := ask(o.Passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	kek, err := d.openKEK(passphrase)
	if err != nil {
		return nil, err
	}
	defer kek.Wipe()
	sealer, err := newSealer(kek, d.ID)
	if err != nil {
		return nil, err
	}
	if k.state, err = k.load(sealer, nil); err != nil {
		sealer.wipe()
		return nil, err
	}
	k.sealer, k.account = sealer, k.state.doc.Account
	return k, nil
}

func newKeystore(ctx context.Context, o Options) (*Keystore, error) {
	if o.Path == "" || o.Passphrase == nil {
		return nil, fmt.Errorf("a path and a passphrase are needed: %w", kmsprovider.ErrInvalidInput)
	}
	k := &Keystore{path: o.Path, auditPath: o.AuditLog, random: o.Random, now: o.Now, writer: make(chan struct{}, 1)}
	if k.random == nil {
		k.random = rand.Reader
	}
	if k.now == nil {
		k.now = time.Now
	}
	return k, ctx.Err()
}

func ask(source func() ([]byte, error)) ([]byte, error) {
	passphrase, err := source()
	if err != nil {
		clear(passphrase)
		return nil, fmt.Errorf("ask for passphrase: %w", err)
	}
	return passphrase, nil
}

// newDocument draws the keys of a new keystore.
func (k *Keystore) newDocument(p KDFParams, passphrase []byte) (*document, *sealer, error) {
	var id, salt [16]byte
	if _, err := io.ReadFull(k.random, id[:]); err != nil {
		return nil, nil, fmt.Errorf("draw keystore ID: %w", err)
	}
	if _, err := io.ReadFull(k.random, salt[:]); err != nil {
		return nil, nil, fmt.Errorf("draw salt: %w", err)
	}
	account, err := newAccount(k.random)
	if err != nil {
		return nil, nil, err
	}
	d := &document{
		Format:  documentFormat,
		Version: documentVersion,
		ID:      hex.EncodeToString(id[:]),
		Account: account,
		Created: k.timestamp(),
		KDF:     kdfRecord{Name: kdfName, Time: p.Time, MemoryKiB: p.MemoryKiB, Threads: p.Threads, Salt: salt[:]},
	}
	kek, err := crypto.GenerateKey(k.random)
	if err != nil {
		return nil, nil, fmt.Errorf("draw keystore key: %w", err)
	}
	defer kek.Wipe()
	if d.KEK, err = d.sealKEK(k.random, passphrase, kek); err != nil {
		return nil, nil, err
	}
	sealer, err := newSealer(kek, d.ID)
	if err != nil {
		return nil, nil, err
	}
	return d, sealer, nil
}

func (k *Keystore) writeFirst(ctx context.Context, d *document, s *sealer) error {
	b, err := s.finish(d)
	if err != nil {
		return err
	}
	if err := makeDirs(filepath.Dir(k.real)); err != nil {
		return err
	}
	unlock, err := lockFile(ctx, k.real)
	if err != nil {
		return err
	}
	defer unlock()
	if err := mustBeMissing(k.real); err != nil {
		return err
	}
	return replaceFile(k.real, b, nil)
}

func mustBeMissing(path string) error {
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return fs.ErrExist
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// missingFile turns fs.ErrNotExist into ErrNoKeystore.
func missingFile(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoKeystore
	}
	return err
}

// timestamp is now as the keystore stores it.
func (k *Keystore) timestamp() time.Time {
	return k.now().UTC().Truncate(time.Microsecond)
}

// Path returns Options.Path.
func (k *Keystore) Path() string { return k.path }

// Close waits for the calls under way, wipes the keys that can be wiped, and
// drops the rest for the garbage collector: Go's AES keeps its expanded keys
// where nobody can wipe them. Later calls fail with fs.ErrClosed; a second
// Close does nothing.
func (k *Keystore) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	k.closed = true
	k.state.file.Close()
	k.state = nil
	k.sealer.wipe()
	k.mu.Unlock()
	k.auditing.Lock()
	defer k.auditing.Unlock()
	if k.log == nil {
		return nil
	}
	return k.log.Close()
}

// Format prints the path and nothing else, whatever the verb.
func (k *Keystore) Format(f fmt.State, _ rune) {
	io.WriteString(f, "local keystore "+k.path)
}
