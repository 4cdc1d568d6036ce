package crypto

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"reflect"
	"testing"
	"unsafe"
)

func TestMACAndHKDFAreThoseOfTheStandardLibrary(t *testing.T) {
	key, salt := testKey(1), testKey(2)
	for _, size := range []int{0, 1, 32, 55, 56, 63, 64, 65, 5000} {
		message := randomBytes(byte(size), size)
		want := hmac.New(sha256.New, key.Bytes())
		want.Write(message)
		if got := key.MAC(message[:size/2], message[size/2:]); !bytes.Equal(got[:], want.Sum(nil)) {
			t.Errorf("HMAC of %d bytes differs", size)
		}
		out := make([]byte, 96)
		hkdfExpand(out, key, message)
		if expanded := must(hkdf.Expand(sha256.New, key.Bytes(), string(message), 96)); !bytes.Equal(out, expanded) {
			t.Errorf("HKDF-Expand with %d bytes of info differs", size)
		}
	}
	if prk := must(hkdf.Extract(sha256.New, key.Bytes(), salt.Bytes())); !bytes.Equal(hkdfExtract(salt, key).Bytes(), prk) {
		t.Error("HKDF-Extract differs")
	}
}

func TestABlankedHashKeepsNothingOfItsMessage(t *testing.T) {
	h := sha256.New()
	h.Write(bytes.Repeat([]byte{0xa5}, 63))
	v := reflect.ValueOf(h).Elem()
	mem := unsafe.Slice((*byte)(v.Addr().UnsafePointer()), v.Type().Size())
	if bytes.Count(mem, []byte{0xa5}) < 63 {
		t.Fatal("it keeps the message elsewhere")
	}
	blank(h)
	if bytes.Contains(mem, []byte{0xa5, 0xa5}) {
		t.Error("some of the message is left")
	}
}
