package providertest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"

	"kmsfs/kmsprovider"
)

// recorder keeps the plaintexts and the texts of errors that passed by.
type recorder struct {
	mu      sync.Mutex
	secrets [][]byte
	texts   []string
}

// minSecret is the length from which a plaintext cannot be in a text by chance.
const minSecret = 16

func (r *recorder) note(err error, plaintext []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A secret of one repeated byte is a test's own; looking for it proves nothing.
	if len(plaintext) >= minSecret && bytes.Count(plaintext, plaintext[:1]) < len(plaintext) {
		r.secrets = append(r.secrets, bytes.Clone(plaintext))
	}
	if err != nil {
		r.texts = append(r.texts, fmt.Sprintf("%v\n%+v\n%#v", err, err, err))
	}
}

func (r *recorder) plaintexts() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.secrets) }
func (r *recorder) errors() int     { r.mu.Lock(); defer r.mu.Unlock(); return len(r.texts) }

// leaks names the kinds of errors that hold a plaintext, in whatever spelling;
// it does not print them.
func (r *recorder) leaks() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.texts)
	all := strings.Join(slices.Compact(r.texts), "\n")
	lower := strings.ToLower(all)
	var leaks []string
	for i, secret := range r.secrets {
		for kind, spelling := range spellings(secret) {
			if strings.Contains(all, spelling) || kind == "hex" && strings.Contains(lower, spelling) {
				leaks = append(leaks, fmt.Sprintf("plaintext %d is in an error, in %s", i, kind))
			}
		}
	}
	return leaks
}

// spellings returns the first bytes of a secret in the ways Go prints bytes.
// Whole groups of base64 only, so that what follows them does not matter.
func spellings(secret []byte) map[string]string {
	head := secret[:15]
	return map[string]string{
		"raw bytes":      string(head),
		"a Go string":    strings.Trim(fmt.Sprintf("%q", head), `"`),
		"hex":            hex.EncodeToString(head),
		"base64":         base64.StdEncoding.EncodeToString(head),
		"base64url":      base64.URLEncoding.EncodeToString(head),
		"decimal":        strings.Trim(fmt.Sprint(head), "[]"),
		"Go-syntax list": strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", head), "[]byte{"), "}"),
	}
}

// recorded is a provider under watch.
type recorded struct {
	kmsprovider.Provider
	watch *recorder
}

func (p recorded) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) (plaintext, wrapped []byte, err error) {
	plaintext, wrapped, err = p.Provider.GenerateDataKey(ctx, keyID, ec)
	p.watch.note(err, plaintext)
	return plaintext, wrapped, err
}

func (p recorded) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	plaintext, err := p.Provider.Decrypt(ctx, keyID, wrapped, ec)
	p.watch.note(err, plaintext)
	return plaintext, err
}

func (p recorded) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	wrapped, err := p.Provider.Encrypt(ctx, keyID, plaintext, ec)
	p.watch.note(err, plaintext)
	return wrapped, err
}

func (p recorded) ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC kmsprovider.Context, to string, toEC kmsprovider.Context) ([]byte, error) {
	rewrapped, err := p.Provider.ReEncrypt(ctx, wrapped, from, fromEC, to, toEC)
	p.watch.note(err, nil)
	return rewrapped, err
}

func (p recorded) DescribeKey(ctx context.Context, keyID string) (kmsprovider.KeyInfo, error) {
	info, err := p.Provider.DescribeKey(ctx, keyID)
	p.watch.note(err, nil)
	return info, err
}
