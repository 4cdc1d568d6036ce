package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kmsfs/integration/emulator"
	"kmsfs/integration/faultproxy"
)

// keyPool is the most data keys that a mount makes ahead.
const keyPool = 256

func TestAMountWhoseKeysComeFromMoto(t *testing.T) { mountWithAWSKeys(t, emulator.Moto(t)) }

func TestAMountWhoseKeysComeFromTheServedLocalKMS(t *testing.T) {
	server := emulator.Local(t)
	volume := mountWithAWSKeys(t, server)
	wantAuditLines(t, server, volume)
}

// mountWithAWSKeys makes a volume, writes and reads files, and counts the calls
// to the KMS that each step takes. It returns the volume's directory.
func mountWithAWSKeys(t *testing.T, server *emulator.Server) string {
	proxy := faultproxy.New(t, faultproxy.To(t, server.URL))
	key := server.CreateKey(t)
	alias := server.CreateAlias(t, "alias/kmsfs-test", key)
	d := newDaemonIn(t, server.Environment(proxy.URL), "--key", alias)
	wantCalls(t, "init", proxy, map[string]int{"DescribeKey": 1, "GenerateDataKey": 1})

	const files = 20
	name := func(i int) string { return filepath.Join(d.Dir, "dir", fmt.Sprint(i)) }
	d.start()
	if err := os.Mkdir(filepath.Dir(name(0)), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		if err := os.WriteFile(name(i), []byte(text(i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := quiet(proxy)
	d.stop()
	if made := got["GenerateDataKey"]; made < files || made > files+keyPool || got["Decrypt"] != 1 || len(got) != 2 {
		t.Errorf("create %d files: %v, want 1 Decrypt, and a GenerateDataKey for each file and each of a pool", files, got)
	}

	// Without a pool, so that all calls are for what is asked.
	d.start("--ro")
	wantCalls(t, "mount", proxy, map[string]int{"Decrypt": 1})
	entries, err := os.ReadDir(filepath.Dir(name(0)))
	if err != nil || len(entries) != files {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for i := range files {
		if st, err := os.Stat(name(i)); err != nil || st.Size() != int64(len(text(i))) {
			t.Fatal(err)
		}
	}
	wantCalls(t, "list and stat", proxy, map[string]int{})
	for range 2 {
		for i := range files {
			if b, err := os.ReadFile(name(i)); err != nil || string(b) != text(i) {
				t.Fatalf("file %d: %d bytes, %v", i, len(b), err)
			}
		}
	}
	wantCalls(t, "read all files, twice", proxy, map[string]int{"Decrypt": files})
	d.stop()
	wantCalls(t, "unmount", proxy, map[string]int{})
	return d.Backing
}

// quiet waits until no calls come any more, and returns those until then. A call
// that is under way when a daemon ends may be counted for the next one.
func quiet(proxy *faultproxy.Proxy) map[string]int {
	all := make(map[string]int)
	for some := proxy.Counts(); len(some) > 0; some = proxy.Counts() {
		for operation, n := range some {
			all[operation] += n
		}
		time.Sleep(500 * time.Millisecond)
	}
	return all
}

// wantCalls checks the calls that came since the last check.
func wantCalls(t *testing.T, what string, proxy *faultproxy.Proxy, want map[string]int) {
	t.Helper()
	if got := proxy.Counts(); !maps.Equal(got, want) {
		t.Errorf("%s: calls %v, want %v", what, got, want)
	}
}

// wantAuditLines looks for the events of a create and of a read in the log of the KMS.
func wantAuditLines(t *testing.T, server *emulator.Server, backing string) {
	t.Helper()
	sidecars, err := filepath.Glob(filepath.Join(backing, ".kmsfs", "keys", "*", "*"))
	if err != nil || len(sidecars) == 0 {
		t.Fatalf("no sidecars: %v", err)
	}
	log, err := os.ReadFile(server.Keystore.AuditPath())
	if err != nil {
		t.Fatal(err)
	}
	logged := make(map[string]map[string]bool) // operations by file ID
	for line := range bytes.Lines(log) {
		var e struct {
			EventName         string
			UserIdentity      struct{ ARN, AccessKeyID string }
			RequestParameters struct{ EncryptionContext map[string]string }
			ErrorCode         string
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		file := e.RequestParameters.EncryptionContext["kmsfs:file"]
		if file == "" || e.ErrorCode != "" || e.UserIdentity.AccessKeyID != server.AccessKeyID {
			continue
		}
		if logged[file] == nil {
			logged[file] = make(map[string]bool)
		}
		logged[file][e.EventName] = true
	}
	for _, sidecar := range sidecars {
		if file := filepath.Base(sidecar); !logged[file]["GenerateDataKey"] || !logged[file]["Decrypt"] {
			t.Errorf("file %s: the log has %v", file, logged[file])
		}
	}
}
