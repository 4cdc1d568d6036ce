package formatreader

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"slices"
)

// fileSecret opens the sidecar of a file, with every key in it, and returns the
// secret that the file's keys come from.
func (v *volume) fileSecret(file id) ([]byte, error) {
	b, mode, err := v.archive.file(v.backing + "/.kmsfs/keys/" + file.String()[:2] + "/" + file.String())
	if err != nil {
		return nil, err
	}
	if mode != 0o600 {
		return nil, fmt.Errorf("mode %o", mode)
	}
	head := append(append([]byte("kmsfskey\x01"), v.id[:]...), file[:]...)
	if len(b) < len(head)+1+32 || !bytes.Equal(b[:len(head)], head) {
		return nil, fmt.Errorf("it begins with %x", b[:min(len(b), len(head))])
	}
	count, rest, commitment := int(b[len(head)]), b[len(head)+1:len(b)-32], b[len(b)-32:]
	var dek []byte
	var names []string
	for range count {
		var fields [3][]byte
		for i, width := range []int{1, 2, 2} {
			if len(rest) < width {
				return nil, fmt.Errorf("it is cut")
			}
			n := int(rest[0])
			if width == 2 {
				n = int(little.Uint16(rest))
			}
			if len(rest) < width+n {
				return nil, fmt.Errorf("it is cut")
			}
			fields[i], rest = rest[width:width+n], rest[width+n:]
		}
		provider := string(fields[0])
		names = append(names, provider+" "+string(fields[1]))
		var key []byte
		if provider == "volume" {
			if len(b) != 157 || len(fields[1]) != 0 || len(fields[2]) != 72 {
				return nil, fmt.Errorf("%d bytes, of a key of %d", len(b), len(fields[2]))
			}
			key, err = open(derive(v.key, "wrap"), fields[2], append(v.id[:], file[:]...))
		} else {
			key, err = v.unwrap(provider, string(fields[1]), fields[2], map[string]string{"kmsfs:volume": v.id.String(), "kmsfs:file": file.String()})
		}
		if err != nil {
			return nil, fmt.Errorf("key of %s: %w", provider, err)
		}
		if dek != nil && !bytes.Equal(dek, key) {
			return nil, fmt.Errorf("%s has another key", provider)
		}
		dek = key
	}
	if len(rest) > 0 || len(dek) != 32 {
		return nil, fmt.Errorf("a key of %d bytes, %d bytes over", len(dek), len(rest))
	}
	if err := v.checkNames(names); err != nil {
		return nil, err
	}
	secret, err := hkdf.Extract(sha256.New, dek, derive(v.key, "file salt"))
	if err == nil && !bytes.Equal(derive(secret, "commit", v.id, file), commitment) {
		err = fmt.Errorf("commitment")
	}
	return secret, err
}

// checkNames compares the keys that a sidecar names with those of volume.json: the
// active ones, or, while keys are being changed, others that still open.
func (v *volume) checkNames(names []string) error {
	active, known := []string{"volume "}, []string{"volume "}
	if v.config.KeyMode == "file" {
		active, known = nil, nil
		for _, k := range v.config.Keys {
			name := k.Provider + " " + k.KeyID
			if known = append(known, name); k.State == "active" {
				active = append(active, name)
			}
		}
	}
	if slices.Equal(names, active) {
		return nil
	}
	v.older++
	for _, n := range names {
		if !slices.Contains(known, n) {
			return fmt.Errorf("keys %q, of which volume.json does not list %s", names, n)
		}
	}
	if len(known) == len(active) {
		return fmt.Errorf("keys %q, want %q", names, active)
	}
	return nil
}
