package envelope

import (
	"crypto/elliptic"
	"fmt"
	"strconv"
	"strings"
)

// Suite is the ID of an algorithm suite: how a message's key is derived, what it is encrypted with, and whether it is
// signed. Specification: algorithm-suites.md.
type Suite uint16

// The suites of the specification. Messages are written with the two that commit to their key; all are read.
const (
	SuiteCommitSigned   Suite = 0x0578 // the default
	SuiteCommit         Suite = 0x0478
	SuiteAES256Signed   Suite = 0x0378
	SuiteAES192Signed   Suite = 0x0346
	SuiteAES128Signed   Suite = 0x0214
	SuiteAES256         Suite = 0x0178
	SuiteAES192         Suite = 0x0146
	SuiteAES128         Suite = 0x0114
	SuiteAES256Identity Suite = 0x0078 // the data key is the content key
	SuiteAES192Identity Suite = 0x0046
	SuiteAES128Identity Suite = 0x0014
)

// kdf says how a suite makes the key of a message from its data key.
type kdf int

const (
	kdfNone   kdf = iota // the data key itself
	kdfSHA256            // HKDF
	kdfSHA384
	kdfSHA512 // HKDF, with a commitment
)

type suiteInfo struct {
	name    string
	keySize int // bytes, of the data key and of the content key
	kdf     kdf
	curve   elliptic.Curve // nil: unsigned
}

var suites = map[Suite]suiteInfo{
	SuiteCommitSigned:   {"AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384", 32, kdfSHA512, elliptic.P384()},
	SuiteCommit:         {"AES_256_GCM_HKDF_SHA512_COMMIT_KEY", 32, kdfSHA512, nil},
	SuiteAES256Signed:   {"AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384", 32, kdfSHA384, elliptic.P384()},
	SuiteAES192Signed:   {"AES_192_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384", 24, kdfSHA384, elliptic.P384()},
	SuiteAES128Signed:   {"AES_128_GCM_IV12_TAG16_HKDF_SHA256_ECDSA_P256", 16, kdfSHA256, elliptic.P256()},
	SuiteAES256:         {"AES_256_GCM_IV12_TAG16_HKDF_SHA256", 32, kdfSHA256, nil},
	SuiteAES192:         {"AES_192_GCM_IV12_TAG16_HKDF_SHA256", 24, kdfSHA256, nil},
	SuiteAES128:         {"AES_128_GCM_IV12_TAG16_HKDF_SHA256", 16, kdfSHA256, nil},
	SuiteAES256Identity: {"AES_256_GCM_IV12_TAG16", 32, kdfNone, nil},
	SuiteAES192Identity: {"AES_192_GCM_IV12_TAG16", 24, kdfNone, nil},
	SuiteAES128Identity: {"AES_128_GCM_IV12_TAG16", 16, kdfNone, nil},
}

// ParseSuite takes a suite as "0x0578", as "0578", or by its long name in any case.
func ParseSuite(s string) (Suite, error) {
	digits := strings.TrimPrefix(strings.ToLower(s), "0x")
	if n, err := strconv.ParseUint(digits, 16, 16); err == nil && len(digits) == 4 && Suite(n).Valid() {
		return Suite(n), nil
	}
	for id, info := range suites {
		if strings.EqualFold(s, info.name) {
			return id, nil
		}
	}
	return 0, fmt.Errorf("parse algorithm suite: %q is not one, such as 0x0578 or %s", s, SuiteCommitSigned)
}

// String is the suite's long name.
func (s Suite) String() string {
	if info, ok := suites[s]; ok {
		return info.name
	}
	return fmt.Sprintf("unknown suite 0x%04x", uint16(s))
}

// Valid tells whether the specification has s.
func (s Suite) Valid() bool { _, ok := suites[s]; return ok }

// Commits tells whether messages of s commit to their key, so that they open under no other.
func (s Suite) Commits() bool { return suites[s].kdf == kdfSHA512 }

// Signed tells whether messages of s end in a signature.
func (s Suite) Signed() bool { return suites[s].curve != nil }

// KeySize is the length of the data key in bytes.
func (s Suite) KeySize() int { return suites[s].keySize }

// Curve is that of the signature, nil if there is none.
func (s Suite) Curve() elliptic.Curve { return suites[s].curve }
