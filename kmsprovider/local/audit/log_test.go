package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kmsfs/crypto"
)

func testKey(fill byte) *crypto.Key {
	k, err := crypto.NewKey(bytes.Repeat([]byte{fill}, crypto.KeySize))
	if err != nil {
		panic(err)
	}
	return k
}

func openLog(t testing.TB, path string) *Log {
	t.Helper()
	l, err := Open(path, testKey(1), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func decrypt(n int) Event {
	return Event{
		EventName: "Decrypt", ReadOnly: true, UserIdentity: UserIdentity{Type: "Root", ARN: "arn:aws:iam::111122223333:root"},
		RequestParameters: map[string]any{"encryptionContext": map[string]string{"purpose": fmt.Sprintf("<%d>\n", n)}},
	}
}

func appendEvents(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(decrypt(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func newLog(t testing.TB, n int) (*Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keystore.json.audit")
	l := openLog(t, path)
	appendEvents(t, l, n)
	return l, path
}

func lines(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.SplitAfter(string(b), "\n")
	return all[:len(all)-1] // what follows the last newline, which is nothing here
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// verify expects this many events and no problem.
func verify(t testing.TB, path string, events int) Report {
	t.Helper()
	r, err := Verify(path, testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	if r.Events != uint64(events) {
		t.Fatalf("%d events, want %d", r.Events, events)
	}
	return r
}

func TestEventsHaveCloudTrailsShape(t *testing.T) {
	l, path := newLog(t, 0)
	err := l.Append(Event{
		EventName: "CreateKey", AWSRegion: "local", SourceIPAddress: "127.0.0.1", UserAgent: "aws-cli", RequestID: "r",
		UserIdentity:      UserIdentity{Type: "IAMUser", ARN: "arn:aws:iam::111122223333:user/alice", AccountID: "111122223333", UserName: "alice"},
		RequestParameters: map[string]any{"description": "x"},
		Resources:         []Resource{{AccountID: "111122223333", Type: "AWS::KMS::Key", ARN: "arn:aws:kms:local:111122223333:key/1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	if err := json.Unmarshal([]byte(lines(t, path)[0]), &e); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"eventVersion": "1.11", "eventSource": "kms.amazonaws.com", "eventName": "CreateKey", "eventType": "AwsApiCall", "eventCategory": "Management",
		"managementEvent": true, "readOnly": false, "awsRegion": "local", "sourceIPAddress": "127.0.0.1", "responseElements": nil,
		"sequence": 1.0, "previousMac": strings.Repeat("0", 64),
	} {
		if got, found := e[name]; got != want || !found {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"eventTime", "eventID", "mac"} {
		if s, _ := e[name].(string); s == "" {
			t.Errorf("no %s", name)
		}
	}
	for _, p := range []string{path, path + headSuffix} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", p, info.Mode(), err)
		}
	}
	verify(t, path, 1)
}

func TestAppendsGoOnWhereAnotherStopped(t *testing.T) {
	_, path := newLog(t, 3)
	appendEvents(t, openLog(t, path), 2)
	r := verify(t, path, 5)
	if len(r.Repairs) != 0 || r.First == "" || r.Last == "" {
		t.Errorf("%+v", r)
	}
}

func TestManyLogsAppendAtOnce(t *testing.T) {
	const logs, goroutines, each = 3, 4, 20
	path := filepath.Join(t.TempDir(), "log")
	var wait sync.WaitGroup
	for range logs {
		l := openLog(t, path)
		for range goroutines {
			wait.Go(func() {
				for i := range each {
					if err := l.Append(decrypt(i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wait.Wait()
	if r := verify(t, path, logs*goroutines*each); len(r.Repairs) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestTamperingShows(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, path string, l []string) []string
		says   string
	}{
		{"a changed line", func(_ *testing.T, _ string, l []string) []string {
			l[2] = strings.Replace(l[2], `"Decrypt"`, `"Encrypt"`, 1)
			return l
		}, "line 3 was changed"},
		{"a line with a changed MAC", func(_ *testing.T, _ string, l []string) []string {
			at, digit := len(l[2])-len("0\"}\n"), "0"
			if l[2][at] == '0' {
				digit = "1"
			}
			l[2] = l[2][:at] + digit + l[2][at+1:]
			return l
		}, "line 3 was changed"},
		{"a removed line", func(_ *testing.T, _ string, l []string) []string { return append(l[:2:2], l[3:]...) }, "before line 3: event 3 is missing"},
		{"the first lines removed", func(_ *testing.T, _ string, l []string) []string { return l[2:] }, "before line 1: events 1 to 2 are missing"},
		{"the last line removed", func(_ *testing.T, _ string, l []string) []string { return l[:4] }, "event 5 is missing from the end"},
		{"all lines removed", func(_ *testing.T, _ string, l []string) []string { return nil }, "events 1 to 5 are missing from the end"},
		{"the last line cut short", func(_ *testing.T, _ string, l []string) []string { l[4] = l[4][:20]; return l }, "event 5 is missing from the end"},
		{"two lines exchanged", func(_ *testing.T, _ string, l []string) []string { l[1], l[2] = l[2], l[1]; return l }, "event 2 stands after event 3"},
		{"a line twice", func(_ *testing.T, _ string, l []string) []string { return append(l, l[4]) }, "event 5 stands after event 5"},
		{"a line of another's", func(_ *testing.T, _ string, l []string) []string { return append(l, "{}\n") }, "line 6 was changed"},
		{"the file removed", func(t *testing.T, path string, l []string) []string { os.Remove(path); return nil }, "events 1 to 5 are missing from the end"},
		{"the last line and the head removed", func(t *testing.T, path string, l []string) []string { os.Remove(path + headSuffix); return l[:4] }, "the head is missing"},
		{"the last line removed and another's head", func(t *testing.T, path string, l []string) []string {
			write(t, path+headSuffix, strings.Repeat("x", headSize))
			return l[:4]
		}, "the head is missing or not of this log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, path := newLog(t, 5)
			changed := c.change(t, path, lines(t, path))
			if _, err := os.Stat(path); err == nil {
				write(t, path, strings.Join(changed, ""))
			}
			check := func(when string) {
				t.Helper()
				r, err := Verify(path, testKey(1))
				if !errors.Is(err, ErrTampered) || !strings.Contains(fmt.Sprint(r.Problems), c.says) {
					t.Fatalf("%s: %v, want %q in %q", when, err, c.says, r.Problems)
				}
			}
			check("before the next event")
			// The log goes on, and that does not cover it up.
			appendEvents(t, l, 2)
			if c.name == "the last line and the head removed" || c.name == "the last line removed and another's head" {
				c.says = "the head was missing"
			}
			check("after it")
			if _, err := os.Stat(path); err == nil && c.name != "the file removed" {
				kept, now := changed, strings.Join(lines(t, path), "")
				if c.name == "the last line cut short" {
					kept = kept[:4] // the rest is in no line
				}
				if !strings.HasPrefix(now, strings.Join(kept, "")) {
					t.Error("a whole line was removed")
				}
			}
		})
	}
}

// A fork of the log that the same key wrote does not pass for the log.
func TestAnotherEndOfTheSameLogShows(t *testing.T) {
	l, path := newLog(t, 3)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	headBefore, _ := os.ReadFile(path + headSuffix)
	appendEvents(t, l, 2)
	other := filepath.Join(t.TempDir(), "log")
	write(t, other, string(before))
	write(t, other+headSuffix, string(headBefore))
	appendEvents(t, openLog(t, other), 2)
	ours, theirs := lines(t, path), lines(t, other)
	write(t, path, strings.Join(ours[:3], "")+theirs[3]+ours[4])
	if _, err := Verify(path, testKey(1)); !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), "line 5: event 5 does not follow") {
		t.Fatal(err)
	}
	write(t, path, strings.Join(theirs, ""))
	if _, err := Verify(path, testKey(1)); !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), "not the one that the head names") {
		t.Fatal(err)
	}
}

func TestAnotherKeystoresLogIsRefused(t *testing.T) {
	_, path := newLog(t, 3)
	before := lines(t, path)
	other, err := Open(path, testKey(2), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Append(decrypt(0)); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), path) {
		t.Errorf("append: %v", err)
	}
	if _, err := Verify(path, testKey(2)); !errors.Is(err, ErrForeign) {
		t.Errorf("verify: %v", err)
	}
	if after := lines(t, path); strings.Join(after, "") != strings.Join(before, "") {
		t.Error("the log was changed")
	}
	verify(t, path, 3)
}

func TestThereIsNoLogYet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if _, err := Verify(path, testKey(1)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := Read(path, func([]byte) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestClosedLogsRefuse(t *testing.T) {
	l, path := newLog(t, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(decrypt(0)); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	verify(t, path, 1)
}

func TestEventsTooLongAreRefused(t *testing.T) {
	l, path := newLog(t, 1)
	e := decrypt(0)
	e.ErrorMessage = strings.Repeat("x", maxLine)
	if err := l.Append(e); err == nil {
		t.Error("accepted")
	}
	appendEvents(t, l, 1)
	verify(t, path, 2)
}

// A log that was put in the place of the open one is the one that counts.
func TestReplacedFilesAreOpenedAgain(t *testing.T) {
	l, path := newLog(t, 2)
	for _, p := range []string{path, path + headSuffix} {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		write(t, p+".copy", string(b))
		if err := os.Rename(p+".copy", p); err != nil {
			t.Fatal(err)
		}
	}
	appendEvents(t, l, 1)
	verify(t, path, 3)
}

func TestLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "victim"), "x")
	if err := os.Symlink("victim", filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "log"), testKey(1), Options{}); err == nil {
		t.Error("opened")
	}
}

func FuzzDecode(f *testing.F) {
	key := testKey(1)
	line, _, err := encodeLine(key, Event{Sequence: 1, PreviousMAC: mac{}.String()})
	if err != nil {
		f.Fatal(err)
	}
	h := head{tip: point{3, 700, mac{1}}, synced: point{1, 200, mac{2}}, boot: [16]byte{3}}
	if _, ok := decodeLine(key, line); !ok {
		f.Fatal("a seed is no line")
	}
	if got, ok := decodeHead(key, h.encode(key)); !ok || got != h {
		f.Fatalf("a seed is no head: %+v", got)
	}
	f.Add(line)
	f.Add(h.encode(key))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := decodeLine(key, b); ok && !bytes.Equal(b, line) {
			t.Fatal("a line that nobody wrote")
		}
		if got, ok := decodeHead(key, b); ok && !bytes.Equal(got.encode(key), b) {
			t.Fatal("a head that is written back otherwise")
		}
	})
}
