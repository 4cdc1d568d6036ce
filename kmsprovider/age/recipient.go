package age

import (
	"fmt"
	"strings"

	"filippo.io/age"

	"kmsfs/kmsprovider"
)

// parseRecipient reads the name of a key: one of age's own recipients, as it
// writes them. Recipients of plugins and SSH keys are not supported.
func parseRecipient(keyID string) (age.Recipient, error) {
	var r interface {
		age.Recipient
		String() string
	}
	var err error
	switch {
	case strings.HasPrefix(keyID, "age1pq1"):
		r, err = age.ParseHybridRecipient(keyID)
	case strings.HasPrefix(keyID, "age1"):
		r, err = age.ParseX25519Recipient(keyID)
	default:
		err = fmt.Errorf("an age recipient begins with age1")
	}
	if err == nil && r.String() != keyID {
		err = fmt.Errorf("it is written %s", r)
	}
	if err != nil {
		return nil, fmt.Errorf("parse age recipient %.100q: %w: %w", keyID, err, kmsprovider.ErrInvalidInput)
	}
	return r, nil
}

// recipientOf is the recipient that an identity opens for, as it is written.
func recipientOf(identity age.Identity) string {
	switch i := identity.(type) {
	case *age.X25519Identity:
		return i.Recipient().String()
	case *age.HybridIdentity:
		return i.Recipient().String()
	}
	return ""
}
