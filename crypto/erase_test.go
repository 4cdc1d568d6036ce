package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"reflect"
	"testing"
	"unsafe"
)

// memoryOf is what an erased thing occupies. A struct with pointers in it would keep keys elsewhere.
func memoryOf(t *testing.T, c any) []byte {
	t.Helper()
	v := reflect.ValueOf(c).Elem()
	if pointers(v.Type()) {
		t.Fatalf("%s has pointers in it", v.Type())
	}
	return unsafe.Slice((*byte)(v.Addr().UnsafePointer()), v.Type().Size())
}

func pointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if pointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	case reflect.Array:
		return pointers(t.Elem())
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return false
	}
	return true
}

func TestErasedCiphersHoldNothingOfTheirKey(t *testing.T) {
	key := testKey(7)
	block, err := aes.NewCipher(key.material())
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	// An AES key schedule begins with the key, its words in the machine's order.
	for name, c := range map[string]any{"AES": block, "GCM": aead} {
		m := memoryOf(t, c)
		if bytes.Count(m, []byte{0}) == len(m) {
			t.Errorf("%s: there is nothing to erase", name)
		}
		erase(c)
		if bytes.Count(m, []byte{0}) != len(m) {
			t.Errorf("%s: something is left", name)
		}
	}
	erase(nil)
	erase((*BlockCipher)(nil))
}

func TestAWipedCipherIsErased(t *testing.T) {
	c, s := testBlocks(1)
	record := make([]byte, CipherLen(10))
	if err := s.Seal(record, make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	var held [][]byte
	held = append(held, memoryOf(t, c.ring.xaes.Load().block))
	for i := range c.ring.slots {
		if d := c.ring.slots[i].Load(); d != nil {
			held = append(held, memoryOf(t, d.aead))
		}
	}
	r := NewRooter(testKey(3))
	held = append(held, memoryOf(t, r.block))
	n := testNames()
	held = append(held, memoryOf(t, n.siv.mac), memoryOf(t, n.siv.ctr), n.siv.whole[:], n.siv.partial[:], n.siv.zero[:])
	if len(held) != 8 {
		t.Fatalf("%d keys are held, want 8", len(held))
	}
	c.Wipe()
	r.Wipe()
	n.Wipe()
	for i, m := range held {
		if bytes.Count(m, []byte{0}) != len(m) {
			t.Errorf("of key %d something is left", i)
		}
	}
}
