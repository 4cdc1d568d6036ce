package volume

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// seed adds inputs of which the first valid ones are taken by accepts, and makes
// sure of that: a target whose seeds are all refused finds little.
func seed(f *testing.F, valid int, accepts func([]byte) bool, seeds ...[]byte) {
	f.Helper()
	if valid == 0 || len(seeds) < valid {
		f.Fatal("no seeds")
	}
	for i, s := range seeds {
		if accepts(s) != (i < valid) {
			f.Fatalf("seed %d: accepted %v", i, i >= valid)
		}
		f.Add(s)
	}
}

func FuzzParseHostState(f *testing.F) {
	h := HostState{ID: crypto.ID{1}, Path: "/b", Fingerprint: strings.Repeat("0a", 32), KeyIDs: []string{"k"}, Generation: 3, Boot: "b", Session: crypto.ID{2}, Open: true}
	good := must(json.MarshalIndent(h, "", "  "))(f)
	seed(f, 2, func(b []byte) bool { _, ok := parseHostState(b); return ok },
		good, append(bytes.Clone(good), '\n'), good[:len(good)/2], []byte("{}"), append(bytes.Clone(good), good...), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseHostState(b)
		if !ok {
			return
		}
		written, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		again, ok := parseHostState(written)
		if !ok || again.ID != h.ID || again.Fingerprint != h.Fingerprint || again.Generation != h.Generation || again.Open != h.Open || again.Unsettled != h.Unsettled {
			t.Fatalf("%+v is read as %+v", h, again)
		}
	})
}

func FuzzParseSession(f *testing.F) {
	id := crypto.ID{9}
	good := must(json.Marshal(sessionInfo{ID: id, Host: "host", PID: 7, Mountpoint: "/m", Since: time.Unix(9, 0).UTC(), Generation: 4}))(f)
	seed(f, 1, func(b []byte) bool { return parseSession(b, id).PID != 0 },
		good, good[:20], []byte(`{"host":"\u001b[2Jx","pid":"y"}`), []byte("null"), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		info := parseSession(b, id)
		if info.ID != id {
			t.Fatalf("a session by the name of %s", info.ID)
		}
		if message := info.inUse().Error(); strings.ContainsFunc(message, unicode.IsControl) {
			t.Fatalf("control characters in %q", message)
		}
	})
}

func FuzzReencryptJournal(f *testing.F) {
	line := "+" + crypto.ID{3}.String() + "\n"
	good := []byte("began 2026-03-01T12:30:00Z\n" + line + "=" + crypto.ID{3}.String() + "\n")
	dir, volume := f.TempDir(), crypto.ID{1}
	path := filepath.Join(dir, volume.String()+".reencrypt")
	read := func(t testing.TB, b []byte) *reencryptJournal {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := openReencryptJournal(dir, volume, false)
		if err != nil {
			t.Fatal(err)
		}
		j.close()
		return j
	}
	seed(f, 2, func(b []byte) bool { return len(read(f, b).ids) > 0 },
		good, []byte(line), good[:40], []byte("=\n+\nbegan \n"), []byte("?"+line), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		j := read(t, b)
		for id, sign := range j.ids {
			if sign != journalBegun && sign != journalDone || !bytes.Contains(b, []byte(id.String())) {
				t.Fatalf("an entry %c%s that is not there", sign, id)
			}
		}
		// What was cut short is not joined by what comes after it.
		again := must(openReencryptJournal(dir, volume, false))(t)
		if err := again.note(journalDone, crypto.ID{0xfe}); err != nil {
			t.Fatal(err)
		}
		again.close()
		last := must(openReencryptJournal(dir, volume, false))(t)
		last.close()
		if last.ids[crypto.ID{0xfe}] != journalDone || last.resumed == nil {
			t.Fatalf("what was noted last is lost: %q", b)
		}
	})
}

// madeUp is a store whose files and lists of attributes are a fuzzer's.
type madeUp struct {
	System
	content []byte
}

func (k *madeUp) Pread(_ int, b []byte, off int64) (int, error) {
	if off >= int64(len(k.content)) {
		return 0, nil
	}
	return copy(b, k.content[off:]), nil
}

func (k *madeUp) Flistxattr(_ int, b []byte) (int, error) {
	if len(k.content) > len(b) {
		return 0, unix.ERANGE
	}
	return copy(b, k.content), nil
}

func FuzzLongName(f *testing.F) {
	vk := volumeKeyOf(1)
	names := crypto.NewNameCipher(vk)
	dir := crypto.ID{4}
	full := must(names.Encrypt(dir, strings.Repeat("n", 200)))(f)
	k := &madeUp{}
	v := &Volume{backing: k, volumeKeys: &volumeKeys{names: names}}
	here := f.TempDir()
	fd := openDir(f, here)
	short := crypto.ShortName(full)
	if err := os.WriteFile(filepath.Join(here, short+crypto.LongSuffix), nil, 0o600); err != nil {
		f.Fatal(err)
	}
	decode := func(b []byte) (string, error) {
		k.content = b
		return v.decode(dir, fd, short)
	}
	seed(f, 1, func(b []byte) bool { _, err := decode(b); return err == nil },
		[]byte(full), []byte(full[1:]), append([]byte(full), 'A'), bytes.Repeat([]byte("A"), 600), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if name, err := decode(b); err == nil && (string(b) != full || name != strings.Repeat("n", 200)) {
			t.Fatalf("%q is the name of %q", name, b)
		}
	})
}

func FuzzStoredXattrs(f *testing.F) {
	k := &madeUp{}
	v := &Volume{backing: k}
	list := func(b []byte) ([]string, error) {
		k.content = b
		return v.storedXattrs(-1)
	}
	seed(f, 2, func(b []byte) bool { names, err := list(b); return err == nil && len(names) > 0 },
		[]byte("user.kmsfs.x\x00security.selinux\x00"), bytes.Repeat([]byte("user.kmsfs.long\x00"), 100), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		names, err := list(b)
		if len(b) > maxXattrValue {
			if err != unix.ERANGE {
				t.Fatalf("%d bytes: %v", len(b), err)
			}
			return
		}
		if err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "\x00") }) {
			t.Fatalf("%q, %v", names, err)
		}
	})
}
