package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

func reopen(t testing.TB, path string) *Keystore {
	t.Helper()
	k, err := Open(t.Context(), testOptions(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func TestAnotherProcessesChangesCountAtTheNextCall(t *testing.T) {
	daemon, _ := twoKeys(t)
	other := reopen(t, daemon.Path())
	for range 50 { // as fast as can be: no clock's granularity may hide a change
		m, err := other.CreateKey(t.Context(), CreateKeyInput{})
		if err != nil {
			t.Fatal(err)
		}
		_, wrapped, err := daemon.GenerateDataKey(t.Context(), m.KeyID, nil)
		if err != nil {
			t.Fatalf("a new key: %v", err)
		}
		if err := other.DisableKey(t.Context(), m.KeyID); err != nil {
			t.Fatal(err)
		}
		if _, err := daemon.Decrypt(t.Context(), m.KeyID, wrapped, nil); !errors.Is(err, kmsprovider.ErrKeyDisabled) {
			t.Fatalf("a disabled key: %v", err)
		}
		if err := other.EnableKey(t.Context(), m.KeyID); err != nil {
			t.Fatal(err)
		}
		if _, err := daemon.Decrypt(t.Context(), m.KeyID, wrapped, nil); err != nil {
			t.Fatalf("an enabled key: %v", err)
		}
	}
}

func TestAnUnchangedFileIsNotReadAgain(t *testing.T) {
	k, _ := twoKeys(t)
	if _, err := k.DescribeKey(t.Context(), DefaultAlias); err != nil {
		t.Fatal(err)
	}
	before := k.state
	for range 10 {
		if _, _, err := k.GenerateDataKey(t.Context(), DefaultAlias, nil); err != nil {
			t.Fatal(err)
		}
	}
	if k.state != before {
		t.Error("the file was read again")
	}
	other := reopen(t, k.Path())
	if _, err := other.CreateKey(t.Context(), CreateKeyInput{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.DescribeKey(t.Context(), DefaultAlias); err != nil {
		t.Fatal(err)
	}
	if k.state == before {
		t.Error("the changed file was not read again")
	}
	// The open file keeps its inode number from coming back, see stamp.
	if _, err := k.state.file.Stat(); err != nil {
		t.Errorf("the file of the state in use is not kept open: %v", err)
	}
	if _, err := before.file.Stat(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("the file of the state before is not closed: %v", err)
	}
	if k.state.byName[DefaultAlias].current != before.byName[DefaultAlias].current {
		t.Error("a key that stayed was opened again")
	}
}

func TestAKeystoreThatIsGoneOrDamagedMakesCallsFailUntilItIsBack(t *testing.T) {
	k, b := twoKeys(t)
	_, wrapped, err := k.GenerateDataKey(t.Context(), DefaultAlias, nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := twoKeys(t)
	foreign, err := os.ReadFile(stranger.Path())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"gone":             {nil, ErrNoKeystore},
		"cut":              {b[:len(b)/2], ErrDamaged},
		"edited":           {forge(t, b, func(d *document) { d.Keys[1].State = kmsprovider.StateEnabled }), ErrDamaged},
		"another keystore": {foreign, ErrDamaged},
	} {
		if err := os.Remove(k.Path()); err != nil {
			t.Fatal(err)
		}
		if c.bytes != nil {
			if err := os.WriteFile(k.Path(), c.bytes, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, decrypted := k.Decrypt(t.Context(), DefaultAlias, wrapped, nil)
		_, created := k.CreateKey(t.Context(), CreateKeyInput{})
		for _, err := range []error{decrypted, created} {
			if !errors.Is(err, c.want) || !errors.Is(err, kmsprovider.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			} else if name == "another keystore" && !strings.Contains(err.Error(), name) {
				t.Errorf("%s: the error does not say so: %v", name, err)
			}
		}
		if now, _ := os.ReadFile(k.Path()); !bytes.Equal(now, c.bytes) {
			t.Errorf("%s: the file was written", name)
		}
		if err := os.WriteFile(k.Path(), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Decrypt(t.Context(), DefaultAlias, wrapped, nil); err != nil {
			t.Errorf("%s, then put back: %v", name, err)
		}
	}
}

func TestAWrappedKeyOfAnotherKeystoreIsInvalid(t *testing.T) {
	k, _ := twoKeys(t)
	other, _ := twoKeys(t)
	_, wrapped, err := other.GenerateDataKey(t.Context(), DefaultAlias, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Decrypt(t.Context(), DefaultAlias, wrapped, nil); !errors.Is(err, kmsprovider.ErrInvalidCiphertext) {
		t.Error(err)
	}
}

func TestAllMaterialsOfAKeyDecryptAndTheCurrentOneEncrypts(t *testing.T) {
	k, _ := twoKeys(t)
	plaintext, wrapped, err := k.GenerateDataKey(t.Context(), DefaultAlias, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = k.update(t.Context(), func(_ *snapshot, d *document) error {
		return k.addMaterial(d, &d.Keys[0], materialRecord{Created: k.timestamp(), Rotated: rotatedOnDemand})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.Decrypt(t.Context(), DefaultAlias, wrapped, nil)
	if err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("the old material: %v", err)
	}
	_, again, err := k.GenerateDataKey(t.Context(), DefaultAlias, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(wrapped[:blobHeader], again[:blobHeader]) {
		t.Error("the old material still encrypts")
	}
	crossed := append(bytes.Clone(again[:blobHeader]), wrapped[blobHeader:]...)
	if _, err := k.Decrypt(t.Context(), DefaultAlias, crossed, nil); !errors.Is(err, kmsprovider.ErrInvalidCiphertext) {
		t.Errorf("under the other material's name: %v", err)
	}
}

func TestAKeystoreBehindASymbolicLinkStaysBehindIt(t *testing.T) {
	k, _ := twoKeys(t)
	link := filepath.Join(scratch(t), "link.json")
	if err := os.Symlink(k.Path(), link); err != nil {
		t.Fatal(err)
	}
	through := reopen(t, link)
	m, err := through.CreateKey(t.Context(), CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&fs.ModeSymlink == 0 || through.Path() != link {
		t.Errorf("the link: %v, %v", st.Mode(), err)
	}
	if _, err := k.DescribeKey(t.Context(), m.ARN); err != nil {
		t.Errorf("through the file itself: %v", err)
	}
}

func TestARandomSourceThatFailsMakesNothing(t *testing.T) {
	k, before := twoKeys(t)
	for n := range 200 { // fails after n bytes, wherever that is
		k.random = io.LimitReader(bytes.NewReader(make([]byte, n)), int64(n))
		_, _, generated := k.GenerateDataKey(t.Context(), DefaultAlias, nil)
		_, created := k.CreateKey(t.Context(), CreateKeyInput{})
		if created == nil || n < 56 && generated == nil {
			// 32 + 24 bytes are a data key and its nonce; a key needs 16 + 32 + 32 + 24.
			if n >= 104 {
				break
			}
			t.Fatalf("%d bytes of randomness sufficed: %v, %v", n, generated, created)
		}
		if now, _ := os.ReadFile(k.Path()); !bytes.Equal(now, before) {
			t.Fatalf("%d bytes of randomness changed the file", n)
		}
	}
}

func TestAHeldLockIsWaitedForUntilTheContextEnds(t *testing.T) {
	k, before := twoKeys(t)
	unlock, err := lockFile(t.Context(), k.real)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := k.CreateKey(ctx, CreateKeyInput{}); !errors.Is(err, ctx.Err()) || ctx.Err() == nil {
		t.Errorf("while it is held: %v", err)
	}
	if now, _ := os.ReadFile(k.Path()); !bytes.Equal(now, before) {
		t.Error("the file was changed under another's lock")
	}
	if _, _, err := k.GenerateDataKey(t.Context(), DefaultAlias, nil); err != nil {
		t.Errorf("readers need no lock: %v", err)
	}
	unlock()
	if _, err := k.CreateKey(t.Context(), CreateKeyInput{}); err != nil {
		t.Errorf("after it was released: %v", err)
	}
}

func TestReadersGoOnWhileKeysAreCreatedAndTheKeystoreIsClosed(t *testing.T) {
	k, _ := twoKeys(t)
	writer := reopen(t, k.Path())
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				_, wrapped, err := k.GenerateDataKey(t.Context(), DefaultAlias, nil)
				if err == nil {
					_, err = k.Decrypt(t.Context(), DefaultAlias, wrapped, nil)
				}
				if errors.Is(err, fs.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		if _, err := writer.CreateKey(t.Context(), CreateKeyInput{}); err != nil {
			t.Fatal(err)
		}
	}
	k.Close()
	group.Wait()
}

func BenchmarkGenerateDataKey(b *testing.B) {
	k, _ := twoKeys(b)
	arn, err := k.EnsureDefaultKey(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	ec := kmsprovider.Context{"kmsfs:volume": "000102030405060708090a0b0c0d0e0f", "kmsfs:file": "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := k.GenerateDataKey(b.Context(), arn, ec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecrypt(b *testing.B) {
	k, _ := twoKeys(b)
	arn, err := k.EnsureDefaultKey(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	ec := kmsprovider.Context{"kmsfs:volume": "000102030405060708090a0b0c0d0e0f", "kmsfs:file": "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"}
	_, wrapped, err := k.GenerateDataKey(b.Context(), arn, ec)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Decrypt(b.Context(), arn, wrapped, ec); err != nil {
			b.Fatal(err)
		}
	}
}
