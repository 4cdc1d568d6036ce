package envelope

import "testing"

func TestSuitesAreParsedByNumberAndName(t *testing.T) {
	for s, want := range map[string]Suite{
		"0x0578": SuiteCommitSigned,
		"0578":   SuiteCommitSigned,
		"0X0478": SuiteCommit,
		"aes_256_gcm_hkdf_sha512_commit_key_ecdsa_p384": SuiteCommitSigned,
		"AES_128_GCM_IV12_TAG16":                        SuiteAES128Identity,
		"0x0579":                                        0,
		"578":                                           0,
		"0x578":                                         0,
		"00578":                                         0,
		"":                                              0,
		"AES_256_GCM":                                   0,
	} {
		if got, err := ParseSuite(s); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %04x, %v, want %04x", s, uint16(got), err, uint16(want))
		}
	}
	for _, s := range allSuites {
		if got, err := ParseSuite(s.String()); got != s || err != nil {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
}
