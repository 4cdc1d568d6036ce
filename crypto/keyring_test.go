package crypto

import (
	"bytes"
	"testing"
)

func newTestRing() *keyring {
	r := new(keyring)
	r.init(testKey(1))
	return r
}

func TestKeyringWipesTheKeyItWasGiven(t *testing.T) {
	k := testKey(1)
	new(keyring).init(k)
	if !bytes.Equal(k.Bytes(), make([]byte, KeySize)) {
		t.Error("the key is still there")
	}
}

func TestKeyringKeepsTheLastEightKeys(t *testing.T) {
	r := newTestRing()
	prefix := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, prefixSize) }
	first := must(r.find(prefix(0)))
	for i := 1; i < ringSlots; i++ {
		must(r.find(prefix(i)))
	}
	if must(r.find(prefix(0))) != first {
		t.Error("a key was dropped too early")
	}
	cachedPrefix := prefix(0)
	wantNoAllocs(t, "find of a cached key", func() { must(r.find(cachedPrefix)) })
	must(r.find(prefix(ringSlots)))
	cached := func(i int) bool {
		for s := range r.slots {
			if d := r.slots[s].Load(); d != nil && d.prefix == [prefixSize]byte(prefix(i)) {
				return true
			}
		}
		return false
	}
	for i := range ringSlots + 1 {
		if want := i > 0; cached(i) != want {
			t.Errorf("key %d cached: %v, want %v", i, cached(i), want)
		}
	}
	again := must(r.find(prefix(0)))
	if again == first {
		t.Error("the oldest key was not replaced")
	}
	nonce := make([]byte, 12)
	if !bytes.Equal(first.Seal(nil, nonce, nil, nil), again.Seal(nil, nonce, nil, nil)) {
		t.Error("the same prefix derived another key")
	}
}

func TestWipedKeyringHoldsNoKeys(t *testing.T) {
	check := func(r *keyring) {
		t.Helper()
		if r.xaes.Load() != nil {
			t.Error("the deriving key is left")
		}
		for i := range r.slots {
			if r.slots[i].Load() != nil {
				t.Error("a derived key is left")
			}
		}
		_, err := r.find(make([]byte, prefixSize))
		wantError(t, err, ErrWiped)
	}
	r := newTestRing()
	for i := range 2 * ringSlots {
		must(r.find(bytes.Repeat([]byte{byte(i)}, prefixSize)))
	}
	r.wipe()
	check(r)
	r.wipe()
	check(r)
}

func TestSessionDrawsAPrefixPerFourBillionMessages(t *testing.T) {
	random := newStream(1)
	var s session
	if err := s.start(newTestRing(), random); err != nil {
		t.Fatal(err)
	}
	take := func(n uint64) [prefixSize]byte {
		p, _, err := s.take(n)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := take(1 << 31)
	if take(1<<31-1) != first || take(1) != first || random.reads != 1 {
		t.Error("the prefix changed before 2^32 messages")
	}
	second := take(1)
	if second == first || random.reads != 2 {
		t.Error("message 2^32+1 got the old prefix")
	}
	// A call that does not fit in what is left does not straddle two prefixes.
	take(1<<32 - 2)
	third := take(2)
	if third == second || random.reads != 3 {
		t.Error("two messages got one prefix with room for one")
	}
	_, _, err := s.take(1<<32 + 1)
	wantError(t, err, ErrTooLarge)
	if take(1) != third {
		t.Error("a refused call changed the prefix")
	}
}

func TestSessionSurvivesARandomSourceThatFails(t *testing.T) {
	var s session
	wantError(t, s.start(newTestRing(), dry{}), errNoRandom)
	if err := s.start(newTestRing(), newStream(1)); err != nil {
		t.Fatal(err)
	}
	old, _, _ := s.take(1 << 31)
	_, _, _ = s.take(1<<31 - 1)
	s.random = dry{}
	_, _, err := s.take(2)
	wantError(t, err, errNoRandom)
	if p, _, err := s.take(1); err != nil || p != old {
		t.Errorf("the message left over: %v", err)
	}
	s.random = newStream(2)
	if p, _, err := s.take(2); err != nil || p == old {
		t.Errorf("after recovery: %v", err)
	}
}
