package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

// hanging is a KMS that answers Decrypt only once its callers give up.
type hanging struct{ *fakeKMS }

func (k hanging) Decrypt(ctx context.Context, _ string, _ []byte, _ kmsprovider.Context) ([]byte, error) {
	k.mu.Lock()
	k.calls["Decrypt"]++
	k.mu.Unlock()
	<-ctx.Done()
	return nil, fmt.Errorf("decrypt: %w: %w", kmsprovider.ErrUnavailable, ctx.Err())
}

func TestAKMSThatHangsLeavesTimeForTheNextKey(t *testing.T) {
	local, aws := newFakeKMS(), newFakeKMS()
	c, vk := wrappedVolume(t, local, aws)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := unlockVolumeKey(ctx, c, twoProviders(hanging{local}, aws), silent())
	if err != nil || !got.Equal(vk) {
		t.Fatalf("unlock: %v", err)
	}
}

func TestAKeyThatFailedIsAskedAfterTheOthersForAWhile(t *testing.T) {
	local, aws := newFakeKMS(), newFakeKMS()
	b := newBenchWith(t, ModeFile, local)
	keys := []kmsprovider.KeyURI{{Provider: "local", KeyID: fakeKey}, {Provider: "aws", KeyID: otherFakeKey}}
	dir := t.TempDir()
	if _, err := Init(t.Context(), dir, InitOptions{Keys: keys, Providers: twoProviders(local, aws), StateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	b.dir = dir
	open := func(local kmsprovider.Provider) *Volume {
		return b.open(func(o *Options) {
			o.Providers, o.StateDir, o.KMSDeadline = twoProviders(local, aws), t.TempDir(), 2*time.Second
		})
	}
	v := open(local)
	const files = 3
	for i := range files {
		createFile(t, v.Root(), fmt.Sprint(i), pattern(100, byte(i)))
	}
	b.close(v)
	v = open(hanging{local})
	before := local.count("Decrypt")
	for i := range files {
		if got := readAll(t, lookup(t, v.Root(), fmt.Sprint(i))); string(got) != string(pattern(100, byte(i))) {
			t.Errorf("file %d differs", i)
		}
	}
	if n := local.count("Decrypt") - before; n != 1 {
		t.Errorf("the KMS that hangs was asked %d times for %d files", n, files)
	}
	b.close(v)
}

func TestAKeyThatIsOfNoUseHereIsNoCauseOfAFailure(t *testing.T) {
	unusable := fmt.Errorf("no identity: %w", kmsprovider.ErrNotUsable)
	down := fmt.Errorf("no answer: %w", kmsprovider.ErrUnavailable)
	for _, failed := range [][]error{{unusable, down}, {down, unusable}} {
		err := joinFailures(failed)
		if errors.Is(err, kmsprovider.ErrAccessDenied) || !errors.Is(err, kmsprovider.ErrUnavailable) ||
			!strings.HasPrefix(err.Error(), down.Error()) || !strings.Contains(err.Error(), unusable.Error()) {
			t.Errorf("%v", err)
		}
	}
	if err := joinFailures([]error{unusable, unusable}); !errors.Is(err, kmsprovider.ErrAccessDenied) {
		t.Errorf("alone: %v", err)
	}
}
