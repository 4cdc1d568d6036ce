package formatreader

import (
	"bytes"
	"crypto/subtle"
	"fmt"
)

// record is what the record of a data file says.
type record struct {
	flags      byte
	generation uint64
	size       uint64
	stored     uint64
	root       [16]byte
	a, b       [16]byte
}

const (
	rootAbsent = 1
	wasLinked  = 2
)

// readHeader opens the header of a data file.
func (v *volume) readHeader(b []byte) (file id, r record, err error) {
	if len(b) < 144 || string(b[:8]) != "kmsfs\x00\x01\x00" {
		return file, r, fmt.Errorf("a header of %x", b[:min(len(b), 8)])
	}
	file = id(b[8:24])
	plain, err := open(derive(v.key, "record", file), b[24:144], append(bytes.Clone(b[:24]), v.id[:]...))
	if err != nil || len(plain) != 80 {
		return file, r, fmt.Errorf("record of %d bytes: %w", len(plain), err)
	}
	r = record{
		flags: plain[0], generation: little.Uint64(plain[8:]), size: little.Uint64(plain[16:]), stored: little.Uint64(plain[24:]),
		root: [16]byte(plain[32:]), a: [16]byte(plain[48:]), b: [16]byte(plain[64:]),
	}
	if r.flags&^(rootAbsent|wasLinked) != 0 || !isZero(plain[1:8]) || r.generation == 0 || r.flags&rootAbsent != 0 && !isZero(r.root[:]) {
		return file, r, fmt.Errorf("record %x", plain)
	}
	return file, r, nil
}

// readContent opens all blocks of a data file and checks them against its record.
func (v *volume) readContent(b []byte, file id, r record) ([]byte, error) {
	secret, err := v.fileSecret(file)
	if err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	key, rootKey := derive(secret, "content"), cipherOf(derive(secret, "root"))
	blocks := (r.size + 4095) / 4096
	if want := 144 + r.size + 40*blocks; uint64(len(b)) != want {
		return nil, fmt.Errorf("backing file of %d bytes, want %d for %d", len(b), want, r.size)
	}
	var content []byte
	var root [16]byte
	var stored uint64
	for i := range blocks {
		at := 144 + 4136*i
		sealed := b[at:min(at+4136, uint64(len(b)))]
		if isZero(sealed) {
			content = append(content, make([]byte, len(sealed)-40)...)
			continue
		}
		plain, err := open(key, sealed, little.AppendUint64(bytes.Clone(file[:]), i))
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", i, err)
		}
		content = append(content, plain...)
		stored++
		index := make([]byte, 16)
		little.PutUint64(index, i)
		rootKey.Encrypt(index, index)
		subtle.XORBytes(index, index, sealed[len(sealed)-16:])
		rootKey.Encrypt(index, index)
		subtle.XORBytes(root[:], root[:], index)
	}
	if stored != r.stored {
		return nil, fmt.Errorf("%d blocks stored, the record says %d", stored, r.stored)
	}
	if r.flags&rootAbsent == 0 && root != r.root {
		return nil, fmt.Errorf("root %x, the record says %x", root, r.root)
	}
	return content, nil
}
