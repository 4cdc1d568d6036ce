package local

import (
	"fmt"

	"golang.org/x/crypto/argon2"

	"kmsfs/crypto"
)

const kdfName = "argon2id"

// Bounds on what a keystore file may ask of this machine: 1 GiB, and about as
// long as 8 passes over it. Whoever can plant a file must not be able to take
// all memory or hours.
const (
	maxKDFTime    = 64
	maxKDFMemory  = 1 << 20 // KiB
	maxKDFWork    = 8 << 20 // passes × KiB
	maxKDFThreads = 64
	minSalt       = 16 // bytes
	maxSalt       = 64
)

// KDFParams are the costs of deriving a key from the passphrase with Argon2id,
// RFC 9106.
type KDFParams struct {
	Time      uint32 // passes, 1 to 64
	MemoryKiB uint32 // at least 8 per thread, at most 1 GiB
	Threads   uint8  // 1 to 64
}

// DefaultKDFParams returns RFC 9106's second recommended option (section 4):
// 3 passes over 64 MiB with 4 lanes, about 0.1 s.
func DefaultKDFParams() KDFParams {
	return KDFParams{Time: 3, MemoryKiB: 64 << 10, Threads: 4}
}

// check returns what is wrong with p; it does not name a sentinel.
func (p KDFParams) check() error {
	switch {
	case p.Time < 1 || p.Time > maxKDFTime:
		return fmt.Errorf("%d passes, want 1 to %d", p.Time, maxKDFTime)
	case p.Threads < 1 || p.Threads > maxKDFThreads:
		return fmt.Errorf("%d threads, want 1 to %d", p.Threads, maxKDFThreads)
	case p.MemoryKiB < 8*uint32(p.Threads) || p.MemoryKiB > maxKDFMemory:
		return fmt.Errorf("%d KiB of memory, want %d to %d", p.MemoryKiB, 8*uint32(p.Threads), maxKDFMemory)
	case uint64(p.Time)*uint64(p.MemoryKiB) > maxKDFWork:
		return fmt.Errorf("%d passes over %d KiB of memory are too much", p.Time, p.MemoryKiB)
	}
	return nil
}

// derive returns the key that seals the key-encrypting key. p was checked.
// Argon2's own memory, of which the key cannot be recovered without redoing
// the last steps, is left to the garbage collector: the library offers no
// other way.
func (p KDFParams) derive(passphrase, salt []byte) (*crypto.Key, error) {
	raw := argon2.IDKey(passphrase, salt, p.Time, p.MemoryKiB, p.Threads, crypto.KeySize)
	defer clear(raw)
	return crypto.NewKey(raw)
}
