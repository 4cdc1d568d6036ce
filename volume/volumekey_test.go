package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

const (
	otherFakeKey = "arn:fake:key/2"
	foreignKey   = "arn:fake:key/3"
)

// twoProviders registers two KMSs as "local" and "aws".
func twoProviders(local, aws kmsprovider.Provider) *kmsprovider.Registry {
	r := kmsprovider.NewRegistry()
	r.Register("local", func(context.Context) (kmsprovider.Provider, error) { return local, nil })
	r.Register("aws", func(context.Context) (kmsprovider.Provider, error) { return aws, nil })
	return r
}

// wrappedVolume is a parsed configuration with a key of each KMS, the second
// retiring, and its volume key.
func wrappedVolume(t testing.TB, local, aws *fakeKMS) (*Config, *crypto.Key) {
	t.Helper()
	c := sampleConfig()
	vk, keys, err := newVolumeKey(t.Context(), c.ID, []kmsprovider.KeyURI{{Provider: "local", KeyID: fakeKey}, {Provider: "aws", KeyID: otherFakeKey}}, twoProviders(local, aws))
	if err != nil {
		t.Fatal(err)
	}
	c.Keys = keys
	c.Keys[1].State = keyRetiring
	return must(parseConfig(must(c.marshal(vk))(t)))(t), vk
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// totalCalls counts the calls of every kind.
func totalCalls(k *fakeKMS) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.calls {
		n += c
	}
	return n
}

func TestUnlockingAVolumeIsOneKMSCall(t *testing.T) {
	local, aws := newFakeKMS(), newFakeKMS()
	c, vk := wrappedVolume(t, local, aws)
	before := totalCalls(local) + totalCalls(aws)
	got, err := unlockVolumeKey(t.Context(), c, twoProviders(local, aws), silent())
	if err != nil || !got.Equal(vk) {
		t.Fatalf("unlock: %v", err)
	}
	if n := totalCalls(local) + totalCalls(aws) - before; n != 1 || local.count("Decrypt") != 1 {
		t.Errorf("%d calls, %d Decrypt with the active key", n, local.count("Decrypt"))
	}
}

func TestTheNextKeyOpensTheVolumeWhenOneDoesNotAndThatIsLogged(t *testing.T) {
	local, aws := newFakeKMS(), newFakeKMS()
	c, vk := wrappedVolume(t, local, aws)
	local.setFail(func(string) error { return fmt.Errorf("call: %w", kmsprovider.ErrUnavailable) })
	var log bytes.Buffer
	got, err := unlockVolumeKey(t.Context(), c, twoProviders(local, aws), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || !got.Equal(vk) {
		t.Fatalf("unlock: %v", err)
	}
	if s := log.String(); !strings.Contains(s, "WARN") || !strings.Contains(s, fakeKey) || strings.Contains(s, otherFakeKey) {
		t.Errorf("logged %q", s)
	}
}

func TestWhenNoKeyOpensTheVolumeEveryCauseIsNamedTheMostUsefulFirst(t *testing.T) {
	passphrase := errors.New("wrong passphrase")
	inOrder := []error{
		kmsprovider.ErrAccessDenied, kmsprovider.ErrKeyDisabled, kmsprovider.ErrThrottled, kmsprovider.ErrUnavailable,
		passphrase, kmsprovider.ErrKeyNotFound, kmsprovider.ErrIncorrectKey,
	}
	for i, better := range inOrder {
		for _, worse := range inOrder[i+1:] {
			for _, turned := range []bool{false, true} {
				local, aws := newFakeKMS(), newFakeKMS()
				c, _ := wrappedVolume(t, local, aws)
				first, second := better, worse
				if turned {
					first, second = worse, better
				}
				local.setFail(func(string) error { return first })
				aws.setFail(func(string) error { return second })
				_, err := unlockVolumeKey(t.Context(), c, twoProviders(local, aws), silent())
				if !errors.Is(err, better) || !errors.Is(err, worse) {
					t.Fatalf("%v and %v: %v", better, worse, err)
				}
				s := err.Error()
				if strings.Index(s, better.Error()) > strings.Index(s, worse.Error()) {
					t.Errorf("%v stands before %v: %v", worse, better, err)
				}
				if !strings.Contains(s, "local key "+fakeKey) || !strings.Contains(s, "aws key "+otherFakeKey) {
					t.Errorf("the keys are not named: %v", err)
				}
				if errors.Is(err, ErrIntegrity) != (worse == kmsprovider.ErrIncorrectKey) {
					t.Errorf("%v and %v: integrity %v", better, worse, errors.Is(err, ErrIntegrity))
				}
			}
		}
	}
}

func TestAnUnknownProviderIsOneOfTheCauses(t *testing.T) {
	local, aws := newFakeKMS(), newFakeKMS()
	c, vk := wrappedVolume(t, local, aws)
	only := kmsprovider.NewRegistry()
	only.Register("aws", func(context.Context) (kmsprovider.Provider, error) { return aws, nil })
	if got, err := unlockVolumeKey(t.Context(), c, only, silent()); err != nil || !got.Equal(vk) {
		t.Errorf("the other key: %v", err)
	}
	if _, err := unlockVolumeKey(t.Context(), c, kmsprovider.NewRegistry(), silent()); !errors.Is(err, kmsprovider.ErrInvalidInput) {
		t.Errorf("none: %v", err)
	}
}

func TestAWrappedKeyThatDoesNotFitIsAnIntegrityError(t *testing.T) {
	kms := newFakeKMS()
	for what, spoil := range map[string]func(c *Config){
		"changed":           func(c *Config) { c.Keys[0].Wrapped[5] ^= 1 },
		"of another volume": func(c *Config) { c.ID[3] ^= 1 },
		"of another key":    func(c *Config) { c.Keys[0].KeyID = otherFakeKey },
	} {
		c, _ := wrappedVolume(t, kms, kms)
		c.Keys = c.Keys[:1]
		spoil(c)
		_, err := unlockVolumeKey(t.Context(), c, twoProviders(kms, kms), silent())
		if !errors.Is(err, ErrIntegrity) || !errors.Is(err, kmsprovider.ErrInvalidCiphertext) || !strings.Contains(err.Error(), c.Keys[0].KeyID) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// fixedAnswer is a KMS that decrypts anything to the same.
type fixedAnswer struct {
	*fakeKMS
	plain []byte
}

func (k fixedAnswer) Decrypt(context.Context, string, []byte, kmsprovider.Context) ([]byte, error) {
	return bytes.Clone(k.plain), nil
}

func TestAnAnswerThatIsNoVolumeKeyOfThisVolumeIsAnIntegrityError(t *testing.T) {
	local, aws := newFakeKMS(), newFakeKMS()
	c, _ := wrappedVolume(t, local, aws)
	for _, size := range []int{0, 1, 31, 32, 33, 4096} {
		wrong := fixedAnswer{local, make([]byte, size)}
		vk, err := unlockVolumeKey(t.Context(), c, twoProviders(wrong, wrong), silent())
		if vk != nil || !errors.Is(err, ErrIntegrity) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestUnlockingStopsWhenItsContextEnds(t *testing.T) {
	local, aws := newFakeKMS(), newFakeKMS()
	c, _ := wrappedVolume(t, local, aws)
	ctx, cancel := context.WithCancel(t.Context())
	local.setFail(func(string) error { cancel(); return ctx.Err() })
	if _, err := unlockVolumeKey(ctx, c, twoProviders(local, aws), silent()); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), otherFakeKey) {
		t.Error(err)
	}
	if n := aws.count("Decrypt"); n != 0 {
		t.Errorf("%d calls after the end", n)
	}
}

func TestEveryWrappingKeyOpensANewVolumeAloneAndIsRecordedByItsARN(t *testing.T) {
	local, aws := newFakeKMS(), newFakeKMS()
	id := crypto.ID{1}
	vk, keys, err := newVolumeKey(t.Context(), id, []kmsprovider.KeyURI{
		{Provider: "local", KeyID: "alias/kmsfs"}, {Provider: "local", KeyID: otherFakeKey}, {Provider: "aws", KeyID: fakeKey},
	}, twoProviders(local, aws))
	if err != nil || len(keys) != 3 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if keys[0].KeyID != fakeKey {
		t.Errorf("the alias is recorded as %s", keys[0].KeyID)
	}
	if local.count("GenerateDataKey") != 1 || local.count("Encrypt") != 1 || aws.count("Encrypt") != 1 || aws.count("GenerateDataKey") != 0 {
		t.Errorf("calls %v and %v", local.calls, aws.calls)
	}
	for _, k := range keys {
		got, err := decryptVolumeKey(t.Context(), id, k, twoProviders(local, aws))
		if err != nil || !got.Equal(vk) || k.State != keyActive {
			t.Errorf("%s %s: %v, state %s", k.Provider, k.KeyID, err, k.State)
		}
		if _, err := decryptVolumeKey(t.Context(), crypto.ID{2}, k, twoProviders(local, aws)); err == nil {
			t.Errorf("%s %s opens for another volume", k.Provider, k.KeyID)
		}
	}
}

func TestListsOfKeysThatMakeNoVolumeAreRefusedBeforeAKeyIsMade(t *testing.T) {
	one := kmsprovider.KeyURI{Provider: "local", KeyID: fakeKey}
	nine := make([]kmsprovider.KeyURI, 9)
	for i := range nine {
		nine[i] = kmsprovider.KeyURI{Provider: "local", KeyID: fmt.Sprint(i)}
	}
	for what, keys := range map[string][]kmsprovider.KeyURI{
		"none":             nil,
		"nine":             nine,
		"one twice":        {one, one},
		"one by its alias": {one, {Provider: "local", KeyID: "alias/kmsfs"}},
		"a missing one":    {one, {Provider: "aws", KeyID: foreignKey}},
		"no such provider": {one, {Provider: "vault", KeyID: "x"}},
	} {
		local, aws := newFakeKMS(), newFakeKMS()
		vk, got, err := newVolumeKey(t.Context(), crypto.ID{1}, keys, twoProviders(local, aws))
		if err == nil || vk != nil || got != nil {
			t.Errorf("%s: %v", what, err)
		}
		if local.count("GenerateDataKey") != 0 {
			t.Errorf("%s: a key was made", what)
		}
	}
}

func TestAKMSThatFailsAtTheSecondKeyMakesNoVolumeKey(t *testing.T) {
	local, aws := newFakeKMS(), newFakeKMS()
	aws.setFail(func(op string) error {
		if op == "Encrypt" {
			return kmsprovider.ErrKeyDisabled
		}
		return nil
	})
	vk, keys, err := newVolumeKey(t.Context(), crypto.ID{1}, []kmsprovider.KeyURI{{Provider: "local", KeyID: fakeKey}, {Provider: "aws", KeyID: otherFakeKey}}, twoProviders(local, aws))
	if vk != nil || keys != nil || !errors.Is(err, kmsprovider.ErrKeyDisabled) || !strings.Contains(err.Error(), otherFakeKey) {
		t.Errorf("%v, %v", keys, err)
	}
}
