package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAPassphraseEndsBeforeItsNewline(t *testing.T) {
	longest := strings.Repeat("x", maxPassphrase)
	for text, want := range map[string]string{
		"secret": "secret", "secret\n": "secret", "secret\r\n": "secret", "secret\n\n": "secret\n",
		" secret ": " secret ", "sec\nret\n": "sec\nret", longest: longest, longest + "\n": longest,
	} {
		got, err := readPassphrase(strings.NewReader(text))
		if err != nil || string(got) != want {
			t.Errorf("%.20q: %.20q, %v, want %.20q", text, got, err, want)
		}
	}
}

func TestPassphrasesThatAreNoneAreRefused(t *testing.T) {
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		r    io.Reader
		want error
	}{
		"empty":       {strings.NewReader(""), errEmptyPassphrase},
		"a newline":   {strings.NewReader("\n"), errEmptyPassphrase},
		"a CRLF":      {strings.NewReader("\r\n"), errEmptyPassphrase},
		"too long":    {strings.NewReader(strings.Repeat("x", maxPassphrase+2)), errTooLong},
		"a bad disk":  {iotest.ErrReader(broken), broken},
		"and a worse": {io.MultiReader(strings.NewReader("sec"), iotest.ErrReader(broken)), broken},
	} {
		if got, err := readPassphrase(tc.r); !errors.Is(err, tc.want) || got != nil {
			t.Errorf("%s: %q, %v, want %v", name, got, err, tc.want)
		}
	}
}
