package local

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local/audit"
)

// events reads the audit log.
func (s *store) events() (all []audit.Event) {
	s.t.Helper()
	err := audit.Read(s.AuditPath(), func(line []byte) error {
		var e audit.Event
		err := json.Unmarshal(line, &e)
		all = append(all, e)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func TestEveryCallIsAnEvent(t *testing.T) {
	s := newStore(t)
	arn, eve := s.key(), s.user("eve", "")
	before := len(s.events())
	ec := kmsprovider.Context{"purpose": "test"}
	_, wrapped, err := s.GenerateDataKey(context.Background(), arn, ec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Decrypt(context.Background(), arn, wrapped, ec); err != nil {
		t.Fatal(err)
	}
	s.try(&DescribeKeyInput{KeyID: "alias/none"})
	s.as(eve, encryptUnder(arn, ec))
	must[struct{}](s, &DisableKeyInput{KeyID: arn})
	must[struct{}](s, &DisableKeyInput{KeyID: arn}) // changes nothing, and was called
	s.try(&GenerateRandomInput{NumberOfBytes: number(0)})
	s.try(&EncryptInput{KeyID: arn, Plaintext: []byte("x"), DryRun: true})
	got := s.events()[before:]
	want := []struct {
		name, who, code string
		readOnly        bool
		keys            int
	}{
		{"GenerateDataKey", "Root", "", true, 1},
		{"Decrypt", "Root", "", true, 1},
		{"DescribeKey", "Root", "NotFound", true, 0},
		{"Encrypt", "IAMUser", "AccessDenied", true, 1},
		{"DisableKey", "Root", "", false, 1},
		{"DisableKey", "Root", "", false, 1},
		{"GenerateRandom", "Root", "Validation", true, 0},
		{"Encrypt", "Root", "Disabled", true, 1},
	}
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	for i, w := range want {
		e := got[i]
		if e.EventName != w.name || e.UserIdentity.Type != w.who || e.ErrorCode != w.code || e.ReadOnly != w.readOnly || len(e.Resources) != w.keys || e.RequestID == "" || e.SourceIPAddress == "" {
			t.Errorf("event %d: %+v, want %+v", i, e, w)
		}
		if w.keys == 1 && e.Resources[0].ARN != arn {
			t.Errorf("event %d: %+v", i, e.Resources)
		}
	}
	if p := got[0].RequestParameters; p["keyId"] != arn || p["keySpec"] != "AES_256" || p["encryptionContext"].(map[string]any)["purpose"] != "test" {
		t.Errorf("parameters: %v", p)
	}
	if u := got[3].UserIdentity; u.ARN != eve || u.UserName != "eve" || got[3].SourceIPAddress != "127.0.0.1" {
		t.Errorf("who: %+v", u)
	}
	if report, err := s.VerifyAudit(); err != nil || int(report.Events) != before+len(want) {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestWhatTheKMSDoesByItselfIsAnEventToo(t *testing.T) {
	s := newStore(t)
	arn, rotated := s.key(), s.key()
	must[struct{}](s, &EnableKeyRotationInput{KeyID: rotated, RotationPeriodInDays: number(90)})
	must[ScheduleKeyDeletionOutput](s, &ScheduleKeyDeletionInput{KeyID: arn})
	s.clock.passDays(90)
	s.describe(rotated)
	all := s.events()
	events := all[len(all)-3:]
	for i, want := range []string{"DeleteKey", "RotateKey", "DescribeKey"} {
		if e := events[i]; e.EventName != want || i < 2 && (e.EventType != "AwsServiceEvent" || e.ReadOnly) {
			t.Errorf("%+v, want %s", e, want)
		}
	}
	if events[0].Resources[0].ARN != arn || events[1].Resources[0].ARN != rotated {
		t.Errorf("%+v", events)
	}
}

func TestTheAuditLogHoldsNoSecret(t *testing.T) {
	s := newStore(t)
	arn, imported := s.key(), s.external()
	secrets := map[string][]byte{"material": testMaterial(0x41)}
	must[ImportKeyMaterialOutput](s, s.prepareImport(imported, secrets["material"]))
	plaintext := []byte("a plaintext that nobody may see")
	secrets["plaintext"] = plaintext
	wrapped := s.encrypt(arn, string(plaintext), nil)
	if err := s.opens(wrapped, string(plaintext), nil); err != nil {
		t.Fatal(err)
	}
	secrets["data key"] = must[GenerateDataKeyOutput](s, &GenerateDataKeyInput{KeyID: arn, KeySpec: "AES_256"}).Plaintext
	secrets["random bytes"] = must[GenerateRandomOutput](s, &GenerateRandomInput{NumberOfBytes: number(32)}).Plaintext
	secrets["secret access key"] = []byte(must[CreatePrincipalOutput](s, &CreatePrincipalInput{PrincipalName: "p"}).SecretAccessKey)
	grant := must[CreateGrantOutput](s, &CreateGrantInput{KeyID: arn, GranteePrincipal: s.Root().ARN, Operations: []string{"Encrypt"}})
	secrets["grant token"] = []byte(grant.GrantToken)
	must[EncryptOutput](s, &EncryptInput{KeyID: arn, Plaintext: plaintext, GrantTokens: []string{grant.GrantToken}})
	must[struct{}](s, &RetireGrantInput{GrantToken: grant.GrantToken})
	log, err := os.ReadFile(s.AuditPath())
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range secrets {
		for _, form := range []string{string(secret), base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret)} {
			if bytes.Contains(log, []byte(form)) {
				t.Errorf("the log holds a %s", name)
			}
		}
	}
	if !strings.Contains(string(log), "CreateGrant") {
		t.Error("the log holds nothing at all")
	}
}

// brokenLog keeps the audit log from being written.
func (s *store) brokenLog() (repair func()) {
	s.t.Helper()
	if s.log != nil {
		s.log.Close()
		s.log = nil
	}
	saved := s.AuditPath()
	s.auditPath = s.Path() + "/below a file"
	return func() { s.auditPath = saved }
}

func TestWhatCannotBeLoggedIsNotDone(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	wrapped := s.encrypt(arn, "text", nil)
	before, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	repair := s.brokenLog()
	for _, in := range []Input{
		&GenerateDataKeyInput{KeyID: arn, KeySpec: "AES_256"}, &DecryptInput{CiphertextBlob: wrapped}, &EncryptInput{KeyID: arn, Plaintext: []byte("x")},
		&CreateKeyInput{}, &DisableKeyInput{KeyID: arn}, &ScheduleKeyDeletionInput{KeyID: arn}, &RotateKeyOnDemandInput{KeyID: arn}, &CreatePrincipalInput{PrincipalName: "p"},
	} {
		out, err := s.Do(context.Background(), s.Root(), in)
		wantCode(t, OperationOf(in), err, codeInternal)
		if out != nil || !strings.Contains(err.Error(), "audit log") {
			t.Errorf("%s: %+v, %v", OperationOf(in), out, err)
		}
	}
	if err := s.ChangePassphrase(context.Background(), func() ([]byte, error) { return []byte("passphrase"), nil }, func() ([]byte, error) { return []byte("new"), nil }, nil); err == nil {
		t.Error("the passphrase was changed")
	}
	s.clock.passDays(1)
	if after, err := os.ReadFile(s.Path()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the keystore was changed: %v", err)
	}
	repair()
	if err := s.opens(wrapped, "text", nil); err != nil {
		t.Errorf("when it can be written again: %v", err)
	}
}

func TestAPlaintextThatIsNotHandedOutIsWiped(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	defer s.brokenLog()()
	in := &GenerateDataKeyInput{KeyID: arn, KeySpec: "AES_256"}
	c := &call{k: s.Keystore, caller: s.Root(), in: in, op: in.operation(), now: s.timestamp()}
	if _, err := c.do(context.Background()); err == nil {
		t.Fatal("handed out")
	}
	if out := c.out.(*GenerateDataKeyOutput); !bytes.Equal(out.Plaintext, make([]byte, 32)) {
		t.Error("not wiped")
	}
}
