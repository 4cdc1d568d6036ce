package crypto

import "errors"

// Sentinels, wrapped with what went wrong where.
var (
	// ErrAuthentication: nobody who holds the key wrote these bytes for this place.
	ErrAuthentication = errors.New("authentication failed")
	// ErrMalformed: bytes or a value of a shape the format does not allow.
	ErrMalformed = errors.New("malformed")
	// ErrTooLarge: a size, name or target beyond what the format can hold.
	ErrTooLarge = errors.New("too large")
	// ErrShortHeader: a backing file shorter than its header; an interrupted create, or damage.
	ErrShortHeader = errors.New("shorter than its header")
	// ErrTornTail: a backing file that ends in a block record without content (1 to 40 bytes).
	ErrTornTail = errors.New("torn last block")
	// ErrWiped: the cipher's key material was dropped by Wipe.
	ErrWiped = errors.New("key was wiped")
)
