package volume

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestInfoSaysWhatTheConfigurationSaysWithoutAKey(t *testing.T) {
	b := unmade(t)
	made := b.init()
	calls := totalCalls(b.kms)
	info := must(ReadInfo(b.dir))(t)
	if totalCalls(b.kms) != calls {
		t.Error("the KMS was called")
	}
	if info.Authenticated || info.Fingerprint != "" {
		t.Errorf("vouches for what nothing has authenticated: %+v", info)
	}
	info = must(info.WithHostState(b.state))(t)
	info.Authenticated = true
	if got, want := string(must(json.Marshal(info))(t)), string(must(json.Marshal(made))(t)); got != want {
		t.Errorf("read %s\nmade %s", got, want)
	}
}

func TestInfoAsJSONHasStableNames(t *testing.T) {
	b := unmade(t)
	b.init()
	v := b.open(func(o *Options) { o.Mountpoint = "/mnt/x" })
	info := must(ReadInfo(b.dir))(t)
	var got map[string]any
	if err := json.Unmarshal(must(json.Marshal(info))(t), &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"path", "volume_id", "format_version", "created", "generation", "key_mode", "features", "keys", "authenticated", "sessions"} {
		if _, ok := got[name]; !ok {
			t.Errorf("no %q", name)
		}
		delete(got, name)
	}
	if len(got) != 0 {
		t.Errorf("also there: %v", got)
	}
	if len(info.Sessions) != 1 || info.Sessions[0].Mountpoint != "/mnt/x" || info.Sessions[0].PID != os.Getpid() || info.Sessions[0].Generation != 1 {
		t.Errorf("sessions %+v", info.Sessions)
	}
	b.close(v)
	empty := string(must(json.Marshal(must(ReadInfo(b.dir))(t)))(t))
	if !strings.Contains(empty, `"sessions":[]`) || !strings.Contains(empty, `"features":[]`) {
		t.Errorf("empty lists are no lists: %s", empty)
	}
}

func TestInfoOfAVolumeThatTheHostDoesNotKnowHasNoFingerprint(t *testing.T) {
	b := unmade(t)
	b.init()
	info, err := must(ReadInfo(b.dir))(t).WithHostState(t.TempDir())
	if err != nil || info.Fingerprint != "" {
		t.Errorf("%q, %v", info.Fingerprint, err)
	}
}
