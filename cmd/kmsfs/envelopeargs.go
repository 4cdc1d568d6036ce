package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What the official command, aws-encryption-cli, spells in another way.

// officialVerbs are its flags that say what to do, which come first here.
var officialVerbs = map[string][]string{
	"--encrypt":          {"encrypt"},
	"-e":                 {"encrypt"},
	"--decrypt":          {"decrypt"},
	"-d":                 {"decrypt"},
	"--decrypt-unsigned": {"decrypt", "--decrypt-unsigned"},
}

// listFlags are its flags with one or more values: -c K=V K=V.
var listFlags = []string{"-c", "--encryption-context", "-w", "--wrapping-keys"}

// officialArguments turns the official command's arguments into ours, and leaves
// alone those of other verbs.
func officialArguments(root *cobra.Command, args []string) []string {
	if len(args) > 0 && officialVerbs[args[0]] != nil {
		args = slices.Concat(officialVerbs[args[0]], args[1:])
	}
	if c, _, err := root.Find(args); err != nil || c.Parent() != root || c.Name() != "encrypt" && c.Name() != "decrypt" {
		return args
	}
	return spreadLists(args)
}

// spreadLists repeats a list's flag before each further value, and gives a
// --suffix that has no value the empty one.
func spreadLists(args []string) []string {
	var out []string
	list := ""       // the flag whose values these are
	waiting := false // its first value comes next
	for i, arg := range args {
		name, _, attached := strings.Cut(arg, "=")
		switch {
		case waiting:
			waiting = false
		case arg == "--":
			return append(out, args[i:]...)
		case slices.Contains(listFlags, name):
			list, waiting = name, !attached
		case arg == "--suffix" && (i+1 == len(args) || strings.HasPrefix(args[i+1], "-")):
			arg, list = "--suffix=", ""
		case strings.HasPrefix(arg, "-"):
			list = ""
		case list != "":
			out = append(out, list)
		}
		out = append(out, arg)
	}
	return out
}

// officialFlagName gives our name for a flag that the official command names
// otherwise.
func officialFlagName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "algorithm":
		name = "suite"
	case "max-encrypted-data-keys":
		name = "max-data-keys"
	}
	return pflag.NormalizedName(name)
}
