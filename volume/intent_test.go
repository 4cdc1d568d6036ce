package volume

import (
	"bytes"
	"strings"
	"testing"

	"kmsfs/crypto"
)

// armedIntentOf is the header of an intent's slot as a killed mount leaves it.
func armedIntentOf(t testing.TB, session crypto.ID, in intent) []byte {
	t.Helper()
	s := slot{mem: make([]byte, slotHeader), key: redoTestKey(t)}
	s.armIntent(session, &in)
	return bytes.Clone(s.mem)
}

func anIntent() intent {
	return intent{
		kind: intentRename, flags: intentWhiteout, id: crypto.ID{1}, moved: 5, displaced: 6,
		from: entryAt{dir: 7, path: "a/b", name: "c"}, to: entryAt{dir: 8, path: "", name: "d"},
	}
}

func TestAnIntentIsReadAsItWasWritten(t *testing.T) {
	session, want := crypto.ID{9}, anIntent()
	h := armedIntentOf(t, session, want)
	if got, ok := parseIntent(h, session, redoTestKey(t)); !ok || *got != want {
		t.Fatalf("got %+v, %v, want %+v", got, ok, want)
	}
	if _, ok := parseIntent(h, crypto.ID{8}, redoTestKey(t)); ok {
		t.Error("an intent of another session was accepted")
	}
	for i := range slotPathAt + len("a/b.c..d") {
		h[i] ^= 1
		if _, ok := parseIntent(h, session, redoTestKey(t)); ok {
			t.Errorf("accepted with byte %d changed", i)
		}
		h[i] ^= 1
	}
	// Paths that do not fit are left out.
	want.from.path = strings.Repeat("p", slotHeader)
	got, ok := parseIntent(armedIntentOf(t, session, want), session, redoTestKey(t))
	want.from.path = ""
	if !ok || *got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
}

func TestAnIntentFindsItsDirectoryWhereverItIsNow(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	s := &stage{t: t, v: v}
	s.dir("a")
	s.dir("a/" + longOne)
	s.dir("b")
	e := entryIn(s.node("a/"+longOne), "x")
	s.check(renaming("a", "b/c", 0)(s))
	forgetAll(v, nil)
	n, err := v.findDir(e)
	if err != nil || n != s.node("b/c/"+longOne) {
		t.Errorf("found %v, %v", n, err)
	}
	s.check(in("b/c/"+longOne, (*Node).Rmdir)(s))
	if _, err := v.findDir(e); err == nil {
		t.Error("found what is gone")
	}
}
