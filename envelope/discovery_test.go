package envelope

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func TestDiscoveryOpensWhatAMessageNames(t *testing.T) {
	s := newKeystore(t)
	arns := []string{s.key(), s.key()}
	m := wrap(t, s.keyring(arns...), someContext)
	s.wantCalls("encryption", map[string]int{"GenerateDataKey": 1, "Encrypt": 1})
	ring := NewDiscoveryKeyring(s.open, Discovery{})
	dataKey, err := unwrap(t, ring, SuiteCommit, someContext, m.Keys...)
	if err != nil || !bytes.Equal(dataKey, m.DataKey) {
		t.Fatalf("error %v", err)
	}
	s.wantCalls("discovery", map[string]int{"Decrypt": 1})

	// The first key is disabled: the next one is asked.
	if err := s.store.DisableKey(t.Context(), arns[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := unwrap(t, ring, SuiteCommit, someContext, m.Keys...); err != nil {
		t.Error(err)
	}
	s.wantCalls("discovery past a disabled key", map[string]int{"Decrypt": 2})
	_, err = unwrap(t, ring, SuiteCommit, kmsprovider.Context{"other": ""}, m.Keys...)
	wantErrors(t, "two causes", err, ErrNoKey, kmsprovider.ErrKeyDisabled, kmsprovider.ErrInvalidCiphertext)
	_, err = unwrap(t, ring, SuiteAES128, someContext, m.Keys...)
	wantErrors(t, "a suite with shorter keys", err, ErrNoKey, kmsprovider.ErrInvalidCiphertext)
}

func TestDiscoveryDoesNotEncrypt(t *testing.T) {
	s := newKeystore(t)
	ring := NewDiscoveryKeyring(s.open, Discovery{})
	for _, dataKey := range [][]byte{nil, make([]byte, 32)} {
		m := &EncryptionMaterials{Suite: SuiteCommit, DataKey: dataKey}
		if err := ring.OnEncrypt(t.Context(), m); err == nil || len(m.Keys) > 0 {
			t.Errorf("error %v, %d keys", err, len(m.Keys))
		}
	}
	s.wantCalls("encryption", map[string]int{})
}

func TestDiscoveryAsksWhatTheFilterLets(t *testing.T) {
	const (
		one     = "arn:aws:kms:us-east-1:111122223333:key/1"
		other   = "arn:aws:kms:us-east-1:444455556666:key/1"
		europe  = "arn:aws:kms:eu-west-1:111122223333:key/2"
		china   = "arn:aws-cn:kms:cn-north-1:111122223333:key/1"
		replica = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1"
	)
	all := []string{one, other, europe, china, replica}
	for _, c := range []struct {
		name   string
		filter Discovery
		want   []string
	}{
		{"none", Discovery{}, all},
		{"account", Discovery{Account: "111122223333"}, []string{one, europe, china, replica}},
		{"partition", Discovery{Partition: "aws"}, []string{one, other, europe, replica}},
		{"both", Discovery{Account: "111122223333", Partition: "aws"}, []string{one, europe, replica}},
		{"region", Discovery{Region: "us-east-1"}, []string{one, other, "arn:aws:kms:us-east-1:111122223333:key/mrk-1"}},
		{"region and account", Discovery{Region: "eu-west-1", Account: "111122223333"}, []string{europe, replica}},
		{"nobody", Discovery{Account: "000000000000"}, nil},
	} {
		var asked []string
		p := answers{decrypt: func(_ context.Context, keyID string) ([]byte, error) {
			asked = append(asked, keyID)
			return nil, kmsprovider.ErrAccessDenied
		}}
		opened := 0
		ring := NewDiscoveryKeyring(func(_ context.Context, u kmsprovider.KeyURI) (kmsprovider.Provider, error) {
			opened++
			if u.Provider != "aws" {
				t.Errorf("%s: provider %q opened", c.name, u.Provider)
			}
			return p, nil
		}, c.filter)
		var keys []EncryptedDataKey
		for _, arn := range all {
			keys = append(keys, EncryptedDataKey{kmsProvider, []byte(arn), []byte("x")}, EncryptedDataKey{"raw", []byte(arn), []byte("x")})
		}
		_, err := unwrap(t, ring, SuiteCommit, nil, keys...)
		wantErrors(t, c.name, err, ErrNoKey)
		if errors.Is(err, kmsprovider.ErrAccessDenied) != (len(c.want) > 0) {
			t.Errorf("%s: %v", c.name, err)
		}
		if !slices.Equal(asked, c.want) || opened != len(c.want) {
			t.Errorf("%s: asked %s, want %s", c.name, asked, c.want)
		}
	}
}

func TestDiscoveryPassesByWhatNamesNoKey(t *testing.T) {
	s := newKeystore(t)
	m := wrap(t, s.keyring(s.key()), someContext)
	s.wantCalls("encryption", map[string]int{"GenerateDataKey": 1})
	ring := NewDiscoveryKeyring(s.open, Discovery{})
	for _, bad := range badARNs {
		k := EncryptedDataKey{kmsProvider, []byte(bad), m.Keys[0].Ciphertext}
		if _, err := unwrap(t, ring, SuiteCommit, someContext, k, m.Keys[0]); err != nil {
			t.Errorf("%q stands in the way: %v", bad, err)
		}
		s.wantCalls("past a bad ARN", map[string]int{"Decrypt": 1})
		_, err := unwrap(t, ring, SuiteCommit, someContext, k)
		wantErrors(t, bad, err, ErrNoKey)
		if errors.Is(err, kmsprovider.ErrInvalidInput) {
			t.Errorf("%q: the user is blamed", bad)
		}
		if text := err.Error(); !strings.Contains(text, "parse key ") || len(text) > 2500 {
			t.Errorf("%q: not named in %.3000q", bad, text)
		}
		s.wantCalls("a bad ARN", map[string]int{})
	}
}
