package volume

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
)

// callsOf returns what a function made the KMS do, by operation.
func (b *bench) callsOf(call func()) map[string]int {
	b.kms.mu.Lock()
	before := maps.Clone(b.kms.calls)
	b.kms.mu.Unlock()
	call()
	b.kms.mu.Lock()
	defer b.kms.mu.Unlock()
	diff := make(map[string]int)
	for op, n := range b.kms.calls {
		if n != before[op] {
			diff[op] = n - before[op]
		}
	}
	return diff
}

func (b *bench) wantCalls(what string, want map[string]int, call func()) {
	b.t.Helper()
	if got := b.callsOf(call); !maps.Equal(got, want) {
		b.t.Errorf("%s: KMS calls %v, want %v", what, got, want)
	}
}

// sidecarsOnDisk counts the files in .kmsfs/keys.
func (b *bench) sidecarsOnDisk() int {
	b.t.Helper()
	found, err := filepath.Glob(filepath.Join(b.dir, metaDir, "keys", "*", "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(found)
}

// newBenchOf is a volume of several wrapping keys of one KMS.
func newBenchOf(t *testing.T, keys int) *bench {
	t.Helper()
	b := newBench(t, ModeFile)
	if keys == 1 {
		return b
	}
	var uris []kmsprovider.KeyURI
	for i := range keys {
		uris = append(uris, kmsprovider.KeyURI{Provider: "local", KeyID: fmt.Sprintf("arn:fake:key/%d", i+1)})
	}
	b.dir = filepath.Join(t.TempDir(), "backing")
	if _, err := Init(context.Background(), b.dir, InitOptions{Keys: uris, Mode: ModeFile, Providers: b.registry(), StateDir: b.state}); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCreatingFilesTakesOneCallForEachAndEachKey(t *testing.T) {
	for _, keys := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d keys", keys), func(t *testing.T) {
			b := newBenchOf(t, keys)
			const files = 300
			v := b.open()
			var unused int
			got := b.callsOf(func() {
				for i := range files {
					createFile(t, v.Root(), fmt.Sprint(i), []byte("content"))
					if _, _, err := v.Root().Create(fmt.Sprint(i), 0o644, Owner{}); err != unix.EEXIST {
						t.Fatal(err)
					}
				}
				quietPool(v)
				b.wantCalls("close", map[string]int{}, func() { b.close(v) })
				unused = v.Stats().Discarded
			})
			want := map[string]int{"GenerateDataKey": files + unused}
			if keys > 1 {
				want["Encrypt"] = (keys - 1) * (files + unused)
			}
			if !maps.Equal(got, want) || unused > poolLimit {
				t.Errorf("%d files, %d pooled keys unused: KMS calls %v, want %v", files, unused, got, want)
			}
			if n := b.sidecarsOnDisk(); n != files {
				t.Errorf("%d sidecars for %d files", n, files)
			}
		})
	}
}

func TestNothingButCreateAndColdReadAsksTheKMS(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			b := newBench(t, mode)
			v := b.open()
			const files = 20
			for i := range files {
				createFile(t, v.Root(), fmt.Sprint(i), []byte("content"))
			}
			b.close(v)
			b.wantCalls("open", map[string]int{"Decrypt": 1}, func() { v = b.open() })
			b.wantCalls("everything but contents", map[string]int{}, func() { changeAll(t, v) })
			cold := map[string]int{"Decrypt": files}
			if mode == ModeVolume {
				cold = map[string]int{}
			}
			readEvery := func() {
				for _, name := range list(t, v.Root()) {
					if n := lookup(t, v.Root(), name); n.IsRegular() {
						readAll(t, n)
					}
				}
			}
			b.wantCalls("cold read", cold, readEvery)
			b.wantCalls("warm read", map[string]int{}, readEvery)
			b.wantCalls("warm write", map[string]int{}, func() {
				writeAll(t, lookup(t, v.Root(), "new 3"), []byte("other"), 2)
			})
			b.wantCalls("close", map[string]int{}, func() { b.close(v) })
		})
	}
}

// changeAll does all that can be done to files without their content, and gives
// each a new name.
func changeAll(t *testing.T, v *Volume) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range list(t, v.Root()) {
		n := lookup(t, v.Root(), name)
		_, err := n.Attr()
		check(err)
		mode := uint32(0o600)
		_, err = n.SetAttr(t.Context(), Change{Mode: &mode, MtimeNow: true})
		check(err)
		check(n.Setxattr("user.a", []byte("value"), 0))
		check(v.Root().Rename(name, v.Root(), "new "+name, 0))
		_, err = v.Root().Link(n, "linked")
		check(err)
		check(v.Root().Unlink("linked"))
		check(n.Sync(false))
	}
	_, _, err := v.Root().Mkdir("directory", 0o755, Owner{})
	check(err)
	_, _, err = v.Root().Symlink("symlink", "target", Owner{})
	check(err)
	_, err = lookup(t, v.Root(), "symlink").Readlink()
	check(err)
	check(v.Root().Rmdir("directory"))
	_, err = v.Statfs()
	check(err)
}

func TestAMountThatCreatesNothingMakesNoKeys(t *testing.T) {
	b := newBench(t, ModeFile)
	b.wantCalls("open and close", map[string]int{"Decrypt": 1}, func() {
		v := b.open()
		quietPool(v)
		b.close(v)
	})
	if n := b.sidecarsOnDisk(); n != 0 {
		t.Errorf("%d sidecars are left", n)
	}
}
