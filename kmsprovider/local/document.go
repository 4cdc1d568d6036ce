package local

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

const (
	documentFormat  = "kmsfs keystore"
	documentVersion = 1
	maxDocument     = 64 << 20 // bytes; some 60,000 keys
)

// document is the keystore file: one JSON object, in exactly the bytes that
// encode writes. Any other spelling of the same object is refused, so what the
// MAC covers and what is understood cannot differ. Bytes are base64.
type document struct {
	Format  string        `json:"format"`  // documentFormat
	Version int           `json:"version"` // documentVersion
	ID      string        `json:"id"`      // of this keystore: 32 hex digits
	Account string        `json:"account"` // in its ARNs: 12 digits
	Created time.Time     `json:"created"`
	Writes  uint64        `json:"writes"` // how often it was replaced
	KDF     kdfRecord     `json:"kdf"`
	KEK     []byte        `json:"sealed_kek"` // under the passphrase's key
	Keys    []keyRecord   `json:"keys"`       // in the order of creation
	Aliases []aliasRecord `json:"aliases"`

	Principals []principalRecord `json:"principals,omitempty"`

	MAC      []byte `json:"mac"`      // HMAC-SHA-256 of the encoding without mac and checksum
	Checksum []byte `json:"checksum"` // SHA-256 of the encoding without checksum
}

type kdfRecord struct {
	Name      string `json:"name"` // kdfName
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory_kib"`
	Threads   uint8  `json:"threads"`
	Salt      []byte `json:"salt"`
}

func (r kdfRecord) params() KDFParams {
	return KDFParams{Time: r.Time, MemoryKiB: r.MemoryKiB, Threads: r.Threads}
}

// clone returns a copy that shares nothing that is ever changed in place.
func (d *document) clone() *document {
	c := *d
	c.Keys = slices.Clone(d.Keys)
	for i := range c.Keys {
		r := &c.Keys[i]
		r.Materials, r.Tags, r.Grants = slices.Clone(r.Materials), slices.Clone(r.Tags), slices.Clone(r.Grants)
	}
	c.Aliases = slices.Clone(d.Aliases)
	c.Principals = slices.Clone(d.Principals)
	return &c
}

// encode returns the file's bytes.
func (d *document) encode() ([]byte, error) {
	c := *d
	c.Keys = append([]keyRecord{}, d.Keys...) // null and [] are one thing: []
	c.Aliases = append([]aliasRecord{}, d.Aliases...)
	b, err := json.MarshalIndent(&c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode keystore: %w", err)
	}
	return append(b, '\n'), nil
}

// macBytes is what the MAC covers: all but the MAC itself and the checksum.
func (d *document) macBytes() ([]byte, error) {
	c := *d
	c.MAC, c.Checksum = nil, nil
	return c.encode()
}

// checksumBytes is what the checksum covers: all but itself.
func (d *document) checksumBytes() ([]byte, error) {
	c := *d
	c.Checksum = nil
	return c.encode()
}

// decodeDocument reads a keystore file's bytes and checks everything that can
// be checked without a key, except the checksum. Errors are ErrVersion or
// ErrDamaged.
func decodeDocument(b []byte) (*document, error) {
	d, err := decodeStrictly(b)
	if errors.Is(err, ErrVersion) {
		return nil, err
	}
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return nil, fmt.Errorf("decode keystore: %w: %v", ErrDamaged, err)
	}
	return d, nil
}

func decodeStrictly(b []byte) (*document, error) {
	if len(b) > maxDocument {
		return nil, fmt.Errorf("larger than %d bytes", maxDocument)
	}
	// The version first, leniently: a later one may look like anything else.
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, errors.New("not a JSON document")
	}
	if head.Format != documentFormat {
		return nil, errors.New("not a keystore of kmsfs")
	}
	if head.Version != documentVersion {
		return nil, fmt.Errorf("decode keystore: version %d, this program knows %d: %w", head.Version, documentVersion, ErrVersion)
	}
	var d document
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("bytes after the document")
	}
	again, err := d.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(b, again) {
		return nil, errors.New("not in its canonical spelling")
	}
	return &d, nil
}

// check finds what no writer of this package leaves behind.
func (d *document) check() error {
	if id, err := hex.DecodeString(d.ID); err != nil || len(id) != 16 || hex.EncodeToString(id) != d.ID {
		return errors.New("bad keystore ID")
	}
	if !validAccount(d.Account) {
		return errors.New("bad account")
	}
	if d.KDF.Name != kdfName {
		return fmt.Errorf("unknown key derivation %.20q", d.KDF.Name)
	}
	if err := d.KDF.params().check(); err != nil {
		return fmt.Errorf("key derivation: %w", err)
	}
	if n := len(d.KDF.Salt); n < minSalt || n > maxSalt {
		return fmt.Errorf("salt of %d bytes", n)
	}
	if len(d.KEK) != sealedKeySize {
		return fmt.Errorf("sealed key of %d bytes", len(d.KEK))
	}
	keys := make(map[string]bool, len(d.Keys))
	for i := range d.Keys {
		if err := d.Keys[i].check(); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
		if keys[d.Keys[i].ID] {
			return fmt.Errorf("key %s twice", d.Keys[i].ID)
		}
		keys[d.Keys[i].ID] = true
	}
	aliases := make(map[string]bool, len(d.Aliases))
	for i, a := range d.Aliases {
		if err := checkAlias(a.Name); err != nil {
			return fmt.Errorf("alias %d: %w", i, err)
		}
		if aliases[a.Name] || !keys[a.Target] {
			return fmt.Errorf("alias %d: twice, or of no key", i)
		}
		aliases[a.Name] = true
	}
	return d.checkPrincipals()
}

func (d *document) checkPrincipals() error {
	names, ids := make(map[string]bool), make(map[string]bool)
	for i := range d.Principals {
		p := &d.Principals[i]
		if err := p.check(); err != nil {
			return fmt.Errorf("principal %d: %w", i, err)
		}
		if names[p.Name] || ids[p.AccessKeyID] {
			return fmt.Errorf("principal %d: its name or access key is there twice", i)
		}
		names[p.Name], ids[p.AccessKeyID] = true, true
	}
	return nil
}
