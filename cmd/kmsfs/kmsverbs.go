package main

import (
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider/local"
	"kmsfs/kmsprovider/local/policy"
)

// kmsVerb is a verb of kms that is one operation.
type kmsVerb struct {
	operation  string // AWS's name, of which the verb's own follows
	short      string
	long       string
	positional string    // the member that is an argument and no flag
	missing    ifMissing // what to do without a keystore
	// more adds flags that are no members of the input.
	more func(*cobra.Command, local.Input)
	// before changes the input when the keystore is open.
	before func(*cobra.Command, *local.Keystore, local.Input) error
}

// name is the verb: DescribeKey's is describe-key.
func (v kmsVerb) name() string { return kebab(v.operation) }

// kebab writes a name of AWS's as its CLI does: KeyId is key-id.
func kebab(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// kmsVerbs are the verbs, in the order of help.
func kmsVerbs() []kmsVerb {
	return []kmsVerb{
		{operation: "CreateKey", short: "Make a key; the keystore too, if it is missing", missing: makeKeystore, more: addPolicySets, before: writePolicy},
		{operation: "ListKeys", short: "List all keys"},
		{operation: "DescribeKey", short: "Show what is known of a key"},
		{operation: "UpdateKeyDescription", short: "Change what a key is described as"},
		{operation: "EnableKey", short: "Make a disabled key usable again"},
		{operation: "DisableKey", short: "Keep a key from being used, by every process at once"},
		{operation: "ScheduleKeyDeletion", short: "Delete a key, with all that was encrypted under it, in 7 to 30 days"},
		{operation: "CancelKeyDeletion", short: "Keep a key that was to be deleted; it is disabled then"},

		{operation: "CreateAlias", short: "Give a key a name"},
		{operation: "UpdateAlias", short: "Give a name to another key"},
		{operation: "DeleteAlias", short: "Take a name from its key"},
		{operation: "ListAliases", short: "List all aliases, or those of one key"},

		{operation: "EnableKeyRotation", short: "Have a key rotated every 90 to 2560 days"},
		{operation: "DisableKeyRotation", short: "End automatic rotation"},
		{operation: "GetKeyRotationStatus", short: "Show when a key is rotated next"},
		{operation: "RotateKeyOnDemand", short: "Give a key new material now; what is encrypted stays readable"},
		{operation: "ListKeyRotations", short: "List a key's rotations"},

		{operation: "GetParametersForImport", short: "Make a wrapping key and a token to import key material with"},
		{operation: "ImportKeyMaterial", short: "Give a key made with --origin EXTERNAL your own material of 32 bytes"},
		{operation: "DeleteImportedKeyMaterial", short: "Delete imported material; the same can be imported again"},

		{operation: "PutKeyPolicy", short: "Replace a key's policy"},
		{operation: "GetKeyPolicy", short: "Show a key's policy"},
		{operation: "ListKeyPolicies", short: "List the names of a key's policies: default"},

		{operation: "CreateGrant", short: "Let a principal use a key"},
		{operation: "ListGrants", short: "List a key's grants"},
		{operation: "ListRetirableGrants", short: "List the grants that a principal can retire"},
		{operation: "RevokeGrant", short: "End a grant"},
		{operation: "RetireGrant", short: "End a grant by its token"},

		{operation: "Encrypt", short: "Encrypt up to 4096 bytes"},
		{operation: "Decrypt", short: "Decrypt a ciphertext; prints the plaintext as base64"},
		{operation: "ReEncrypt", short: "Move a ciphertext to another key or context"},
		{operation: "GenerateDataKey", short: "Make a data key; prints it as base64 and wrapped"},
		{operation: "GenerateDataKeyWithoutPlaintext", short: "Make a data key, wrapped alone"},
		{operation: "GenerateRandom", short: "Make random bytes; prints them as base64"},

		{operation: "TagResource", short: "Tag a key"},
		{operation: "UntagResource", short: "Remove tags from a key"},
		{operation: "ListResourceTags", short: "List a key's tags"},

		{operation: "CreatePrincipal", short: "Make a user and its access key; prints the secret once", positional: "PrincipalName"},
		{operation: "ListPrincipals", short: "List all users"},
		{operation: "DeletePrincipal", short: "Delete a user, its access key and the grants to it", positional: "PrincipalName"},
		{operation: "PutPrincipalPolicy", short: "Say what a user may do where a key's policy leaves that to the account", positional: "PrincipalName"},
		{operation: "GetPrincipalPolicy", short: "Show a user's policy", positional: "PrincipalName"},
	}
}

// addPolicySets adds the flags of create-key that write its policy.
func addPolicySets(c *cobra.Command, _ local.Input) {
	c.Flags().StringSlice("administrators", nil, "`USERS` who may manage the key and not use it: names or ARNs")
	c.Flags().StringSlice("users", nil, "`USERS` who may use the key and not manage it: names or ARNs")
	c.MarkFlagsMutuallyExclusive("policy", "administrators")
	c.MarkFlagsMutuallyExclusive("policy", "users")
}

// writePolicy makes the policy of administrators and users.
func writePolicy(c *cobra.Command, k *local.Keystore, in local.Input) error {
	if !c.Flags().Changed("administrators") && !c.Flags().Changed("users") {
		return nil
	}
	account := k.Account()
	arns := func(flag string) (all []string) {
		names, _ := c.Flags().GetStringSlice(flag)
		for _, name := range names {
			if !strings.HasPrefix(name, "arn:") {
				name = "arn:aws:iam::" + account + ":user/" + name
			}
			all = append(all, name)
		}
		return all
	}
	in.(*local.CreateKeyInput).Policy = string(policy.WithAdministratorsAndUsers(account, arns("administrators"), arns("users")))
	return nil
}
