package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"kmsfs/envelope"
	"kmsfs/kmsprovider"
)

func TestWrappingKeysInTheOfficialNotation(t *testing.T) {
	one := envelope.Discovery{Account: "111122223333", Partition: "aws"}
	two := envelope.Discovery{Account: "444455556666", Partition: "aws"}
	for in, want := range map[string]struct {
		keys      []string
		discovery []envelope.Discovery
		wrong     string // part of the error
	}{
		"key=a key=b":            {keys: []string{"a", "b"}},
		"provider=aws-kms key=a": {keys: []string{"a"}},
		"discovery=false key=a":  {keys: []string{"a"}},
		"discovery=true":         {discovery: []envelope.Discovery{{}}},
		"discovery=YES":          {discovery: []envelope.Discovery{{}}},
		"discovery=perhaps":      {wrong: "true or false"},
		"key":                    {wrong: "want key=KEY"},
		"key=":                   {wrong: "want key=KEY"},
		"provider=mine key=a":    {wrong: "aws-kms"},
		"key=a region=eu-west-1": {wrong: "not supported"},
		"key=a keyy=b":           {wrong: `unknown "keyy"`},
		"discovery-account=1":    {wrong: "need discovery=true"},
		"key=a discovery=true":   {wrong: "exclude each other"},
		"discovery=1 discovery-account=111122223333 discovery-account=444455556666 discovery-partition=aws": {discovery: []envelope.Discovery{one, two}},
		"discovery=1 discovery-account=1": {wrong: "12 digits"},
	} {
		f := keyringFlags{wrapping: strings.Fields(in)}
		err := f.resolve("decrypt")
		if want.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), want.wrong) || exitCode(err) != exitUsage {
				t.Errorf("%s: %v, want %q", in, err, want.wrong)
			}
			continue
		}
		if err != nil || !slices.Equal(f.keys, want.keys) || !slices.Equal([]envelope.Discovery(f.discovery), want.discovery) {
			t.Errorf("%s: %q, %+v, %v", in, f.keys, f.discovery, err)
		}
	}
}

func TestEncryptionIsToldItsKeys(t *testing.T) {
	for _, f := range []keyringFlags{{}, {wrapping: []string{"discovery=true"}}, {discovery: discoveryValue{{}}, keys: []string{"local:a"}}} {
		if err := f.resolve("encrypt"); exitCode(err) != exitUsage {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

func TestDiscoveryTakesAFilter(t *testing.T) {
	for in, want := range map[string]envelope.Discovery{
		discoverAll:           {},
		"111122223333:aws-cn": {Account: "111122223333", Partition: "aws-cn"},
		"111122223333":        {Account: "111122223333"},
		":aws":                {Partition: "aws"},
	} {
		var d discoveryValue
		if err := d.Set(in); err != nil || len(d) != 1 || d[0] != want {
			t.Errorf("%q: %+v, %v", in, d, err)
		}
	}
	for _, in := range []string{"", ":", "12:aws", "11112222333a", "111122223333:azure"} {
		var d discoveryValue
		if err := d.Set(in); err == nil {
			t.Errorf("%q is accepted", in)
		}
	}
}

// Unless the user has named an endpoint, which may well be the same key's.
func TestTheLocalKMSIsAskedForItsOwnKeys(t *testing.T) {
	opened := errors.New("opened")
	registry := kmsprovider.NewRegistry()
	for _, name := range []string{"local", "aws"} {
		registry.Register(name, func(context.Context) (kmsprovider.Provider, error) { return nil, opened })
	}
	for _, c := range []struct{ arn, endpoint, want string }{
		{"arn:aws:kms:local:111122223333:key/k", "", `"local"`},
		{"arn:aws:kms:local:111122223333:key/k", "http://127.0.0.1:1", `"aws"`},
		{"arn:aws:kms:eu-west-1:111122223333:key/k", "", `"aws"`},
	} {
		a := &app{getenv: func(name string) string {
			if name == "AWS_ENDPOINT_URL_KMS" {
				return c.endpoint
			}
			return ""
		}}
		_, err := a.openKey(registry)(t.Context(), kmsprovider.KeyURI{Provider: "aws", KeyID: c.arn})
		if !errors.Is(err, opened) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with endpoint %q: %v, want %s", c.arn, c.endpoint, err, c.want)
		}
	}
}
