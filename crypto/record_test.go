package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func testRecords() (*RecordCipher, *RecordSealer) {
	c := NewRecordCipher(testKey(1), testVolume, testFile)
	return c, must(c.NewSealer(newStream(1)))
}

// sealRawRecord seals 80 bytes that Seal would not write.
func sealRawRecord(plain []byte) []byte {
	head := append([]byte(headerMagic), testFile[:]...)
	return append(head, xaesSeal(testKey(1).Derive(LabelRecord, testFile), goldenNonce, plain, append(bytes.Clone(head), testVolume[:]...))...)
}

func TestRecordOpensToWhatWasSealed(t *testing.T) {
	c, s := testRecords()
	one := [16]byte{15: 1}
	for _, r := range []Record{
		{},
		{Size: 1, Stored: 1, Root: one},
		{Flags: FlagRootAbsent, Size: 4097, Stored: 2, Generation: 1<<64 - 1, BindingA: one},
		{Flags: FlagLinked | FlagShared, Size: uint64(MaxFileSize), Stored: maxBlocks, Root: one, BindingB: one},
		{Flags: flagsKnown, Size: 1 << 40},
		goldenRecord(),
	} {
		header := bytes.Repeat([]byte{0xff}, HeaderSize)
		if err := s.Seal(header, r); err != nil {
			t.Errorf("%+v: %v", r, err)
			continue
		}
		if id, err := HeaderFileID(header[:RecordOffset]); err != nil || id != testFile {
			t.Errorf("header of %s, %v", id, err)
		}
		for name, reader := range map[string]*RecordCipher{"same": c, "another": NewRecordCipher(testKey(1), testVolume, testFile)} {
			if got, err := reader.Open(header); err != nil || got != r {
				t.Errorf("%s cipher: %+v, %v; want %+v", name, got, err, r)
			}
		}
		if r.HasRoot() != (r.Flags&1 == 0) || r.Linked() != (r.Flags&2 != 0) {
			t.Errorf("%+v: HasRoot %v, Linked %v", r, r.HasRoot(), r.Linked())
		}
	}
}

func TestEveryByteOfTheHeaderIsAuthenticated(t *testing.T) {
	c, _ := testRecords()
	header := sealRawRecord(make([]byte, recordSize))
	if _, err := c.Open(header); err != nil {
		t.Fatal(err)
	}
	eachTampering(header, func(at int, tampered []byte) {
		want := ErrAuthentication
		if at < len(headerMagic) {
			want = ErrMalformed
		}
		_, err := c.Open(tampered)
		wantError(t, err, want)
	})
	for name, other := range map[string]*RecordCipher{
		"other key":    NewRecordCipher(testKey(2), testVolume, testFile),
		"other volume": NewRecordCipher(testKey(1), testDir, testFile),
		"other file":   NewRecordCipher(testKey(1), testVolume, testDir),
	} {
		if _, err := other.Open(header); !errors.Is(err, ErrAuthentication) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A whole header under another file's ID, for whoever takes the ID from the header.
	moved := bytes.Clone(header)
	copy(moved[8:], testDir[:])
	_, err := NewRecordCipher(testKey(1), testVolume, testDir).Open(moved)
	wantError(t, err, ErrAuthentication)
}

func TestRecordThatSaysTheImpossibleIsRefused(t *testing.T) {
	c, s := testRecords()
	for at := 1; at < 8; at++ {
		plain := make([]byte, recordSize)
		plain[at] = 1
		if _, err := c.Open(sealRawRecord(plain)); !errors.Is(err, ErrMalformed) {
			t.Errorf("reserved byte %d: %v", at, err)
		}
	}
	for name, r := range map[string]Record{
		"flag 8":               {Flags: 8},
		"flag 128":             {Flags: 128 | FlagLinked},
		"a size over the most": {Size: uint64(MaxFileSize) + 1},
		"a negative size":      {Size: 1 << 63},
		"too much stored":      {Size: BlockSize, Stored: 2},
		"stored, but empty":    {Stored: 1},
		"a root and no root":   {Flags: FlagRootAbsent, Root: [16]byte{1}},
	} {
		if err := s.Seal(make([]byte, HeaderSize), r); !errors.Is(err, ErrMalformed) {
			t.Errorf("sealing %s: %v", name, err)
		}
		var plain [recordSize]byte
		r.marshal(&plain)
		if _, err := c.Open(sealRawRecord(plain[:])); !errors.Is(err, ErrMalformed) {
			t.Errorf("opening %s: %v", name, err)
		}
	}
}

func TestReservedBytesOfARecordAreWrittenAsZeros(t *testing.T) {
	plain := [recordSize]byte(bytes.Repeat([]byte{0xff}, recordSize)) // as another call may leave the scratch
	want := goldenRecord()
	want.marshal(&plain)
	if got, err := parseRecord(&plain); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestHeaderOfTheWrongLengthIsRefused(t *testing.T) {
	c, s := testRecords()
	for _, n := range []int{0, 1, 23, 24, HeaderSize - 1, HeaderSize + 1} {
		header := append(sealRawRecord(make([]byte, recordSize)), 0)[:n]
		_, err := c.Open(header)
		wantError(t, err, ErrMalformed)
		wantError(t, s.Seal(make([]byte, n), Record{}), ErrMalformed)
		if _, err := HeaderFileID(header); (err == nil) != (n >= 24) {
			t.Errorf("HeaderFileID of %d bytes: %v", n, err)
		}
	}
	for bad, message := range map[string]string{
		"kmsfs\x00\x02\x00": "version 2", "kmsfs\x00\x00\x00": "version 0",
		"kmsfs\x00\x01\x01": "without magic", "KMSFS\x00\x01\x00": "without magic", "kmsfsdir": "without magic",
	} {
		_, err := HeaderFileID(append([]byte(bad), testFile[:]...))
		wantError(t, err, ErrMalformed)
		if !strings.Contains(fmt.Sprint(err), message) {
			t.Errorf("%q: %v, want %s", bad, err, message)
		}
	}
}

func TestRecordSealerRewritesOnlyBehindRecordOffset(t *testing.T) {
	_, s := testRecords()
	a, b := make([]byte, HeaderSize), make([]byte, HeaderSize)
	if err := errors.Join(s.Seal(a, Record{}), s.Seal(b, Record{})); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a[:RecordOffset+prefixSize], b[:RecordOffset+prefixSize]) {
		t.Error("the fixed part or the session's prefix changed")
	}
	if bytes.Equal(a[RecordOffset+prefixSize:][:12], b[RecordOffset+prefixSize:][:12]) {
		t.Error("a nonce was used twice")
	}
}

func TestRecordSealerFailsWithoutRandomnessOrKey(t *testing.T) {
	c, s := testRecords()
	_, err := c.NewSealer(dry{})
	wantError(t, err, errNoRandom)
	s.session.random = dry{}
	wantError(t, s.Seal(make([]byte, HeaderSize), Record{}), errNoRandom)
	c.Wipe()
	wantError(t, s.Seal(make([]byte, HeaderSize), Record{}), ErrWiped)
	_, err = c.Open(sealRawRecord(make([]byte, recordSize)))
	wantError(t, err, ErrWiped)
}

func TestRecordsAreSealedAndOpenedConcurrently(t *testing.T) {
	c, s := testRecords()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			header := make([]byte, HeaderSize)
			for i := range 50 {
				r := Record{Generation: uint64(g*1000 + i), BindingA: [16]byte{byte(g)}}
				if err := s.Seal(header, r); err != nil {
					t.Error(err)
				}
				if got, err := c.Open(header); err != nil || got != r {
					t.Errorf("%+v, %v; want %+v", got, err, r)
				}
			}
		})
	}
	wg.Wait()
}

func TestRecordsAllocateNothing(t *testing.T) {
	c, s := testRecords()
	header, r := make([]byte, HeaderSize), goldenRecord()
	wantNoAllocs(t, "RecordSealer.Seal", func() {
		if err := s.Seal(header, r); err != nil {
			t.Fatal(err)
		}
	})
	wantNoAllocs(t, "RecordCipher.Open", func() {
		if _, err := c.Open(header); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzOpenHeader(f *testing.F) {
	c := NewRecordCipher(goldenVK, testVolume, testFile)
	parses := func(b []byte) bool { _, err := c.Open(b); return err == nil }
	addSeeds(f, parses, unhex(goldenHeader), make([]byte, HeaderSize), unhex(goldenHeader)[:24], nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if parses(b) && !bytes.Equal(b, unhex(goldenHeader)) {
			t.Errorf("%x opens, and was never sealed", b)
		}
		if id, err := HeaderFileID(b); err == nil && !bytes.HasPrefix(b, append([]byte(headerMagic), id[:]...)) {
			t.Errorf("%x is of file %s", b, id)
		}
	})
}

// FuzzParseRecord is the parser behind the authentication.
func FuzzParseRecord(f *testing.F) {
	var plain [recordSize]byte
	goldenRecord().marshal(&plain)
	parse := func(b []byte) (Record, error) {
		if len(b) != recordSize {
			return Record{}, fmt.Errorf("%d bytes", len(b))
		}
		return parseRecord((*[recordSize]byte)(b))
	}
	addSeeds(f, func(b []byte) bool { _, err := parse(b); return err == nil },
		plain[:], make([]byte, recordSize), bytes.Repeat([]byte{1}, recordSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parse(b)
		if err != nil {
			return
		}
		var again [recordSize]byte
		r.marshal(&again)
		if !bytes.Equal(again[:], b) {
			t.Errorf("%x parses and marshals to %x", b, again)
		}
	})
}

func BenchmarkOpenColdHeader(b *testing.B) {
	vk, header := testKey(1), sealRawRecord(make([]byte, recordSize))
	for b.Loop() {
		if _, err := NewRecordCipher(vk, testVolume, testFile).Open(header); err != nil {
			b.Fatal(err)
		}
	}
}
