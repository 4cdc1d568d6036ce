package local

import (
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"strings"

	"kmsfs/kmsprovider"
)

// Names are AWS's: keys are version 4 UUIDs, ARNs have the region "local" and
// the keystore's account, and aliases start with alias/.
const (
	region       = "local"
	arnPrefix    = "arn:aws:kms:" + region + ":"
	aliasPrefix  = "alias/"
	maxAlias     = 256 // bytes, prefix included
	maxKeyIDText = 2048
)

// DefaultAlias names the key that kmsfs makes for itself at first use.
const DefaultAlias = "alias/kmsfs"

// keyUUID is a key's ID: a version 4 UUID, RFC 9562, in its 16 bytes.
type keyUUID [16]byte

// newKeyUUID draws a fresh ID.
func newKeyUUID(random io.Reader) (keyUUID, error) {
	var u keyUUID
	if _, err := io.ReadFull(random, u[:]); err != nil {
		return keyUUID{}, fmt.Errorf("draw key ID: %w", err)
	}
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u, nil
}

// parseKeyUUID reads what String writes: 8-4-4-4-12 lower-case hex digits.
func parseKeyUUID(s string) (keyUUID, bool) {
	var u keyUUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, false
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	n, err := hex.Decode(u[:], []byte(digits))
	return u, err == nil && n == len(u) && u.String() == s
}

func (u keyUUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// newAccount draws an account ID of 12 digits, the first not 0.
func newAccount(random io.Reader) (string, error) {
	// 128 bits modulo 9·10¹¹: the bias is far below anything visible.
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("draw account ID: %w", err)
	}
	n := new(big.Int).Mod(new(big.Int).SetBytes(b[:]), big.NewInt(900_000_000_000))
	return n.Add(n, big.NewInt(100_000_000_000)).String(), nil
}

func validAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

func keyARN(account, id string) string {
	return arnPrefix + account + ":key/" + id
}

func aliasARN(account, alias string) string {
	return arnPrefix + account + ":" + alias
}

// missingKey is the error for a keyID that names no key here. One that has not
// the form of a key's name matches ErrInvalidInput.
func missingKey(keyID, account string) *Error {
	switch {
	case keyID == "":
		return invalid("keyId", "Member must have length greater than or equal to 1")
	case len(keyID) > maxKeyIDText:
		return invalid("keyId", "Member must have length less than or equal to %d", maxKeyIDText)
	case !wellFormedKeyID(keyID) && strings.HasPrefix(keyID, "arn:"):
		return refuse(codeInvalidArn, "Invalid arn %s", keyID)
	case !wellFormedKeyID(keyID):
		return refuse(codeNotFound, "Invalid keyId '%s'", keyID).of(kmsprovider.ErrInvalidInput)
	case isAlias(keyID):
		if strings.HasPrefix(keyID, aliasPrefix) {
			keyID = aliasARN(account, keyID)
		}
		return refuse(codeNotFound, "Alias %s is not found.", keyID)
	}
	if !strings.HasPrefix(keyID, "arn:") {
		keyID = keyARN(account, keyID)
	}
	return refuse(codeNotFound, "Key '%s' does not exist", keyID)
}

// wellFormedKeyID tells whether s could name a key, in this keystore or in any
// other: a UUID, alias/NAME, or the ARN of one of them.
func wellFormedKeyID(s string) bool {
	if strings.HasPrefix(s, "arn:") {
		parts := strings.SplitN(s, ":", 6)
		if len(parts) != 6 || parts[2] != "kms" || !validAccount(parts[4]) {
			return false
		}
		if id, found := strings.CutPrefix(parts[5], "key/"); found {
			return id != "" && !strings.ContainsAny(id, ":/")
		}
		s = parts[5]
	}
	// An alias of AWS's own has the form of one; it is just never here.
	if name, found := strings.CutPrefix(s, "alias/aws/"); found {
		s = aliasPrefix + name
	}
	if strings.HasPrefix(s, aliasPrefix) {
		return checkAlias(s) == nil
	}
	_, ok := parseKeyUUID(s)
	return ok
}
