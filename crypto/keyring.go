package crypto

import (
	"crypto/cipher"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// ringSlots is how many derived keys a keyring keeps. A file written in one go has one; a file patched over more
// mounts than this pays about a microsecond per change of key.
const ringSlots = 8

// keyring caches the AES-GCM keys that XAES derives from nonce prefixes, the oldest replaced first. It is the only
// place that holds them, so that wiping it drops them all. Safe for concurrent use without locks.
type keyring struct {
	xaes  atomic.Pointer[XAES] // nil once wiped
	slots [ringSlots]atomic.Pointer[derivedKey]
	next  atomic.Uint32
}

type derivedKey struct {
	prefix [prefixSize]byte
	aead   cipher.AEAD
}

// init sets the key from which the ring derives, and wipes it.
func (r *keyring) init(k *Key) {
	r.xaes.Store(NewXAES(k))
	k.Wipe()
}

// find gives the key for nonces with this prefix of 12 bytes; it allocates only when the key is not cached. ErrWiped
// after wipe.
func (r *keyring) find(prefix []byte) (cipher.AEAD, error) {
	x := r.xaes.Load()
	if x == nil {
		return nil, ErrWiped
	}
	p := [prefixSize]byte(prefix)
	for i := range r.slots {
		if d := r.slots[i].Load(); d != nil && d.prefix == p {
			return d.aead, nil
		}
	}
	aead, err := x.derive(prefix)
	if err != nil {
		return nil, err
	}
	r.add(&derivedKey{prefix: p, aead: aead})
	return aead, nil
}

// add puts a key in the place of the oldest, which others may be using still.
func (r *keyring) add(d *derivedKey) {
	r.slots[(r.next.Add(1)-1)%ringSlots].Store(d)
}

// wipe overwrites every key; later calls get ErrWiped. It must not run beside another use of the ring or of what it
// gave out.
func (r *keyring) wipe() {
	if x := r.xaes.Swap(nil); x != nil {
		x.Wipe()
	}
	for i := range r.slots {
		if d := r.slots[i].Swap(nil); d != nil {
			erase(d.aead)
		}
	}
}

// sessionMessages is how many messages share one nonce prefix. The other 12 bytes of the nonce are random, so that
// among 2^32 messages the chance of a repeated one is 2^-33 (NIST SP 800-38D, section 8.3).
const sessionMessages = 1 << 32

// session is one writer's nonce prefix: drawn at its start, and again after sessionMessages. Safe for concurrent use
// if random is.
type session struct {
	ring   *keyring
	random io.Reader

	mu     sync.Mutex // guards the fields below
	prefix [prefixSize]byte
	left   uint64 // messages that may still be sealed under prefix
}

// start draws the session's first prefix and derives its key.
func (s *session) start(ring *keyring, random io.Reader) error {
	s.ring, s.random = ring, random
	_, _, err := s.take(0)
	return err
}

// take hands out the prefix and its key for n messages, which the caller must give random second halves of the nonce.
func (s *session) take(n uint64) (prefix [prefixSize]byte, aead cipher.AEAD, err error) {
	if n > sessionMessages {
		return prefix, nil, fmt.Errorf("%d messages at once: %w", n, ErrTooLarge)
	}
	s.mu.Lock()
	if s.left < max(n, 1) {
		if err := s.draw(); err != nil {
			s.mu.Unlock()
			return prefix, nil, err
		}
	}
	s.left -= n
	prefix = s.prefix
	s.mu.Unlock()
	aead, err = s.ring.find(prefix[:])
	return prefix, aead, err
}

// draw replaces the prefix; on error it leaves the old one.
func (s *session) draw() error {
	var prefix [prefixSize]byte
	if _, err := io.ReadFull(s.random, prefix[:]); err != nil {
		return fmt.Errorf("draw nonce prefix: %w", err)
	}
	s.prefix, s.left = prefix, sessionMessages
	return nil
}
