package providertest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func TestRefusalsAreJudgedByTheContractUnlessADeviationIsDeclared(t *testing.T) {
	accepted := []Deviation{{Check: "a call is refused", Instead: nil, Why: "seen"}}
	other := []Deviation{{Check: "a call is refused", Instead: kmsprovider.ErrAccessDenied, Why: "seen"}}
	wrap := func(err error) error { return fmt.Errorf("call: %w", err) }
	some := []Deviation{{Check: "a call is refused", Instead: nil, Some: true, Why: "seen"}}
	right, wrong := wrap(kmsprovider.ErrIncorrectKey), wrap(kmsprovider.ErrAccessDenied)
	for name, c := range map[string]struct {
		got        []error
		deviations []Deviation
		ok         bool
	}{
		"the right error":                      {[]error{right}, nil, true},
		"another error":                        {[]error{wrong}, nil, false},
		"another error after the right one":    {[]error{right, wrong}, nil, false},
		"success":                              {[]error{nil}, nil, false},
		"no call":                              {nil, nil, false},
		"declared success":                     {[]error{nil}, accepted, true},
		"declared success, but refused":        {[]error{right}, accepted, false},
		"declared success, but refused once":   {[]error{nil, right}, accepted, false},
		"declared for some":                    {[]error{right, nil}, some, true},
		"declared for some, but for none":      {[]error{right, right}, some, false},
		"declared for some, but another error": {[]error{nil, wrong}, some, false},
		"declared other error":                 {[]error{wrong}, other, true},
		"declared other error, but success":    {[]error{nil}, other, false},
		"declared other error, but right":      {[]error{right}, other, false},
		"deviation of another check":           {[]error{right}, []Deviation{{Check: "another"}}, true},
	} {
		wrong := judge(c.got, kmsprovider.ErrIncorrectKey, "a call is refused", c.deviations)
		if (len(wrong) == 0) != c.ok {
			t.Errorf("%s: %v", name, wrong)
		}
	}
}

func TestDeviationsOfNoRefusalAreRefused(t *testing.T) {
	known := refusals()[0].name
	for _, bad := range [][]Deviation{
		{{Check: "no such refusal", Why: "seen"}},
		{{Check: known, Why: "seen"}, {Check: known, Why: "seen"}},
		{{Check: known}},
	} {
		if checkDeviations(bad) == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
	if err := checkDeviations([]Deviation{{Check: known, Why: "seen"}}); err != nil {
		t.Error(err)
	}
}

func TestKeyMaterialInAnErrorIsFoundInEverySpelling(t *testing.T) {
	secret := []byte("\x00\x9fsecret key material 0123")
	for _, format := range []string{"%s", "%q", "%x", "%X", "%v", "%#v"} {
		watch := new(recorder)
		watch.note(nil, secret)
		watch.note(errors.New("open: "+fmt.Sprintf(format, secret)+": failed"), nil)
		if len(watch.leaks()) == 0 {
			t.Errorf("a leak in %s is not found", format)
		}
	}
	watch := new(recorder)
	watch.note(errors.New("open key arn:aws:kms:local:1: invalid"), secret)
	if leaks := watch.leaks(); len(leaks) != 0 {
		t.Errorf("leaks where there are none: %s", strings.Join(leaks, "; "))
	}
}
