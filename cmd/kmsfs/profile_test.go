package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptProfile is the script command profile FILE TYPES [FUNCTION]: the file is a
// profile in pprof's form whose samples have the types, separated by commas, and
// at least one of which there is; the text FUNCTION is in its table of names.
func scriptProfile(ts *testscript.TestScript, _ bool, args []string) {
	p, err := readProfile([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	if got := strings.Join(p.types, ","); got != args[1] {
		ts.Fatalf("samples are of %s, want %s", got, args[1])
	}
	if len(args) > 2 && (p.samples == 0 || !slices.ContainsFunc(p.names, func(s string) bool { return strings.Contains(s, args[2]) })) {
		ts.Fatalf("no %s in the %d names of a profile with %d samples", args[2], len(p.names), p.samples)
	}
}

// pprofProfile is what the tests want to know of a profile.
type pprofProfile struct {
	types   []string // of the values of each sample
	samples int
	names   []string // all strings in it
}

// readProfile reads pprof's profile.proto, gzipped: field 1 of a Profile is a
// ValueType, whose field 1 is its type's place in the table; 2 a Sample; 6 a
// string of the table.
func readProfile(b []byte) (*pprofProfile, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("read profile of %d bytes: %w", len(b), err)
	}
	if b, err = io.ReadAll(z); err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	p := new(pprofProfile)
	var types []uint64
	err = protoFields(b, func(field int, _ uint64, value []byte) error {
		switch field {
		case 1:
			return protoFields(value, func(field int, n uint64, _ []byte) error {
				if field == 1 {
					types = append(types, n)
				}
				return nil
			})
		case 2:
			p.samples++
		case 6:
			p.names = append(p.names, string(value))
		}
		return nil
	})
	for _, n := range types {
		if err == nil && n >= uint64(len(p.names)) {
			err = fmt.Errorf("read profile: no string %d of %d", n, len(p.names))
		}
		if err == nil {
			p.types = append(p.types, p.names[n])
		}
	}
	return p, err
}

// protoFields calls f for each field of a message of protocol buffers that has
// only numbers and bytes.
func protoFields(b []byte, f func(field int, number uint64, value []byte) error) error {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return io.ErrUnexpectedEOF
		}
		number, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return io.ErrUnexpectedEOF
		}
		b = b[n+m:]
		var value []byte
		switch key & 7 {
		case 0:
		case 2:
			if number > uint64(len(b)) {
				return io.ErrUnexpectedEOF
			}
			value, b = b[:number], b[number:]
		default:
			return fmt.Errorf("field of wire type %d", key&7)
		}
		if err := f(int(key>>3), number, value); err != nil {
			return err
		}
	}
	return nil
}
