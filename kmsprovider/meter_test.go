package kmsprovider

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
)

// answering is a provider whose every call ends with err.
type answering struct {
	Provider
	err    error
	closed int
}

func (a *answering) Name() string { return "local" }
func (a *answering) Decrypt(context.Context, string, []byte, Context) ([]byte, error) {
	return []byte("plain"), a.err
}
func (a *answering) Encrypt(context.Context, string, []byte, Context) ([]byte, error) {
	return nil, a.err
}
func (a *answering) GenerateDataKey(context.Context, string, Context) ([]byte, []byte, error) {
	return nil, nil, a.err
}
func (a *answering) ReEncrypt(context.Context, []byte, string, Context, string, Context) ([]byte, error) {
	return nil, a.err
}
func (a *answering) DescribeKey(context.Context, string) (KeyInfo, error) { return KeyInfo{}, a.err }
func (a *answering) Close() error                                         { a.closed++; return nil }

func TestAMeterCountsCallsAndTheCausesOfFailures(t *testing.T) {
	var m Meter
	below := &answering{}
	p := m.Wrap(below)
	ctx := context.Background()
	if plain, err := p.Decrypt(ctx, "k", nil, nil); string(plain) != "plain" || err != nil {
		t.Errorf("Decrypt passes on %q, %v", plain, err)
	}
	for _, err := range []error{
		fmt.Errorf("x: %w", ErrKeyDisabled), ErrThrottled, context.Canceled, context.DeadlineExceeded, errors.New("else"),
	} {
		below.err = err
		if _, got := p.Decrypt(ctx, "k", nil, nil); got != err {
			t.Errorf("Decrypt passes on %v, want %v", got, err)
		}
	}
	below.err = nil
	_, _ = p.Encrypt(ctx, "k", nil, nil)
	_, _, _ = p.GenerateDataKey(ctx, "k", nil)
	_, _ = p.ReEncrypt(ctx, nil, "k", nil, "k", nil)
	_, _ = p.DescribeKey(ctx, "k")
	want := map[string]Usage{"local": {
		Calls: map[string]uint64{"Decrypt": 6, "Encrypt": 1, "GenerateDataKey": 1, "ReEncrypt": 1, "DescribeKey": 1},
		Failures: map[string]uint64{
			ErrKeyDisabled.Error(): 1, ErrThrottled.Error(): 1, "canceled": 1, "timed out": 1, "other": 1,
		},
	}}
	got := m.Usage()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if n := got["local"].Requests(); n != 10 {
		t.Errorf("%d requests, want 10", n)
	}
}

func TestAResetRegistryOpensProvidersAgain(t *testing.T) {
	r := NewRegistry()
	var opened []*answering
	r.Register("local", func(context.Context) (Provider, error) {
		opened = append(opened, &answering{})
		return opened[len(opened)-1], nil
	})
	var m Meter
	r.WrapWith(m.Wrap)
	ctx := context.Background()
	for range 2 {
		p, err := r.Provider(ctx, "local")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = p.DescribeKey(ctx, "k")
	}
	if len(opened) != 1 {
		t.Fatalf("opened %d times, want once", len(opened))
	}
	if err := r.Reset(); err != nil || opened[0].closed != 1 {
		t.Fatalf("Reset: %v, closed %d times", err, opened[0].closed)
	}
	if _, err := r.Provider(ctx, "local"); err != nil || len(opened) != 2 {
		t.Fatalf("after Reset: %v, opened %d times, want 2", err, len(opened))
	}
	if n := m.Usage()["local"].Requests(); n != 2 {
		t.Errorf("%d calls were counted, want 2", n)
	}
	if err := r.Close(); err != nil || opened[0].closed != 1 || opened[1].closed != 1 {
		t.Errorf("Close: %v, closed %d and %d times, want each once", err, opened[0].closed, opened[1].closed)
	}
	if _, err := r.Provider(ctx, "local"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a closed registry gives %v", err)
	}
}
