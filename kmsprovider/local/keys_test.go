package local_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
)

func TestKeyMetadataHasTheFieldsOfAWSDescribeKey(t *testing.T) {
	o := options(filepath.Join(scratch(t), "keystore.json"))
	o.Now = func() time.Time { return time.Date(2026, 1, 2, 4, 4, 5, 6_789_000, time.FixedZone("CET", 3600)) }
	k, err := local.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	m, err := k.CreateKey(t.Context(), local.CreateKeyInput{Description: "an \"app\""})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"AWSAccountId":         `^[1-9][0-9]{11}$`,
		"KeyId":                `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`,
		"Arn":                  `^arn:aws:kms:local:[0-9]{12}:key/[0-9a-f-]{36}$`,
		"CurrentKeyMaterialId": `^[0-9a-f]{64}$`,
	} {
		if value, _ := got[field].(string); !regexp.MustCompile(want).MatchString(value) {
			t.Errorf("%s is %v", field, got[field])
		}
		delete(got, field)
	}
	rest, _ := json.Marshal(got)
	want := `{"CreationDate":1767323045.006,"CustomerMasterKeySpec":"SYMMETRIC_DEFAULT","Description":"an \"app\"","Enabled":true,` +
		`"EncryptionAlgorithms":["SYMMETRIC_DEFAULT"],"KeyManager":"CUSTOMER","KeySpec":"SYMMETRIC_DEFAULT","KeyState":"Enabled",` +
		`"KeyUsage":"ENCRYPT_DECRYPT","MultiRegion":false,"Origin":"AWS_KMS"}`
	if string(rest) != want {
		t.Errorf("got  %s\nwant %s", rest, want)
	}
	if m.ARN != "arn:aws:kms:local:"+m.AWSAccountID+":key/"+m.KeyID {
		t.Errorf("ARN %s of key %s", m.ARN, m.KeyID)
	}
}

func TestKeysAreListedInTheOrderOfTheirCreation(t *testing.T) {
	k := create(t)
	var want []string
	for range 5 {
		want = append(want, createKey(t, k, ""))
	}
	for _, k := range []*local.Keystore{k, open(t, k.Path())} {
		keys, err := local.AllKeys(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range keys {
			got = append(got, m.ARN)
		}
		if !slices.Equal(got, want) {
			t.Errorf("listed %v, created %v", got, want)
		}
	}
}

func TestAKeyIsFoundByUUIDAndARNAndAliasAndAliasARN(t *testing.T) {
	k := create(t)
	m, err := k.CreateKey(t.Context(), local.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.CreateAlias(t.Context(), "alias/team/app_1-x", m.KeyID); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{m.KeyID, m.ARN, "alias/team/app_1-x", "arn:aws:kms:local:" + m.AWSAccountID + ":alias/team/app_1-x"} {
		got, err := local.Describe(t.Context(), k, name)
		if err != nil || got.ARN != m.ARN {
			t.Errorf("%s: %s, %v", name, got.ARN, err)
		}
	}
}

func TestNamesOfNoKeyAreNotFoundOrMalformed(t *testing.T) {
	k := create(t)
	m, err := k.CreateKey(t.Context(), local.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"00000000-0000-4000-8000-000000000000":            kmsprovider.ErrKeyNotFound,
		"alias/none":                                      kmsprovider.ErrKeyNotFound,
		"alias/aws/ebs":                                   kmsprovider.ErrKeyNotFound,
		"arn:aws:kms:local:000000000000:key/" + m.KeyID:   kmsprovider.ErrKeyNotFound,
		"arn:aws:kms:eu-west-1:000000000000:key/mrk-1234": kmsprovider.ErrKeyNotFound,
		"arn:aws:kms:local:000000000000:alias/none":       kmsprovider.ErrKeyNotFound,
		"":                                   kmsprovider.ErrInvalidInput,
		"alias/":                             kmsprovider.ErrInvalidInput,
		"alias/a b":                          kmsprovider.ErrInvalidInput,
		strings.ToUpper(m.KeyID) + "0":       kmsprovider.ErrInvalidInput,
		"arn:aws:s3:::bucket":                kmsprovider.ErrInvalidInput,
		"arn:aws:kms:local:1:key/x":          kmsprovider.ErrInvalidInput,
		"local:" + m.KeyID:                   kmsprovider.ErrInvalidInput,
		strings.Repeat("x", 5000):            kmsprovider.ErrInvalidInput,
		"alias/" + strings.Repeat("x", 5000): kmsprovider.ErrInvalidInput,
	} {
		_, err := local.Describe(t.Context(), k, name)
		if !errors.Is(err, want) {
			t.Errorf("%.80q: %v, want %v", name, err, want)
		}
		if err != nil && len(err.Error()) > 3000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
}

func TestAliasesFollowAWSRules(t *testing.T) {
	k := create(t)
	arn := createKey(t, k, "")
	for _, bad := range []string{"", "name", "alias/", "alias/aws/x", "alias/a b", "alias/a:b", "alias/ä", "Alias/a", "alias/a\n", "alias/" + strings.Repeat("a", 251)} {
		if err := k.CreateAlias(t.Context(), bad, arn); !errors.Is(err, kmsprovider.ErrInvalidInput) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	good := []string{"alias/a", "alias/aws", "alias/A/b_c-9", "alias/" + strings.Repeat("a", 250)}
	for _, name := range good {
		if err := k.CreateAlias(t.Context(), name, arn); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := k.CreateAlias(t.Context(), "alias/a", arn); !errors.Is(err, local.ErrAliasExists) {
		t.Errorf("a second time: %v", err)
	}
	if err := k.CreateAlias(t.Context(), "alias/new", "00000000-0000-4000-8000-000000000000"); !errors.Is(err, kmsprovider.ErrKeyNotFound) {
		t.Errorf("of no key: %v", err)
	}
	if err := k.CreateAlias(t.Context(), "alias/new", "alias/a"); !errors.Is(err, kmsprovider.ErrInvalidInput) {
		t.Errorf("of an alias: %v", err)
	}
	aliases, err := local.AllAliases(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, a := range aliases {
		listed = append(listed, a.AliasName)
	}
	if !slices.Equal(listed, good) {
		t.Errorf("listed %v", listed)
	}
	b, _ := json.Marshal(aliases[0])
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(fields))
	if !slices.Equal(names, []string{"AliasArn", "AliasName", "CreationDate", "LastUpdatedDate", "TargetKeyId"}) {
		t.Errorf("fields %v", names)
	}
	if !strings.HasSuffix(arn, "/"+fields["TargetKeyId"].(string)) || !strings.HasSuffix(fields["AliasArn"].(string), ":alias/a") {
		t.Errorf("alias %v of key %s", fields, arn)
	}
}

func TestTheDefaultKeyIsMadeOnceByWhoeverComesFirst(t *testing.T) {
	k := create(t)
	arns := make([]string, 8)
	// All see that there is none before one can make it: the lock is held.
	lock, err := os.OpenFile(k.Path()+".lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range arns {
		other := open(t, k.Path())
		group.Go(func() {
			var err error
			if arns[i], err = other.EnsureDefaultKey(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	lock.Close()
	group.Wait()
	if len(slices.Compact(arns)) != 1 || arns[0] == "" {
		t.Fatalf("several default keys: %v", arns)
	}
	info, err := k.DescribeKey(t.Context(), local.DefaultAlias)
	if err != nil || info.KeyID != arns[0] || info.Manager != kmsprovider.ManagerService || info.Origin != "AWS_KMS" {
		t.Errorf("%+v, %v", info, err)
	}
	keys, err := local.AllKeys(t.Context(), k)
	if err != nil || len(keys) != 1 || keys[0].KeyManager != "SERVICE" {
		t.Errorf("%+v, %v", keys, err)
	}
}

func TestAnEnabledKeyWorksAgain(t *testing.T) {
	k := create(t)
	arn := createKey(t, k, "")
	plaintext, wrapped, err := k.GenerateDataKey(t.Context(), arn, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time changes nothing
		if err := k.DisableKey(t.Context(), arn); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := local.Describe(t.Context(), k, arn); err != nil || m.Enabled || m.KeyState != "Disabled" {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := k.Decrypt(t.Context(), arn, wrapped, nil); !errors.Is(err, kmsprovider.ErrKeyDisabled) {
		t.Errorf("disabled: %v", err)
	}
	for range 2 {
		if err := k.EnableKey(t.Context(), arn); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := k.Decrypt(t.Context(), arn, wrapped, nil); err != nil || string(got) != string(plaintext) {
		t.Errorf("enabled again: %v", err)
	}
	if err := k.DisableKey(t.Context(), "alias/none"); !errors.Is(err, kmsprovider.ErrInvalidInput) {
		t.Errorf("by alias: %v", err)
	}
}

func TestDescriptionsAreLimited(t *testing.T) {
	k := create(t)
	for _, bad := range []string{strings.Repeat("x", 8193), "\xff"} {
		if _, err := k.CreateKey(t.Context(), local.CreateKeyInput{Description: bad}); !errors.Is(err, kmsprovider.ErrInvalidInput) {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
	for _, good := range []string{strings.Repeat("x", 8192), "<&>\u2028 ä \x00\""} {
		m, err := k.CreateKey(t.Context(), local.CreateKeyInput{Description: good})
		if err != nil || m.Description != good {
			t.Errorf("%.10q: %v", good, err)
		}
	}
	keys, err := local.AllKeys(t.Context(), open(t, k.Path()))
	if err != nil || len(keys) != 2 || keys[1].Description != "<&>\u2028 ä \x00\"" {
		t.Errorf("read back: %v", err)
	}
}
