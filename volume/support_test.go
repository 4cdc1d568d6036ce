package volume

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// fakeKMS is a KMS in memory. It counts calls, and can be made to fail.
type fakeKMS struct {
	name  string // "" means "local"
	mu    sync.Mutex
	keys  map[string]*crypto.XAES
	calls map[string]int
	fail  func(op string) error
}

const fakeKey = "arn:fake:key/1"

func newFakeKMS() *fakeKMS {
	k := &fakeKMS{keys: map[string]*crypto.XAES{}, calls: map[string]int{}}
	for _, id := range []string{fakeKey, "arn:fake:key/2"} {
		key, err := crypto.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		k.keys[id] = crypto.NewXAES(key)
	}
	return k
}

func (k *fakeKMS) Name() string {
	if k.name != "" {
		return k.name
	}
	return "local"
}

func (k *fakeKMS) begin(ctx context.Context, op, keyID string) (*crypto.XAES, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls[op]++
	if k.fail != nil {
		if err := k.fail(op); err != nil {
			return nil, err
		}
	}
	if keyID == "alias/kmsfs" {
		keyID = fakeKey
	}
	key := k.keys[keyID]
	if key == nil {
		return nil, fmt.Errorf("%s %s: %w", op, keyID, kmsprovider.ErrKeyNotFound)
	}
	return key, ctx.Err()
}

func (k *fakeKMS) count(op string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[op]
}

func (k *fakeKMS) setFail(f func(op string) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = f
}

func (k *fakeKMS) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) ([]byte, []byte, error) {
	key, err := k.begin(ctx, "GenerateDataKey", keyID)
	if err != nil {
		return nil, nil, err
	}
	plain := make([]byte, 32)
	_, _ = rand.Read(plain)
	wrapped, err := key.Seal(nil, rand.Reader, plain, ec.Canonical())
	return plain, wrapped, err
}

func (k *fakeKMS) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	key, err := k.begin(ctx, "Decrypt", keyID)
	if err != nil {
		return nil, err
	}
	plain, err := key.Open(nil, wrapped, ec.Canonical())
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", kmsprovider.ErrInvalidCiphertext)
	}
	return plain, nil
}

func (k *fakeKMS) Encrypt(ctx context.Context, keyID string, plain []byte, ec kmsprovider.Context) ([]byte, error) {
	key, err := k.begin(ctx, "Encrypt", keyID)
	if err != nil {
		return nil, err
	}
	return key.Seal(nil, rand.Reader, plain, ec.Canonical())
}

func (k *fakeKMS) ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC kmsprovider.Context, to string, toEC kmsprovider.Context) ([]byte, error) {
	source, err := k.begin(ctx, "ReEncrypt", from)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	target := k.keys[to]
	k.mu.Unlock()
	if target == nil {
		return nil, fmt.Errorf("re-encrypt to %s: %w", to, kmsprovider.ErrKeyNotFound)
	}
	plain, err := source.Open(nil, wrapped, fromEC.Canonical())
	if err != nil {
		return nil, fmt.Errorf("re-encrypt: %w", kmsprovider.ErrInvalidCiphertext)
	}
	return target.Seal(nil, rand.Reader, plain, toEC.Canonical())
}

func (k *fakeKMS) DescribeKey(ctx context.Context, keyID string) (kmsprovider.KeyInfo, error) {
	if _, err := k.begin(ctx, "DescribeKey", keyID); err != nil {
		return kmsprovider.KeyInfo{}, err
	}
	if keyID == "alias/kmsfs" {
		keyID = fakeKey
	}
	return kmsprovider.KeyInfo{KeyID: keyID, Provider: "local", State: kmsprovider.StateEnabled}, nil
}

// bench is a volume's place and its KMS, for tests to open as they like.
type bench struct {
	t     testing.TB
	dir   string
	state string
	kms   *fakeKMS
	more  []*fakeKMS // of other names
	log   *bytes.Buffer
	store Backing // if not the system's
}

func newBench(t testing.TB, mode KeyMode) *bench {
	t.Helper()
	return newBenchWith(t, mode, newFakeKMS())
}

func newBenchWith(t testing.TB, mode KeyMode, kms *fakeKMS) *bench {
	t.Helper()
	return newBenchIn(t, t.TempDir(), mode, kms)
}

// newBenchIn makes a volume and its host state in an empty directory.
func newBenchIn(t testing.TB, place string, mode KeyMode, kms *fakeKMS) *bench {
	t.Helper()
	b := &bench{t: t, dir: filepath.Join(place, "backing"), state: filepath.Join(place, "state"), kms: kms, log: new(bytes.Buffer)}
	_, err := Init(context.Background(), b.dir, InitOptions{
		Keys: []kmsprovider.KeyURI{{Provider: "local", KeyID: fakeKey}}, Mode: mode,
		Providers: b.registry(), StateDir: b.state,
	})
	if err != nil {
		t.Fatalf("Init: %v", err)
	}
	return b
}

func (b *bench) registry() *kmsprovider.Registry {
	r := kmsprovider.NewRegistry()
	for _, k := range append([]*fakeKMS{b.kms}, b.more...) {
		r.Register(k.Name(), func(context.Context) (kmsprovider.Provider, error) { return k, nil })
	}
	return r
}

func (b *bench) options() Options {
	return Options{
		Providers: b.registry(), StateDir: b.state, Backing: b.store,
		Log: slog.New(slog.NewTextHandler(&lockedWriter{w: b.log}, nil)),
	}
}

// tryOpen opens the volume with options changed by edit.
func (b *bench) tryOpen(edit ...func(*Options)) (*Volume, error) {
	o := b.options()
	for _, e := range edit {
		e(&o)
	}
	return Open(context.Background(), b.dir, o)
}

// open opens the volume and closes it when the test ends, if it is still open.
func (b *bench) open(edit ...func(*Options)) *Volume {
	b.t.Helper()
	v, err := b.tryOpen(edit...)
	if err != nil {
		b.t.Fatalf("Open: %v", err)
	}
	b.t.Cleanup(func() { b.close(v) })
	return v
}

func (b *bench) close(v *Volume) {
	b.t.Helper()
	if v.ctx.Err() != nil {
		return
	}
	if err := v.Close(); err != nil {
		b.t.Errorf("Close: %v", err)
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// backingFile returns the path of the backing file of a node.
func (b *bench) backingFile(n *Node) string { return filepath.Join(b.dir, n.BackingPath()) }

func createFile(t testing.TB, dir *Node, name string, content []byte) *Node {
	t.Helper()
	n, _, err := dir.Create(name, 0o644, Owner{})
	if err != nil {
		t.Fatalf("create %q: %v", name, err)
	}
	writeAll(t, n, content, 0)
	return n
}

func writeAll(t testing.TB, n *Node, data []byte, off int64) {
	t.Helper()
	if len(data) == 0 {
		return
	}
	if m, err := n.WriteAt(context.Background(), data, off); err != nil || m != len(data) {
		t.Fatalf("write %d bytes at %d: %d, %v", len(data), off, m, err)
	}
}

func readAll(t testing.TB, n *Node) []byte {
	t.Helper()
	b, err := tryReadAll(n)
	if err != nil {
		t.Fatalf("read %q: %v", n.Path(), err)
	}
	return b
}

func tryReadAll(n *Node) ([]byte, error) {
	a, err := n.Attr()
	if err != nil {
		return nil, err
	}
	b := make([]byte, a.Size+1)
	m, err := n.ReadAt(context.Background(), b, 0)
	return b[:m], err
}

func lookup(t testing.TB, dir *Node, name string) *Node {
	t.Helper()
	n, _, err := dir.Lookup(name)
	if err != nil {
		t.Fatalf("lookup %q: %v", name, err)
	}
	return n
}

func list(t testing.TB, dir *Node) []string {
	t.Helper()
	l, err := dir.List()
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	defer l.Close()
	var names []string
	for {
		e, err := l.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if e.Name != "." && e.Name != ".." {
			names = append(names, e.Name)
		}
	}
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*31 + byte(i>>8)*17 + seed
	}
	return b
}

func flipByte(t testing.TB, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// checkSeal compares a file's record with what its backing file holds: length,
// number of stored blocks and root.
func checkSeal(t testing.TB, n *Node) {
	t.Helper()
	f, err := n.openFile(false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.release()
	keys, err := f.unlock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer keys.release()
	f.content.RLock()
	defer f.content.RUnlock()
	b := make([]byte, 0)
	fd, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.desc.fd))
	if err == nil {
		b, err = io.ReadAll(fd)
		fd.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	rec, err := f.records.Open(b[:crypto.HeaderSize])
	if err != nil || rec != f.rec {
		t.Fatalf("%q: record on disk %+v, %v; in memory %+v", n.Path(), rec, err, f.rec)
	}
	if size, err := crypto.PlainSize(int64(len(b))); err != nil || uint64(size) != rec.Size {
		t.Fatalf("%q: backing file holds %d bytes of content, %v; record says %d", n.Path(), size, err, rec.Size)
	}
	var root [16]byte
	stored := keys.rooter.XORRecords(&root, b[crypto.HeaderSize:], 0)
	if stored != rec.Stored {
		t.Fatalf("%q: %d blocks stored, record says %d", n.Path(), stored, rec.Stored)
	}
	if rec.HasRoot() && root != rec.Root {
		t.Fatalf("%q: root does not match the blocks", n.Path())
	}
}
