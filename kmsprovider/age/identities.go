package age

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"filippo.io/age"

	"kmsfs/kmsprovider"
)

// Source gives identities. It is called when the first is needed, and again
// only if it failed.
type Source func() ([]age.Identity, error)

// maxIdentities bounds a file of identities, in bytes.
const maxIdentities = 1 << 20

// FromFile reads identities from a file as age-keygen writes it. An error names
// the file and shows nothing of what is in it.
func FromFile(path string) Source {
	return func() ([]age.Identity, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read age identity: %w", err)
		}
		defer f.Close()
		ids, err := age.ParseIdentities(io.LimitReader(f, maxIdentities))
		if err != nil {
			return nil, &hinted{fmt.Errorf("read age identity: %s holds none", path),
				"a file as age-keygen writes it is wanted, with a line AGE-SECRET-KEY-1…; decrypt it first if it is encrypted"}
		}
		return ids, nil
	}
}

// identities are those of this process, by the recipient they open for.
type identities struct {
	source Source // nil: there are none

	mu          sync.Mutex
	byRecipient map[string]age.Identity // nil until read
}

// load reads the identities when that has not been done.
func (s *identities) load() (map[string]age.Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byRecipient != nil {
		return s.byRecipient, nil
	}
	if s.source == nil {
		return nil, errors.New("no age identity was given")
	}
	all, err := s.source()
	if err != nil {
		return nil, err
	}
	s.byRecipient = make(map[string]age.Identity)
	for _, id := range all {
		s.byRecipient[recipientOf(id)] = id
	}
	return s.byRecipient, nil
}

// find returns the identity that opens for a recipient, and all others.
func (s *identities) find(recipient string) (its age.Identity, others []age.Identity, err error) {
	all, err := s.load()
	for r, id := range all {
		if r == recipient {
			its = id
		} else {
			others = append(others, id)
		}
	}
	if err == nil && its == nil {
		err = fmt.Errorf("none of the age identities that were given is of recipient %.100s", recipient)
	}
	if err != nil {
		return nil, nil, &hinted{fmt.Errorf("%w: %w", err, kmsprovider.ErrNotUsable), hintIdentity}
	}
	return its, others, nil
}

const hintIdentity = "give the identity that belongs to the recipient: --age-identity FILE or KMSFS_AGE_IDENTITY"

// hinted is an error with what can be done about it.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// Hint says what the user can do.
func (h *hinted) Hint() string { return h.hint }
