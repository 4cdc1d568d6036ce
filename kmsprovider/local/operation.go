package local

import (
	"maps"
	"slices"
)

// Input is the input of one operation: a pointer to one of this package's
// structs XxxInput. Their JSON is AWS's, except that names of fields are
// matched as encoding/json does.
type Input interface {
	// operation describes the call that this input makes.
	operation() operation
	// perform does it, after all that can be checked before was checked. Its
	// result is a pointer to a struct XxxOutput, or nil.
	perform(c *call) (any, error)
}

// operation is what Do has to know of a call before it performs it.
type operation struct {
	name    string // "Encrypt"
	own     bool   // not one of AWS's: for the account's root alone
	changes bool   // writes the keystore
	dryRun  bool   // the caller asked for a DryRun

	needsKey bool   // the call is about one key, which is
	key      string // named so by the caller
	noAlias  bool   // and not by an alias
	states   states // in which the key must be
}

// states is a set of the states of a key.
type states uint8

const (
	enabled states = 1 << iota
	disabled
	pendingDeletion
	pendingImport

	anyState = enabled | disabled | pendingDeletion | pendingImport
)

// inputs makes a fresh input for each operation.
var inputs = makers(
	func() Input { return new(CreateAliasInput) },
	func() Input { return new(CreateKeyInput) },
	func() Input { return new(DecryptInput) },
	func() Input { return new(DescribeKeyInput) },
	func() Input { return new(DisableKeyInput) },
	func() Input { return new(EnableKeyInput) },
	func() Input { return new(EncryptInput) },
	func() Input { return new(GenerateDataKeyInput) },
	func() Input { return new(ListAliasesInput) },
	func() Input { return new(ListKeysInput) },
	func() Input { return new(ReEncryptInput) },
)

func makers(all ...func() Input) map[string]func() Input {
	byName := make(map[string]func() Input, len(all))
	for _, make := range all {
		byName[make().operation().name] = make
	}
	return byName
}

// NewInput returns a fresh input of the operation, a pointer to a struct to
// decode a request's JSON into, or false if there is no such operation.
func NewInput(operation string) (Input, bool) {
	make, ok := inputs[operation]
	if !ok {
		return nil, false
	}
	return make(), true
}

// Operations returns the names of all operations, sorted.
func Operations() []string {
	return slices.Sorted(maps.Keys(inputs))
}

// OperationOf returns the name of the operation that in is an input of.
func OperationOf(in Input) string { return in.operation().name }
