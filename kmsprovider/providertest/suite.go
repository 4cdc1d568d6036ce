package providertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

// Fixture is a provider and what stands ready in its KMS.
type Fixture struct {
	Provider kmsprovider.Provider
	// KeyID and OtherKeyID are the ARNs of two enabled keys.
	KeyID, OtherKeyID string
	// Alias names KeyID. Empty: a provider without a service behind it, which
	// knows neither aliases nor when a key was made.
	Alias string
	// UnknownKeyID has the form of a key's name and names none. Empty: KeyID
	// with another UUID.
	UnknownKeyID string
	// DisableKey disables a key of the fixture. Nil: not tested.
	DisableKey func(t testing.TB, keyID string)
	// Deviations are the refusals that this KMS gets wrong.
	Deviations []Deviation
}

// Deviation declares that a KMS is known to answer otherwise than the contract.
type Deviation struct {
	Check   string // name of the refusal, as the test prints it
	Instead error  // what comes instead, for errors.Is; nil: the call succeeds
	Some    bool   // only for some of the check's calls, one at least; the others are right
	Why     string // where that is known from
}

// Run runs the suite. It calls setup for each test, which gets keys of its own
// there; setup registers its clean-up with t.
func Run(t *testing.T, setup func(t *testing.T) Fixture) {
	watch := new(recorder)
	prepare := func(t *testing.T) (context.Context, Fixture) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(cancel)
		f := setup(t)
		if f.Provider == nil || f.KeyID == "" || f.OtherKeyID == "" || f.KeyID == f.OtherKeyID {
			t.Fatal("the fixture is incomplete")
		}
		if f.UnknownKeyID == "" {
			f.UnknownKeyID = f.KeyID[:strings.LastIndexByte(f.KeyID, '/')+1] + "00000000-0000-4000-8000-000000000000"
		}
		f.Provider = recorded{Provider: f.Provider, watch: watch}
		return ctx, f
	}
	for _, p := range promises() {
		t.Run(p.name, func(t *testing.T) {
			ctx, f := prepare(t)
			if p.alias && f.Alias == "" {
				t.Skip("this provider has no aliases")
			}
			p.check(ctx, t, f)
		})
	}
	for _, r := range refusals() {
		t.Run(r.name, func(t *testing.T) {
			ctx, f := prepare(t)
			if r.alias && f.Alias == "" {
				t.Skip("this provider has no aliases")
			}
			if r.disabled && f.DisableKey == nil {
				t.Skip("this fixture cannot disable keys")
			}
			r.check(ctx, t, f)
		})
	}
	t.Run("deviations are declared for refusals that exist", func(t *testing.T) {
		_, f := prepare(t)
		if err := checkDeviations(f.Deviations); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("errors hold no key material", func(t *testing.T) {
		if watch.plaintexts() == 0 || watch.errors() == 0 {
			t.Skip("no plaintexts or no errors were seen: only a part of the suite ran")
		}
		for _, leak := range watch.leaks() {
			t.Error(leak)
		}
	})
}

// checkDeviations finds declarations that name no refusal, or name one twice.
func checkDeviations(deviations []Deviation) error {
	open := make(map[string]bool)
	for _, r := range refusals() {
		open[r.name] = true
	}
	for _, d := range deviations {
		if !open[d.Check] {
			return fmt.Errorf("deviation %q is declared twice or is none of a refusal", d.Check)
		}
		if d.Why == "" {
			return fmt.Errorf("deviation %q does not say why", d.Check)
		}
		open[d.Check] = false
	}
	return nil
}

// judge compares what the calls of a check returned with what the contract
// wants, or with the deviation that is declared for it.
func judge(got []error, want error, name string, deviations []Deviation) []error {
	if len(got) == 0 {
		return []error{errors.New("nothing was called")}
	}
	at := slices.IndexFunc(deviations, func(d Deviation) bool { return d.Check == name })
	var wrong []error
	deviated := false
	for i, err := range got {
		right := errors.Is(err, want)
		switch {
		case at < 0 && !right:
			wrong = append(wrong, fmt.Errorf("call %d: want error %q, got %v", i, want, err))
		case at < 0:
		case errors.Is(err, deviations[at].Instead):
			deviated = true
		case !right || !deviations[at].Some:
			wrong = append(wrong, fmt.Errorf("call %d: declared deviation (%s): want %v, got %v: has the KMS changed?", i, deviations[at].Why, deviations[at].Instead, err))
		}
	}
	if at >= 0 && !deviated && wrong == nil {
		wrong = append(wrong, fmt.Errorf("declared deviation (%s): no call shows it: has the KMS changed?", deviations[at].Why))
	}
	return wrong
}
