package formatreader

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

func TestTheDocumentIsEnoughToReadAVolumeWhoseKeysAreBeingChanged(t *testing.T) {
	eachArchive(t, "rotated", func(t *testing.T, a *archive, m *manifest) {
		v, err := read(a, m.Passphrase)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range v.complaints {
			t.Error(c)
		}
		mustAgree(t, v.entries, m.Entries)
		mustBeRenamed(t, v, nil)
		states := make(map[string]string)
		for _, k := range v.config.Keys {
			states[k.KeyID] = k.State
		}
		if c := v.config; c.Generation != m.Rotated.Generation || c.Generation < 4 || len(states) != 3 ||
			states[m.Rotated.Retiring] != "retiring" || states[m.Rotated.Active] != "active" || states[m.Rotated.GivenUp] != "" {
			t.Errorf("generation %d, keys %v", c.Generation, states)
		}
		if names := len(v.files); (v.older > 0) != (m.KeyMode == "file") || v.older >= names {
			t.Errorf("%d of %d sidecars do not name the active keys", v.older, names)
		}
		if len(v.keystore.materials) != 4 {
			t.Errorf("the keystore has %d materials of three keys, one of which has two", len(v.keystore.materials))
		}
		// The version before it is of the generation before it.
		b, _, err := a.file("backing/.kmsfs/volume.json.bak")
		before := &volume{archive: a, keystore: v.keystore, identity: v.identity}
		if err == nil {
			err = before.readConfig(b)
		}
		if err != nil || before.config.Generation != v.config.Generation-1 || before.id != v.id {
			t.Errorf("volume.json.bak: generation %d, %v", before.config.Generation, err)
		}
		temporaries := 0
		for name := range a.inodes {
			if strings.HasPrefix(name, "backing/.kmsfs/keys/") && strings.HasSuffix(name, ".tmp") {
				temporaries++
			}
		}
		if (temporaries > 0) != (m.KeyMode == "file") {
			t.Errorf("%d sidecars on their way", temporaries)
		}
	})
}

func TestLostAndFoundIsWhatTheDocumentSays(t *testing.T) {
	eachArchive(t, "rotated", func(t *testing.T, a *archive, m *manifest) {
		const lost = "backing/.kmsfs/lost+found"
		files := 0
		for _, place := range a.children[lost] {
			origin, mode, err := a.file(lost + "/" + place + "/origin")
			if err != nil || len(place) != 32 || mode != 0o600 {
				t.Fatalf("%s: mode %o, %v", place, mode, err)
			}
			was := "backing/" + strings.TrimSuffix(string(origin), "\n")
			for _, name := range a.children[lost+"/"+place] {
				files++
				b, _, err := a.file(lost + "/" + place + "/" + name)
				if sum := fmt.Sprintf("%x", sha256.Sum256(b)); err != nil || sum != m.Rotated.LostFound[place+"/"+name] {
					t.Errorf("%s/%s has %s, %v", place, name, sum, err)
				}
				switch {
				case name == "origin":
				case name == "tail.1": // block 1 of a file that is still there
					if n := a.inodes[was]; n == nil || len(n.content) != 4280 {
						t.Errorf("%s is of %s", name, was)
					}
				case strings.HasSuffix(name, ".name"):
				default:
					if !strings.HasSuffix(was, "/"+name) || a.inodes[was] != nil {
						t.Errorf("%s was at %s", name, was)
					}
				}
			}
		}
		if files != len(m.Rotated.LostFound) || files != 5 {
			t.Errorf("%d files, want %d", files, len(m.Rotated.LostFound))
		}
	})
}
