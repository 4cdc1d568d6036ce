package kms

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// maxCalls bounds the calls of the aws command, which takes most of a second.
const maxCalls = 60

// documented is a row of the table in docs/KMS.md.
type documented struct{ name, aws, kmsfs, moto string }

// readTable reads it.
func readTable(t *testing.T) []documented {
	t.Helper()
	b, err := os.ReadFile("../../docs/KMS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(b), "| call | AWS KMS | kmsfs | moto 5.2.5 |\n|---|---|---|---|\n")
	if !found {
		t.Fatal("docs/KMS.md has no such table")
	}
	var rows []documented
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			break
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, documented{cells[0], cells[1], cells[2], cells[3]})
	}
	return rows
}

const everything = `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}}`

// Every row of the table in docs/KMS.md is true: of kmsfs through the official
// aws command, of moto over the wire, and kmsfs does what AWS does.
func TestTheTableOfEmulatorsIsTrue(t *testing.T) {
	rows := readTable(t)
	aws := program(t, "aws")
	s := newServer(t)
	official := &cli{bin: aws, endpoint: s.endpoint}
	root := s.keystore.Root().ARN
	ours := &prober{caller: official, admin: s.principal("admin", everything), bob: s.principal("bob", ""), bobARN: strings.TrimSuffix(root, "root") + "user/bob"}
	anybody := keys{"AKIAANYBODYANYBODYAN", "x"}
	moto := &prober{caller: wire{startMoto(t)}, admin: anybody, bob: anybody, bobARN: "arn:aws:iam::123456789012:user/bob"}

	probes, motoProbes := ours.probes(), moto.probes()
	if len(rows) != len(probes) {
		t.Errorf("the table has %d rows, and there are %d probes", len(rows), len(probes))
	}
	var mu sync.Mutex
	found := make(map[string]documented)
	t.Run("rows", func(t *testing.T) {
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				if probes[row.name] == nil {
					t.Fatal("no probe has this name")
				}
				got := documented{name: row.name, aws: row.aws, kmsfs: probes[row.name](t), moto: motoProbes[row.name](t)}
				mu.Lock()
				found[row.name] = got
				mu.Unlock()
				if got != row {
					t.Errorf("found %+v\ndocumented %+v", got, row)
				}
				if got.kmsfs != row.aws {
					t.Errorf("kmsfs: %s\nAWS: %s", got.kmsfs, row.aws)
				}
			})
		}
	})
	var table strings.Builder
	for _, row := range rows {
		r := found[row.name]
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", r.name, r.aws, r.kmsfs, r.moto)
	}
	t.Logf("%d calls of the aws command\n%s", official.calls.Load(), &table)
	if n := official.calls.Load(); n > maxCalls {
		t.Errorf("%d calls of the aws command, and %d are the most", n, maxCalls)
	}
	checkAudit(t, s, int(official.calls.Load()))
}

// checkAudit checks the log of all these calls: each is there, whole, and no
// plaintext is.
func checkAudit(t *testing.T, s *server, calls int) {
	t.Helper()
	report, err := s.keystore.VerifyAudit()
	if err != nil {
		t.Fatal(err)
	}
	if int(report.Events) < calls || len(report.Repairs) > 0 {
		t.Errorf("%d events of %d calls, repairs %q", report.Events, calls, report.Repairs)
	}
	log, err := os.ReadFile(s.keystore.AuditPath())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(log, plaintext) || bytes.Contains(log, []byte(base64.StdEncoding.EncodeToString(plaintext))) {
		t.Error("a plaintext is in the audit log")
	}
	for _, want := range []string{`"userName":"bob"`, `"eventName":"ReEncrypt"`, `"errorCode":"AccessDenied"`, `"encryptionContext":{"purpose":"books"}`, `"userAgent":"aws-cli`, `"sourceIPAddress":"127.0.0.1"`} {
		if !bytes.Contains(log, []byte(want)) {
			t.Errorf("no event has %s", want)
		}
	}
}
