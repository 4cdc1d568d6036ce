package volume

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

const (
	keyA = fakeKey
	keyB = "arn:fake:key/2"
	keyO = "arn:other:key/1" // at the provider "other"
)

var (
	uriA = kmsprovider.KeyURI{Provider: "local", KeyID: keyA}
	uriB = kmsprovider.KeyURI{Provider: "local", KeyID: keyB}
	uriO = kmsprovider.KeyURI{Provider: "other", KeyID: keyO}
)

// otherKMS is a second provider, which shares nothing with the first.
func otherKMS(t testing.TB) *fakeKMS {
	key := must(crypto.GenerateKey(rand.Reader))(t)
	return &fakeKMS{name: "other", keys: map[string]*crypto.XAES{keyO: crypto.NewXAES(key)}, calls: map[string]int{}}
}

// filledBench is a volume, not open, with n files of contents that contents tells.
func filledBench(t *testing.T, mode KeyMode, n int) *bench {
	t.Helper()
	b := newBench(t, mode)
	b.more = []*fakeKMS{otherKMS(t)}
	v := b.open()
	for i := range n {
		createFile(t, v.Root(), fileName(i), pattern(i%9000, byte(i)))
	}
	b.close(v)
	return b
}

func fileName(i int) string { return fmt.Sprintf("file %d", i) }

// checkFilled reads all files of a filledBench.
func (b *bench) checkFilled(n int) {
	b.t.Helper()
	v := b.open()
	defer b.close(v)
	for i := range n {
		if got := readAll(b.t, lookup(b.t, v.Root(), fileName(i))); !bytes.Equal(got, pattern(i%9000, byte(i))) {
			b.t.Fatalf("file %d holds something else", i)
		}
	}
}

func (b *bench) rewrap(from, to kmsprovider.KeyURI, edit ...func(*RewrapOptions)) (RewrapReport, error) {
	o := RewrapOptions{From: from, To: to, Providers: b.registry(), StateDir: b.state, Log: b.options().Log}
	for _, e := range edit {
		e(&o)
	}
	return Rewrap(context.Background(), b.dir, o)
}

// mustRewrap is a rewrap that succeeds and proves every sidecar.
func (b *bench) mustRewrap(from, to kmsprovider.KeyURI, edit ...func(*RewrapOptions)) RewrapReport {
	b.t.Helper()
	r, err := b.rewrap(from, to, edit...)
	if err != nil || !r.Complete || len(r.Damaged) != 0 || (r.KeyMode == ModeFile && r.Proven != r.Sidecars) {
		b.t.Fatalf("Rewrap: %v, %+v", err, r)
	}
	return r
}

// hashTree hashes every file below dir whose relative path keep accepts.
func hashTree(t testing.TB, dir string, keep func(rel string) bool) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel := strings.TrimPrefix(path, dir+"/")
		if !keep(rel) {
			return nil
		}
		content, err := os.ReadFile(path)
		sum := sha256.Sum256(content)
		out[rel] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func dataFiles(rel string) bool    { return !strings.HasPrefix(rel, metaDir+"/") }
func sidecarFiles(rel string) bool { return strings.HasPrefix(rel, metaDir+"/keys/") }

// checkSidecars makes sure that every sidecar names exactly these keys, opens
// with each, and that nothing else lies beside them. It asks the fake KMSs
// directly, not through what it tests.
func (b *bench) checkSidecars(want int, keys ...string) {
	b.t.Helper()
	files := hashTree(b.t, b.dir, sidecarFiles)
	if len(files) != want {
		b.t.Errorf("%d files among the sidecars, want %d", len(files), want)
	}
	for name := range files {
		sc := must(crypto.ParseSidecar(readFile(b.t, b.dir, name)))(b.t)
		var got []string
		for _, e := range sc.Keys {
			got = append(got, e.KeyID)
			kms := b.kms
			for _, k := range b.more {
				if k.Name() == e.Provider {
					kms = k
				}
			}
			if _, err := kms.keys[e.KeyID].Open(nil, e.Wrapped, dataKeyContext(sc.Volume, sc.File).Canonical()); err != nil {
				b.t.Errorf("%s: entry of %s does not open: %v", name, e.KeyID, err)
			}
		}
		if !slices.Equal(got, keys) {
			b.t.Fatalf("%s names %v, want %v", name, got, keys)
		}
	}
}

func (b *bench) info() Info { return must(ReadInfo(b.dir))(b.t) }

func (b *bench) hostKeys() []string {
	return loadState(b.t, &hostStore{b.state}, b.info().ID).KeyIDs
}

// states is the keys of volume.json as "key ID: state".
func (b *bench) states() (out []string) {
	for _, k := range b.info().Keys {
		out = append(out, k.KeyID+": "+k.State)
	}
	return out
}

func TestRewrapReplacesTheKeyOfEverySidecarAndTouchesNoData(t *testing.T) {
	const n = 60
	b := filledBench(t, ModeFile, n)
	before := hashTree(t, b.dir, dataFiles)
	b.kms.calls = map[string]int{}
	r := b.mustRewrap(uriA, uriB)
	if r.Sidecars != n || r.Proven != n || r.Rewritten != n || r.Passes != 2 {
		t.Errorf("%+v", r)
	}
	if !slices.Equal(r.Added, []string{keyB}) || !slices.Equal(r.Removed, []string{keyA}) || !slices.Equal(r.Opened, []string{keyB}) || len(r.Unopened) != 0 {
		t.Errorf("added %v, removed %v, opened %v, not opened %v", r.Added, r.Removed, r.Opened, r.Unopened)
	}
	// Opening the volume and the two trials are the rest.
	want := map[string]int{"ReEncrypt": n, "Decrypt": n + 3, "GenerateDataKey": 1, "Encrypt": 1, "DescribeKey": 1}
	if got := b.kms.calls; !maps.Equal(got, want) {
		t.Errorf("calls %v, want %v", got, want)
	}
	for op, calls := range want {
		if r.KMSCalls[op] != int64(calls) {
			t.Errorf("reported %v, want %v", r.KMSCalls, want)
		}
	}
	b.checkSidecars(n, keyB)
	if got := hashTree(t, b.dir, dataFiles); !maps.Equal(got, before) {
		t.Error("data files changed")
	}
	if got := b.states(); !slices.Equal(got, []string{keyB + ": active"}) {
		t.Errorf("keys %v", got)
	}
	if got := b.hostKeys(); !slices.Equal(got, []string{keyB}) {
		t.Errorf("the host expects %v", got)
	}
	delete(b.kms.keys, keyA)
	b.checkFilled(n)
}

func TestRewrapGoesFromOneProviderToAnother(t *testing.T) {
	const n = 20
	b := filledBench(t, ModeFile, n)
	b.mustRewrap(uriA, uriO)
	b.checkSidecars(n, keyO)
	if got := b.more[0].count("Encrypt"); got != n+1 { // the volume key, too
		t.Errorf("%d Encrypts, want %d", got, n+1)
	}
	if b.kms.count("ReEncrypt")+b.more[0].count("ReEncrypt") != 0 {
		t.Error("a KMS was asked to re-encrypt what it cannot open")
	}
	b.kms.keys = nil
	b.checkFilled(n)
}

func TestRewrapOfKeyModeVolumeChangesTheConfigurationAlone(t *testing.T) {
	const n = 10
	b := filledBench(t, ModeVolume, n)
	before := hashTree(t, b.dir, func(rel string) bool { return dataFiles(rel) || sidecarFiles(rel) })
	b.kms.calls = map[string]int{}
	r := b.mustRewrap(uriA, uriB)
	if r.Rewritten != 0 || r.Sidecars != n || !slices.Equal(r.Opened, []string{keyB}) {
		t.Errorf("%+v", r)
	}
	if b.kms.count("GenerateDataKey")+b.kms.count("ReEncrypt") != 0 || b.kms.count("Encrypt") != 1 {
		t.Errorf("calls %v", b.kms.calls)
	}
	if got := hashTree(t, b.dir, func(rel string) bool { return dataFiles(rel) || sidecarFiles(rel) }); !maps.Equal(got, before) {
		t.Error("something besides volume.json changed")
	}
	delete(b.kms.keys, keyA)
	b.checkFilled(n)
}

func TestAddedKeysOpenTheVolumeAloneAndCanBeRemovedButTheLast(t *testing.T) {
	const n = 12
	b := filledBench(t, ModeFile, n)
	b.mustRewrap(kmsprovider.KeyURI{}, uriO)
	b.checkSidecars(n, keyA, keyO)
	b.mustRewrap(kmsprovider.KeyURI{}, uriB)
	b.checkSidecars(n, keyA, keyO, keyB)
	for _, alone := range []func(){
		func() { b.kms.setFail(func(string) error { return kmsprovider.ErrAccessDenied }) },
		func() {
			b.kms.setFail(nil)
			b.more[0].setFail(func(string) error { return kmsprovider.ErrUnavailable })
		},
	} {
		alone()
		v := b.open(func(o *Options) { o.ReadOnly = true })
		if got := readAll(t, lookup(t, v.Root(), fileName(5))); !bytes.Equal(got, pattern(5, 5)) {
			t.Error("another key reads something else")
		}
		b.close(v)
	}
	b.more[0].setFail(nil)
	b.mustRewrap(uriA, kmsprovider.KeyURI{})
	b.mustRewrap(uriO, kmsprovider.KeyURI{})
	b.checkSidecars(n, keyB)
	before := b.metaHashes()
	if _, err := b.rewrap(uriB, kmsprovider.KeyURI{}); !errors.Is(err, ErrKeyChange) {
		t.Errorf("the last key was removed: %v", err)
	}
	if !maps.Equal(b.metaHashes(), before) {
		t.Error("a refusal changed something")
	}
	b.checkFilled(n)
}

// metaHashes hashes all that is in .kmsfs.
func (b *bench) metaHashes() map[string]string {
	return hashTree(b.t, b.dir, func(rel string) bool { return !dataFiles(rel) })
}

func TestRewrapRefusesBeforeItChangesAnything(t *testing.T) {
	b := filledBench(t, ModeFile, 5)
	denied := func(operation string) func() {
		return func() {
			b.more[0].setFail(func(op string) error {
				if op == operation {
					return kmsprovider.ErrAccessDenied
				}
				return nil
			})
		}
	}
	no := kmsprovider.KeyURI{}
	for name, c := range map[string]struct {
		before   func()
		from, to kmsprovider.KeyURI
		cause    error
	}{
		"new key may not encrypt":      {denied("Encrypt"), uriA, uriO, kmsprovider.ErrAccessDenied},
		"new key may not decrypt":      {denied("Decrypt"), uriA, uriO, kmsprovider.ErrAccessDenied},
		"new key may not generate":     {denied("GenerateDataKey"), uriA, uriO, kmsprovider.ErrAccessDenied},
		"new key cannot be looked up":  {denied("DescribeKey"), uriA, uriO, kmsprovider.ErrAccessDenied},
		"new key does not exist":       {nil, uriA, kmsprovider.KeyURI{Provider: "local", KeyID: "arn:fake:key/9"}, kmsprovider.ErrKeyNotFound},
		"provider does not exist":      {nil, uriA, kmsprovider.KeyURI{Provider: "vault", KeyID: "x"}, kmsprovider.ErrInvalidInput},
		"old key is not the volume's":  {nil, uriO, uriB, ErrKeyChange},
		"old and new key are the same": {nil, uriA, kmsprovider.KeyURI{Provider: "local", KeyID: "alias/kmsfs"}, ErrKeyChange},
		"the only key is to go":        {nil, uriA, no, ErrKeyChange},
	} {
		t.Run(name, func(t *testing.T) {
			b.more[0].setFail(nil)
			if c.before != nil {
				c.before()
			}
			before := b.metaHashes()
			r, err := b.rewrap(c.from, c.to)
			if !errors.Is(err, c.cause) || r.Complete {
				t.Errorf("%v, want %v", err, c.cause)
			}
			if !maps.Equal(b.metaHashes(), before) {
				t.Error("something in .kmsfs changed")
			}
		})
	}
}

func TestARecoveryKeyThatIsElsewhereIsAddedOnlyOnDemandAndReplacesNothing(t *testing.T) {
	const n = 8
	b := filledBench(t, ModeFile, n)
	b.more[0].setFail(func(op string) error {
		if op == "Decrypt" {
			return kmsprovider.ErrKeyNotFound
		}
		return nil
	})
	offline := func(o *RewrapOptions) { o.Offline = true }
	if _, err := b.rewrap(kmsprovider.KeyURI{}, uriO); !errors.Is(err, kmsprovider.ErrKeyNotFound) {
		t.Fatal(err)
	}
	if _, err := b.rewrap(uriA, uriO, offline); !errors.Is(err, ErrKeyChange) {
		t.Fatalf("the only key that opens anything here was to be replaced: %v", err)
	}
	r := b.mustRewrap(kmsprovider.KeyURI{}, uriO, offline)
	if !slices.Equal(r.Unopened, []string{keyO}) || !slices.Equal(r.Opened, []string{keyA}) {
		t.Errorf("opened %v, not opened %v", r.Opened, r.Unopened)
	}
	b.checkSidecars(n, keyA, keyO)
	// It stays when another key is replaced, though it proves nothing, and what
	// only it could open is damaged as far as can be told here.
	var damaged string
	for damaged = range hashTree(t, b.dir, sidecarFiles) {
		break
	}
	good := readFile(t, b.dir, damaged)
	flipByte(t, filepath.Join(b.dir, damaged), int64(bytes.Index(good, []byte(keyA))+len(keyA)+10))
	if r, err := b.rewrap(uriA, uriB); !errors.Is(err, ErrIntegrity) || len(r.Damaged) != 1 || r.Damaged[0].Name != damaged || r.Proven != n-1 {
		t.Errorf("%v, %+v", err, r)
	}
	writeFile(t, filepath.Join(b.dir, damaged), good)
	b.mustRewrap(uriA, uriB)
	b.checkSidecars(n, keyO, keyB)
	b.kms.keys = nil
	b.more[0].setFail(nil)
	b.checkFilled(n)
}

func TestOnlyOneRewrapRunsAtATime(t *testing.T) {
	b := filledBench(t, ModeFile, 3)
	var second error
	b.mustRewrap(uriA, uriB, func(o *RewrapOptions) {
		o.Progress = func(int, int) { _, second = b.rewrap(uriA, uriB) }
	})
	if !errors.Is(second, ErrRewrapRuns) {
		t.Errorf("the second one said %v", second)
	}
}

func TestARewrapKeepsToItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its clock stands still but for waits
		m := newMeter(50, 0)
		start := time.Now()
		for range 11 {
			if err := m.call(context.Background(), "Decrypt", func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 200*time.Millisecond { // the first is free
			t.Errorf("11 calls at 50 a second took %v", took)
		}
		if got := m.counts()["Decrypt"]; got != 11 {
			t.Errorf("%d calls counted", got)
		}
	})
}

func TestRewrapGivesWhatItReplacesToItsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away; run as root")
	}
	b := filledBench(t, ModeFile, 4)
	const owner = 54321
	if err := filepath.WalkDir(b.dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, owner, owner))
	}); err != nil {
		t.Fatal(err)
	}
	b.mustRewrap(uriA, uriB)
	for name := range b.metaHashes() {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(b.dir, name), &st); err != nil || st.Uid != owner || st.Gid != owner || st.Mode&0o777 != 0o600 {
			t.Errorf("%s: %v, uid %d, gid %d, mode %o", name, err, st.Uid, st.Gid, st.Mode)
		}
	}
}
