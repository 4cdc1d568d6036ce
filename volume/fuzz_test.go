package volume

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

func redoTestKey(t testing.TB) *crypto.Key {
	t.Helper()
	key, err := crypto.NewKey(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// armedSlot is the header of a slot as a killed mount leaves it.
func armedSlot(t testing.TB, session crypto.ID, c change) []byte {
	t.Helper()
	b := newBench(t, ModeVolume)
	v := b.open()
	s, err := v.redo.draw()
	if err != nil {
		t.Fatal(err)
	}
	defer v.redo.drop(s)
	s.key = redoTestKey(t)
	s.arm(session, &c)
	return bytes.Clone(s.mem[:slotHeader])
}

func slotSeeds(t testing.TB, session crypto.ID) [][]byte {
	return [][]byte{
		armedSlot(t, session, change{file: crypto.ID{1}, ino: 7, path: "a/b", segments: []segment{{144, 144, 4136}, {24, 24, 120}}}),
		armedSlot(t, session, change{ino: 7, flags: slotMode, mode: 0o444, path: "x"}),
		armedSlot(t, session, change{file: crypto.ID{2}, flags: slotTruncate | slotTimes, size: 144, mtime: unix.StatxTimestamp{Sec: 5, Nsec: 6}}),
	}
}

func TestAnArmedSlotIsReadAsItWasWritten(t *testing.T) {
	session := crypto.ID{9}
	want := change{
		file: crypto.ID{1}, ino: 7, path: "a/b", flags: slotTruncate | slotTimes, size: 9000, mode: 0o600,
		mtime: unix.StatxTimestamp{Sec: 5, Nsec: 6}, atime: unix.StatxTimestamp{Sec: 7, Nsec: 8},
		segments: []segment{{24, 24, 4256}, {8416, slotPadAt, 4136}},
	}
	h := armedSlot(t, session, want)
	got, ok := parseSlot(h, session, redoTestKey(t))
	if !ok {
		t.Fatal("refused")
	}
	if got.file != want.file || got.ino != want.ino || got.path != want.path || got.flags != want.flags ||
		got.size != want.size || got.mode != want.mode || got.mtime != want.mtime || got.atime != want.atime ||
		len(got.segments) != 2 || got.segments[0] != want.segments[0] || got.segments[1] != want.segments[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, ok := parseSlot(h, crypto.ID{8}, redoTestKey(t)); ok {
		t.Error("a slot of another session was accepted")
	}
	for i := range slotPathAt + 3 {
		h[i] ^= 1
		if _, ok := parseSlot(h, session, redoTestKey(t)); ok {
			t.Errorf("accepted with byte %d changed", i)
		}
		h[i] ^= 1
	}
}

// signed is a slot's header that begins with b, as the session would have armed
// it: without that a fuzzer never gets past the HMAC.
func signed(b []byte, session crypto.ID, key *crypto.Key) []byte {
	h := make([]byte, slotHeader)
	copy(h, b)
	n := min(binary.LittleEndian.Uint32(h[4:]), slotMACAt-slotPathAt)
	s := slot{mem: h, key: key}
	s.publish(session, string(h[slotPathAt:slotPathAt+n]))
	return h
}

func FuzzParseSlot(f *testing.F) {
	session, key := crypto.ID{9}, redoTestKey(f)
	parse := func(b []byte) (*change, bool) { return parseSlot(signed(b, session, key), session, key) }
	seeds := slotSeeds(f, session)
	tooMany := bytes.Clone(seeds[0])
	tooMany[52] = slotSegments + 1
	tooFar := bytes.Clone(seeds[0])
	binary.LittleEndian.PutUint32(tooFar[104+12:], slotPayload-143)
	seed(f, len(seeds), func(b []byte) bool { _, ok := parse(b); return ok }, append(seeds, tooMany, tooFar)...)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := parseSlot(append(bytes.Clone(b), make([]byte, slotHeader)...)[:slotHeader], crypto.ID{8}, key); ok {
			t.Fatalf("nobody armed %+v", c)
		}
		c, ok := parse(b)
		if !ok {
			return
		}
		for _, s := range c.segments {
			if s.from < 0 || s.len < 0 || s.from+s.len > slotPayload || s.cipherOff < crypto.RecordOffset {
				t.Fatalf("segment out of bounds: %+v", s)
			}
		}
		s := slot{mem: make([]byte, slotHeader+slotPayload), key: key}
		written := *c
		written.flags &^= slotLogged // its digest is the payload's
		s.arm(session, &written)
		again, ok := parseSlot(s.mem[:slotHeader], session, key)
		written.sum = [sha256.Size]byte{}
		if !ok || !reflect.DeepEqual(*again, written) {
			t.Fatalf("%+v is read as %+v", written, again)
		}
	})
}

func FuzzParseIntent(f *testing.F) {
	session, key := crypto.ID{9}, redoTestKey(f)
	parse := func(b []byte) (*intent, bool) { return parseIntent(signed(b, session, key), session, key) }
	made := armedIntentOf(f, session, intent{kind: intentMake, id: crypto.ID{3}, to: entryAt{dir: 8, name: "d"}})
	cut := bytes.Clone(made)
	cut[4]--
	cut[slotPathAt+1] = 'x' // of three NULs, one
	seed(f, 2, func(b []byte) bool { _, ok := parse(b); return ok }, armedIntentOf(f, session, anIntent()), made, cut)
	f.Fuzz(func(t *testing.T, b []byte) {
		in, ok := parse(b)
		if !ok {
			return
		}
		s := slot{mem: make([]byte, slotHeader), key: key}
		s.armIntent(session, in)
		again, ok := parseIntent(s.mem, session, key)
		if !ok || *again != *in {
			t.Fatalf("%+v is read as %+v", in, again)
		}
	})
}

// oneRead is a Backing whose directory holds what a fuzzer made up.
type oneRead struct {
	System
	left []byte
}

func (o *oneRead) Getdents(_ int, buf []byte) (int, error) {
	n := copy(buf, o.left)
	o.left = nil
	return n, nil
}

func FuzzDirectoryEntries(f *testing.F) {
	dir := f.TempDir()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		f.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := unix.Getdents(fd, buf)
	unix.Close(fd)
	if err != nil || n == 0 {
		f.Fatal("no seed: ", n, err)
	}
	f.Add(buf[:n])
	f.Add([]byte{})
	for _, name := range []string{"\x00", "../x\x00"} {
		entry := bytes.Clone(buf[:19])
		binary.NativeEndian.PutUint16(entry[16:], uint16(19+len(name)))
		f.Add(append(entry, name...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k := &oneRead{left: b}
		var rest []byte
		for range len(b) + 2 {
			e, err := nextDirent(k, -1, make([]byte, 4096), &rest)
			if err != nil {
				return
			}
			if e.name == "" || strings.ContainsAny(e.name, "/\x00") {
				t.Fatalf("no entry of a directory has the name %q", e.name)
			}
		}
		t.Fatal("entries without end")
	})
}
