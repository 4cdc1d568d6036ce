package main

import (
	"slices"
	"strings"
	"testing"
)

func TestArgumentsOfTheOfficialCommandAreTakenAsOurs(t *testing.T) {
	for in, want := range map[string]string{
		"--encrypt -i a -o b -w key=k -S":          "encrypt -i a -o b -w key=k -S",
		"-e -i a":                                  "encrypt -i a",
		"-d -i a":                                  "decrypt -i a",
		"--decrypt-unsigned -i a":                  "decrypt --decrypt-unsigned -i a",
		"encrypt -c a=b c=d --input f":             "encrypt -c a=b -c c=d --input f",
		"encrypt --encryption-context=a=b c=d e=f": "encrypt --encryption-context=a=b --encryption-context c=d --encryption-context e=f",
		"decrypt -w discovery=true discovery-account=1 -c k l": "decrypt -w discovery=true -w discovery-account=1 -c k -c l",
		"--keystore f decrypt -w key=a key=b":                  "--keystore f decrypt -w key=a -w key=b",
		"encrypt -c -- a=b c":                                  "encrypt -c -- -c a=b -c c",
		"encrypt -c a=b -- c=d":                                "encrypt -c a=b -- c=d",
		"encrypt --suffix -i a":                                "encrypt --suffix= -i a",
		"encrypt -i a --suffix":                                "encrypt -i a --suffix=",
		"encrypt --suffix .x -i a":                             "encrypt --suffix .x -i a",
		"encrypt -c a=b -i - -o -":                             "encrypt -c a=b -i - -o -",
		"encrypt stray":                                        "encrypt stray",
		"kms encrypt --encryption-context a=b c=d":             "kms encrypt --encryption-context a=b c=d",
		"mount -w x y":                                         "mount -w x y",
		"":                                                     "",
	} {
		got := officialArguments((&app{}).rootCommand(), strings.Fields(in))
		if !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
