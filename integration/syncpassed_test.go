package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmsfs/integration/emulator"
	"kmsfs/integration/faultproxy"
)

// What aws s3 sync passes over, being of the same size: bug 17 of docs/REGRESSIONS.md.
func TestWhatAWSSyncPassesOverIsOldAndWhole(t *testing.T) {
	t.Parallel()
	emulator.Stores(t, func(t *testing.T, store *emulator.Store) {
		t.Run("up", func(t *testing.T) { passedOverUp(t, store) })
		t.Run("down", func(t *testing.T) { passedOverDown(t, store) })
	})
}

// readOnce mounts a volume to read one file.
func (d *daemon) readOnce(name string) string {
	d.t.Helper()
	d.start()
	defer d.stop()
	b, err := os.ReadFile(filepath.Join(d.Dir, name))
	if err != nil {
		d.t.Error(err)
	}
	return string(b)
}

func passedOverUp(t *testing.T, store *emulator.Store) {
	older, newer := strings.Repeat("renamed over ", 400), strings.Repeat("was there... ", 400)
	aws, rclone := newSyncer(t, "aws", store, store.URL), newSyncer(t, "rclone", store, store.URL)
	d := newDaemon(t)
	d.start()
	for name, content := range map[string]string{"other": older, "file": newer} {
		if err := os.WriteFile(filepath.Join(d.Dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.stop()
	aws.run("up", d.Backing)
	rclone.run("up", d.Backing)

	d.start()
	if err := os.Rename(filepath.Join(d.Dir, "other"), filepath.Join(d.Dir, "file")); err != nil {
		t.Fatal(err)
	}
	d.stop()
	for _, c := range []struct {
		by        *syncer
		direction string
		want      string
		why       string
	}{
		{aws, "up", newer, "aws s3 sync no longer passes over it: docs/S3.md can say so"},
		{rclone, "up", older, "rclone passed over it"},
		{aws, "all", older, "aws s3 cp passed over it"},
	} {
		c.by.run(c.direction, d.Backing)
		copied := d.elsewhere(filepath.Join(t.TempDir(), "copy"))
		c.by.run("down", copied.Backing)
		if got := copied.readOnce("file"); got != c.want {
			t.Errorf("%.13q…, want %.13q…: %s", got, c.want, c.why)
		}
		if said, code := copied.fsck(); code != 0 {
			t.Errorf("%s: %s", c.by.tool, said)
		}
	}
}

func passedOverDown(t *testing.T, store *emulator.Store) {
	s := newSyncer(t, "aws", store, store.URL)
	d := newDaemon(t)
	d.start()
	if err := os.WriteFile(filepath.Join(d.Dir, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.stop()
	s.run("up", d.Backing)
	copied := d.elsewhere(filepath.Join(t.TempDir(), "copy"))
	s.run("down", copied.Backing)

	var made struct{ KeyMetadata struct{ Arn string } }
	if err := json.Unmarshal([]byte(d.run("kms", "create-key")), &made); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // times in S3 are to the second
	d.run("rewrap", "--from", "local:alias/kmsfs", "--to", "local:"+made.KeyMetadata.Arn, d.Backing)
	s.run("up", d.Backing)

	exact := s.scripts["down"]
	s.scripts["down"] = strings.Replace(exact, "--exact-timestamps", "", 1)
	if s.scripts["down"] == exact {
		t.Fatal("the recipe has no --exact-timestamps")
	}
	s.run("down", copied.Backing)
	if same := bytes.Equal(sidecar(t, copied), sidecar(t, d)); same {
		t.Error("aws s3 sync no longer passes over it: docs/S3.md can say so")
	}
	s.scripts["down"] = exact
	s.run("down", copied.Backing)
	if !bytes.Equal(sidecar(t, copied), sidecar(t, d)) {
		t.Error("the recipe passes over a sidecar")
	}
	if got := copied.readOnce("file"); got != "content" {
		t.Errorf("read %q", got)
	}
}

// sidecar is the only one of a volume.
func sidecar(t *testing.T, d *daemon) []byte {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(d.Backing, ".kmsfs/keys/*/*"))
	if len(found) != 1 {
		t.Fatalf("sidecars: %q", found)
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// asAWS refuses keys that AWS refuses; the stores of the tests take any.
func asAWS(t *testing.T, store *emulator.Store) string {
	next := faultproxy.To(t, store.URL)
	return faultproxy.NewS3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); len(key) > 1024 {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, "<Error><Code>KeyTooLongError</Code><Message>Your key is too long</Message></Error>")
			return
		}
		next.ServeHTTP(w, r)
	})).URL
}

func TestAPathThatIsTooLongForS3IsNamed(t *testing.T) {
	t.Parallel()
	store := emulator.MotoStore(t)
	for _, tool := range []string{"aws", "rclone"} {
		t.Run(tool, func(t *testing.T) {
			s := newSyncer(t, tool, store, asAWS(t, store))
			d := newDaemon(t)
			d.start()
			deep := filepath.Join(d.Dir, strings.Repeat("d/", 25))
			if err := os.MkdirAll(deep, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{filepath.Join(deep, "file"), filepath.Join(d.Dir, "other")} {
				if err := os.WriteFile(name, []byte("content"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			d.stop()
			if _, err := s.try("up", d.Backing); err == nil || !strings.Contains(err.Error(), "too long") {
				t.Errorf("not named: %v", err)
			}
			copied := d.elsewhere(filepath.Join(t.TempDir(), "copy"))
			s.run("down", copied.Backing)
			if got := copied.readOnce("other"); got != "content" {
				t.Errorf("read %q", got)
			}
		})
	}
}
