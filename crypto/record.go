package crypto

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// The header of a data file, 144 bytes:
//
//	0    8  "kmsfs", 0, version 1, 0
//	8   16  file ID
//	24  24  nonce
//	48  80  record, encrypted: flags u8, 7 reserved, generation u64, size u64, stored u64, root 16, binding A 16, binding B 16
//	128 16  tag
//
// Sealed by XAES under the volume key's key for LabelRecord and the file ID; AAD = bytes 0–23 ‖ volume ID.

const (
	headerMagic = "kmsfs\x00\x01\x00" // with the version, 1, in byte 6
	recordSize  = 80                  // plaintext of the record

	headerAADSize = RecordOffset + len(ID{})
)

// Flags of a Record.
const (
	FlagRootAbsent uint8 = 1 // the root was given up; only fsck computes it again
	FlagLinked     uint8 = 2 // the file has had more than one name, so it is bound to none
	FlagShared     uint8 = 4 // written by a shared mount; fsck clears it

	flagsKnown = FlagRootAbsent | FlagLinked | FlagShared
)

// Record seals a data file: what its content must be and where it belongs.
type Record struct {
	Flags      uint8
	Generation uint64   // counts rewrites of the record
	Size       uint64   // plaintext bytes, at most MaxFileSize
	Stored     uint64   // blocks that are not holes, at most all that Size has
	Root       [16]byte // see root.go; zeros with FlagRootAbsent
	BindingA   [16]byte // see bind.go; zeros if free
	BindingB   [16]byte // likewise; in use while a rename is under way
}

// HasRoot tells whether Root says something.
func (r Record) HasRoot() bool { return r.Flags&FlagRootAbsent == 0 }

// Linked tells whether the file has ever had more than one name.
func (r Record) Linked() bool { return r.Flags&FlagLinked != 0 }

// check refuses what no record may say, so that readers may rely on it.
func (r Record) check() error {
	switch {
	case r.Flags&^flagsKnown != 0:
		return fmt.Errorf("unknown flags %#x: %w", r.Flags&^flagsKnown, ErrMalformed)
	case r.Size > uint64(MaxFileSize):
		return fmt.Errorf("size %d: %w", r.Size, ErrMalformed)
	case r.Stored > BlockCount(int64(r.Size)):
		return fmt.Errorf("%d blocks stored of %d: %w", r.Stored, BlockCount(int64(r.Size)), ErrMalformed)
	case !r.HasRoot() && r.Root != [16]byte{}:
		return fmt.Errorf("root both absent and present: %w", ErrMalformed)
	}
	return nil
}

func (r Record) marshal(b *[recordSize]byte) {
	clear(b[:8])
	b[0] = r.Flags
	binary.LittleEndian.PutUint64(b[8:], r.Generation)
	binary.LittleEndian.PutUint64(b[16:], r.Size)
	binary.LittleEndian.PutUint64(b[24:], r.Stored)
	copy(b[32:], r.Root[:])
	copy(b[48:], r.BindingA[:])
	copy(b[64:], r.BindingB[:])
}

func parseRecord(b *[recordSize]byte) (Record, error) {
	if [7]byte(b[1:]) != [7]byte{} {
		return Record{}, fmt.Errorf("reserved bytes are not zero: %w", ErrMalformed)
	}
	r := Record{
		Flags:      b[0],
		Generation: binary.LittleEndian.Uint64(b[8:]),
		Size:       binary.LittleEndian.Uint64(b[16:]),
		Stored:     binary.LittleEndian.Uint64(b[24:]),
		Root:       [16]byte(b[32:]),
		BindingA:   [16]byte(b[48:]),
		BindingB:   [16]byte(b[64:]),
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// HeaderFileID reads the file ID from the first 24 bytes of a header, which need not be whole, and checks magic and
// version; nothing is authenticated. ErrMalformed.
func HeaderFileID(header []byte) (ID, error) {
	if len(header) < RecordOffset {
		return ID{}, fmt.Errorf("file header of %d bytes: %w", len(header), ErrMalformed)
	}
	magic := header[:len(headerMagic)]
	if string(magic) != headerMagic {
		if string(magic[:6]) == headerMagic[:6] && magic[7] == 0 {
			return ID{}, fmt.Errorf("file header of version %d: %w", magic[6], ErrMalformed)
		}
		return ID{}, fmt.Errorf("file header without magic: %w", ErrMalformed)
	}
	return ID(header[len(headerMagic):RecordOffset]), nil
}

// PutHeaderFileID writes what a header has before its record: magic, version and file ID.
func PutHeaderFileID(header []byte, id ID) {
	copy(header, headerMagic)
	copy(header[len(headerMagic):RecordOffset], id[:])
}

// recordScratch holds a plaintext record and additional data off the stack, see blockScratch.
type recordScratch struct {
	plain [recordSize]byte
	aad   [headerAADSize]byte
}

var recordScratches = sync.Pool{New: func() any { return new(recordScratch) }}

// RecordCipher opens the header of one file, and starts the sessions that seal it. Safe for concurrent use.
type RecordCipher struct {
	ring   keyring
	volume ID
	file   ID
}

// NewRecordCipher derives the file's record key from the volume key, and keeps nothing else of it.
func NewRecordCipher(vk *Key, volume, file ID) *RecordCipher {
	c := &RecordCipher{volume: volume, file: file}
	c.ring.init(vk.Derive(LabelRecord, file))
	return c
}

// Open authenticates a header of 144 bytes and gives its record. ErrAuthentication if it is not one sealed for this
// file of this volume; ErrMalformed if it has another length or magic, or says what no record may say (see Record);
// ErrWiped after Wipe.
func (c *RecordCipher) Open(header []byte) (Record, error) {
	if len(header) != HeaderSize {
		return Record{}, fmt.Errorf("open file header: %d bytes, want %d: %w", len(header), HeaderSize, ErrMalformed)
	}
	if _, err := HeaderFileID(header); err != nil {
		return Record{}, fmt.Errorf("open %w", err)
	}
	sealed := header[RecordOffset:]
	aead, err := c.ring.find(sealed[:prefixSize])
	if err != nil {
		return Record{}, fmt.Errorf("open file header: %w", err)
	}
	s := recordScratches.Get().(*recordScratch)
	defer recordScratches.Put(s)
	copy(s.aad[:], header[:RecordOffset])
	copy(s.aad[RecordOffset:], c.volume[:])
	if _, err = aead.Open(s.plain[:0], sealed[prefixSize:NonceSize], sealed[NonceSize:], s.aad[:]); err != nil {
		return Record{}, fmt.Errorf("open file header: %w", ErrAuthentication)
	}
	r, err := parseRecord(&s.plain)
	if err != nil {
		return Record{}, fmt.Errorf("open file header: %w", err)
	}
	return r, nil
}

// Wipe is BlockCipher.Wipe.
func (c *RecordCipher) Wipe() { c.ring.wipe() }

// NewSealer begins a writer session, see BlockCipher.NewSealer.
func (c *RecordCipher) NewSealer(random io.Reader) (*RecordSealer, error) {
	s := &RecordSealer{volume: c.volume, file: c.file}
	if err := s.session.start(&c.ring, random); err != nil {
		return nil, fmt.Errorf("begin record session: %w", err)
	}
	return s, nil
}

// RecordSealer is one writer session of a file's header. Safe for concurrent use.
type RecordSealer struct {
	session session
	volume  ID
	file    ID
}

// Seal writes all 144 bytes of dst; those from RecordOffset on change with every call. No limit on the number of
// calls. ErrMalformed if dst has another length or r says what no record may say; ErrWiped; errors of the random
// source. On error dst holds nothing of use. Allocates nothing.
func (s *RecordSealer) Seal(dst []byte, r Record) error {
	if len(dst) != HeaderSize {
		return fmt.Errorf("seal file header: %d bytes, want %d: %w", len(dst), HeaderSize, ErrMalformed)
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("seal file header: %w", err)
	}
	prefix, aead, err := s.session.take(1)
	if err != nil {
		return fmt.Errorf("seal file header: %w", err)
	}
	nonce := dst[RecordOffset:][:NonceSize]
	if _, err := io.ReadFull(s.session.random, nonce[prefixSize:]); err != nil {
		return fmt.Errorf("seal file header: draw nonce: %w", err)
	}
	copy(nonce, prefix[:])
	copy(dst, headerMagic)
	copy(dst[len(headerMagic):], s.file[:])
	scratch := recordScratches.Get().(*recordScratch)
	copy(scratch.aad[:], dst[:RecordOffset])
	copy(scratch.aad[RecordOffset:], s.volume[:])
	r.marshal(&scratch.plain)
	const body = RecordOffset + NonceSize
	aead.Seal(dst[body:body], nonce[prefixSize:], scratch.plain[:], scratch.aad[:])
	recordScratches.Put(scratch)
	return nil
}
