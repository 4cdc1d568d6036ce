package local

import (
	"maps"
	"slices"

	"kmsfs/kmsprovider"
)

// Input is the input of one operation: a pointer to one of this package's
// structs XxxInput. Their JSON is AWS's.
type Input interface {
	// operation describes the call that this input makes.
	operation() operation
	// perform does it, after all that can be checked before was checked. Its
	// result is a pointer to a struct XxxOutput, or nil.
	perform(c *call) (any, error)
}

// An Input may have more to it:
type (
	// checker is an input with members to check before anything else.
	checker interface{ check() error }
	// needer is an input that needs other permissions than operation says.
	needer interface{ needs(c *call) ([]need, error) }
	// conditioner is an input with condition keys of its own, for policies.
	conditioner interface{ conditions() map[string][]string }
)

// operation is what Do has to know of a call before it performs it.
type operation struct {
	name    string   // "Encrypt"
	own     bool     // not one of AWS's: for the account's root alone
	changes bool     // writes the keystore
	dryRun  bool     // the caller asked for a DryRun
	tokens  []string // GrantTokens

	// Of an operation on one key:
	needsKey bool
	keyID    string // the key as the caller named it
	byKey    bool   // by UUID or ARN alone, not by an alias
	states   states // in which the key must be
	origin   string // that the key must have; empty: any
	customer bool   // refused for a key that kmsfs itself manages
	ec       kmsprovider.Context
	hasEC    bool // the operation has an encryption context, if maybe an empty one
}

// states is a set of the states of a key.
type states uint8

const (
	enabled states = 1 << iota
	disabled
	pendingDeletion
	pendingImport

	anyState  = enabled | disabled | pendingDeletion | pendingImport
	notDying  = enabled | disabled | pendingImport
	switching = enabled | disabled
)

// onKey describes an operation that reads about a key or uses it.
func onKey(name, keyID string, in states) operation {
	return operation{name: name, needsKey: true, keyID: keyID, states: in}
}

// using describes a cryptographic operation.
func using(name, keyID string, ec kmsprovider.Context, tokens []string, dryRun bool) operation {
	return operation{name: name, needsKey: true, keyID: keyID, states: enabled, ec: ec, hasEC: true, tokens: tokens, dryRun: dryRun}
}

// managing describes an operation that changes a key, which a key that kmsfs
// manages itself is kept from, as AWS does with the keys that it manages.
func managing(name, keyID string, in states) operation {
	return operation{name: name, needsKey: true, keyID: keyID, byKey: true, states: in, changes: true, customer: true}
}

// makeInput has a function for each operation that makes a fresh input.
var makeInput = byName([]func() Input{
	func() Input { return new(CancelKeyDeletionInput) },
	func() Input { return new(CreateAliasInput) },
	func() Input { return new(CreateGrantInput) },
	func() Input { return new(CreateKeyInput) },
	func() Input { return new(CreatePrincipalInput) },
	func() Input { return new(DecryptInput) },
	func() Input { return new(DeleteAliasInput) },
	func() Input { return new(DeleteImportedKeyMaterialInput) },
	func() Input { return new(DeletePrincipalInput) },
	func() Input { return new(DescribeKeyInput) },
	func() Input { return new(DisableKeyInput) },
	func() Input { return new(DisableKeyRotationInput) },
	func() Input { return new(EnableKeyInput) },
	func() Input { return new(EnableKeyRotationInput) },
	func() Input { return new(EncryptInput) },
	func() Input { return new(EnsureDefaultKeyInput) },
	func() Input { return new(GenerateDataKeyInput) },
	func() Input { return new(GenerateDataKeyWithoutPlaintextInput) },
	func() Input { return new(GenerateRandomInput) },
	func() Input { return new(GetKeyPolicyInput) },
	func() Input { return new(GetKeyRotationStatusInput) },
	func() Input { return new(GetParametersForImportInput) },
	func() Input { return new(GetPrincipalPolicyInput) },
	func() Input { return new(ImportKeyMaterialInput) },
	func() Input { return new(ListAliasesInput) },
	func() Input { return new(ListGrantsInput) },
	func() Input { return new(ListKeyPoliciesInput) },
	func() Input { return new(ListKeyRotationsInput) },
	func() Input { return new(ListKeysInput) },
	func() Input { return new(ListPrincipalsInput) },
	func() Input { return new(ListResourceTagsInput) },
	func() Input { return new(ListRetirableGrantsInput) },
	func() Input { return new(PutKeyPolicyInput) },
	func() Input { return new(PutPrincipalPolicyInput) },
	func() Input { return new(ReEncryptInput) },
	func() Input { return new(RetireGrantInput) },
	func() Input { return new(RevokeGrantInput) },
	func() Input { return new(RotateKeyOnDemandInput) },
	func() Input { return new(ScheduleKeyDeletionInput) },
	func() Input { return new(TagResourceInput) },
	func() Input { return new(UntagResourceInput) },
	func() Input { return new(UpdateAliasInput) },
	func() Input { return new(UpdateKeyDescriptionInput) },
})

func byName(all []func() Input) map[string]func() Input {
	named := make(map[string]func() Input, len(all))
	for _, f := range all {
		named[f().operation().name] = f
	}
	return named
}

// unsupported are operations of AWS KMS that there are not here, since keys
// here are symmetric, in one place, and in no other store.
var unsupported = []string{
	"ConnectCustomKeyStore", "CreateCustomKeyStore", "Decapsulate", "DeleteCustomKeyStore", "DeriveSharedSecret",
	"DescribeCustomKeyStores", "DisconnectCustomKeyStore", "Encapsulate", "GenerateDataKeyPair",
	"GenerateDataKeyPairWithoutPlaintext", "GenerateMac", "GetKeyLastUsage", "GetPublicKey", "ReplicateKey", "Sign",
	"UpdateCustomKeyStore", "UpdatePrimaryRegion", "Verify", "VerifyMac",
}

// NewInput returns a fresh input of the operation, a pointer to a struct to
// decode a request's JSON into, or false if there is no such operation. The
// operations that are kmsfs's own are included: see IsOwn.
func NewInput(operation string) (Input, bool) {
	f, ok := makeInput[operation]
	if !ok {
		return nil, false
	}
	return f(), true
}

// Operations returns the names of all operations, sorted.
func Operations() []string {
	return slices.Sorted(maps.Keys(makeInput))
}

// IsOwn tells whether an operation is kmsfs's own and not one of AWS KMS: those
// on principals. Only the account's root may call them, and a server of AWS's
// protocol does not offer them.
func IsOwn(operation string) bool {
	f, ok := makeInput[operation]
	return ok && f().operation().own
}

// UnknownOperation is the error for a name that NewInput does not know.
func UnknownOperation(name string) *Error {
	if slices.Contains(unsupported, name) {
		return refuse(codeUnsupported, "%s is not supported: this KMS has symmetric encryption keys alone.", name)
	}
	return refuse("UnknownOperationException", "").of(kmsprovider.ErrInvalidInput)
}

// OperationOf returns the name of the operation that in is an input of.
func OperationOf(in Input) string { return in.operation().name }
