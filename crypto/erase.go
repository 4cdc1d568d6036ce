package crypto

import "reflect"

// erase overwrites what c points to with zeros: an expanded AES key, or a GCM with the one in it. The standard library
// offers no way to do so, but both are plain structs that hold their keys in arrays, which reflection may set as a
// whole. The caller sees to it that nobody uses c, then or later.
func erase(c any) {
	if v := reflect.ValueOf(c); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().SetZero()
	}
}
