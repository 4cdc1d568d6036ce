package main

import (
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kmsfs/kmsprovider/local"
)

// kmsFlags are the flags that stand for the members of an operation's input,
// named as the AWS CLI names them. A member whose JSON may not be left out is
// required.
type kmsFlags struct {
	positional *kmsValue // the member that is an argument; nil: none
	required   []string  // names of flags
	values     []*kmsValue
}

// kmsValue is a member of an input as a flag.
type kmsValue struct {
	member string // KeyId
	flag   string // key-id
	to     reflect.Value
	given  bool
}

// addKMSFlags adds the flags of in.
func addKMSFlags(flags *pflag.FlagSet, in local.Input, positional string) *kmsFlags {
	all := &kmsFlags{}
	s := reflect.ValueOf(in).Elem()
	for i := range s.NumField() {
		member, options, _ := strings.Cut(s.Type().Field(i).Tag.Get("json"), ",")
		v := &kmsValue{member: member, flag: kebab(member), to: s.Field(i)}
		if member == positional {
			all.positional = v
			continue
		}
		all.values = append(all.values, v)
		flag := flags.VarPF(v, v.flag, "", kmsUsage(member))
		if v.to.Kind() == reflect.Bool {
			flag.NoOptDefVal = "true"
		}
		if !strings.Contains(options, "omitempty") {
			all.required = append(all.required, v.flag)
		}
	}
	return all
}

// usage is the line of help that shows what is required.
func (f *kmsFlags) usage(verb string) string {
	if f.positional != nil {
		verb += " NAME"
	}
	for _, flag := range f.required {
		for _, v := range f.values {
			if name, _ := pflag.UnquoteUsage(&pflag.Flag{Usage: kmsUsage(v.member), Value: v}); v.flag == flag {
				verb += " --" + flag + " " + name
			}
		}
	}
	return verb + " [flags]"
}

// complete checks that all is there. As in the AWS CLI the values of a list
// stand one after the other: what follows the first of them comes here as args.
func (f *kmsFlags) complete(cmd *cobra.Command, args []string) error {
	if f.positional != nil {
		if len(args) == 0 {
			return withHint(usagef("%s: NAME is missing", verbOf(cmd)), "usage: %s", cmd.UseLine())
		}
		if err := f.positional.Set(args[0]); err != nil {
			return usagef("%s: NAME: %w", verbOf(cmd), err)
		}
		args = args[1:]
	}
	for _, flag := range f.required {
		if !cmd.Flags().Changed(flag) {
			return withHint(usagef("%s: --%s is missing", verbOf(cmd), flag), "usage: %s", cmd.UseLine())
		}
	}
	lists := slices.DeleteFunc(slices.Clone(f.values), func(v *kmsValue) bool { return !v.given || !v.isList() })
	if len(args) > 0 && len(lists) != 1 {
		return withHint(usagef("%s: one argument too many: %q", verbOf(cmd), args[0]), "usage: %s", cmd.UseLine())
	}
	for _, arg := range args {
		if err := lists[0].Set(arg); err != nil {
			return usagef("%s: --%s: %w", verbOf(cmd), lists[0].flag, err)
		}
	}
	return nil
}

// kmsUsage is the help of a member, the same in every verb.
func kmsUsage(member string) string {
	if u, ok := kmsUsages[member]; ok {
		return u
	}
	return "see aws kms"
}

var kmsUsages = map[string]string{
	"AliasName":                      "the alias: alias/`NAME`",
	"BypassPolicyLockoutSafetyCheck": "take a policy even if it locks you out",
	"CiphertextBlob":                 "what to decrypt: fileb://`FILE`, or base64",
	"Constraints":                    "encryption contexts to keep to: EncryptionContextSubset={K=V,…} or `JSON`",
	"CustomKeyStoreId":               "not supported",
	"CustomerMasterKeySpec":          "the old name of --key-spec",
	"Description":                    "what the key is for: `TEXT`",
	"DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
	"DestinationEncryptionContext":   "the new encryption context: `K=V`,… or JSON",
	"DestinationKeyId":               "the new `KEY`: its ID, ARN or alias",
	"DryRun":                         "check whether it could be done, and do nothing",
	"EncryptedKeyMaterial":           "the material under the wrapping key: fileb://`FILE`, or base64",
	"EncryptionAlgorithm":            "SYMMETRIC_DEFAULT",
	"EncryptionContext":              "pairs that the ciphertext is bound to: `K=V`,… or JSON",
	"ExpirationModel":                "`MODEL`: KEY_MATERIAL_EXPIRES or KEY_MATERIAL_DOES_NOT_EXPIRE",
	"GrantId":                        "`ID` of the grant",
	"GrantToken":                     "`TOKEN` of the grant",
	"GrantTokens":                    "`TOKENS` of grants; not needed here",
	"GranteePrincipal":               "`ARN` of the user who gets the grant",
	"ImportToken":                    "the token of get-parameters-for-import: fileb://`FILE`, or base64",
	"ImportType":                     "`TYPE`: NEW_KEY_MATERIAL or EXISTING_KEY_MATERIAL",
	"IncludeKeyMaterial":             "`WHAT` to list: ROTATIONS_ONLY or ALL_KEY_MATERIAL",
	"KeyId":                          "the `KEY`: its ID or ARN, or where no key is changed its alias",
	"KeyMaterialDescription":         "not supported",
	"KeyMaterialId":                  "`ID` of the material",
	"KeySpec":                        "`SPEC`: of a key SYMMETRIC_DEFAULT, of a data key AES_256 or AES_128",
	"KeyUsage":                       "ENCRYPT_DECRYPT",
	"Limit":                          "entries in one answer: `N`; without it all are listed",
	"Marker":                         "go on after an answer's `NEXTMARKER`",
	"MultiRegion":                    "not supported",
	"Name":                           "`NAME` of the grant: the same request makes no second one",
	"NumberOfBytes":                  "how many bytes: `N`, 1 to 1024",
	"Operations":                     "`OPERATIONS` that the grant allows, such as Encrypt Decrypt",
	"Origin":                         "where the material is `FROM`: AWS_KMS, or EXTERNAL for imported material",
	"PendingWindowInDays":            "`DAYS` until then: 7 to 30 (default 30)",
	"Plaintext":                      "what to encrypt: fileb://`FILE`, or base64",
	"Policy":                         "the policy: file://`FILE`, or JSON",
	"PolicyName":                     "default",
	"RetiringPrincipal":              "`ARN` of the user who may retire the grant",
	"RotationPeriodInDays":           "`DAYS` between rotations: 90 to 2560 (default 365)",
	"SourceEncryptionAlgorithm":      "SYMMETRIC_DEFAULT",
	"SourceEncryptionContext":        "the encryption context so far: `K=V`,… or JSON",
	"SourceKeyId":                    "the `KEY` so far: its ID, ARN or alias",
	"TagKeys":                        "`KEYS` of the tags to remove",
	"Tags":                           "tags: `TagKey=K,TagValue=V` … or JSON",
	"TargetKeyId":                    "the `KEY`: its ID or ARN",
	"ValidTo":                        "`DATE` when the material expires: 2026-12-31T00:00:00Z, or seconds since 1970",
	"WrappingAlgorithm":              "`ALGORITHM`: RSAES_OAEP_SHA_256",
	"WrappingKeySpec":                "`SPEC`: RSA_2048, RSA_3072 or RSA_4096",
}
