package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

func testBlocks(seed byte) (*BlockCipher, *BlockSealer) {
	c := NewBlockCipher(testKey(9), testFile)
	return c, must(c.NewSealer(newStream(seed)))
}

// openAll opens consecutive records from block first on.
func openAll(c *BlockCipher, records []byte, first uint64) ([]byte, error) {
	var plain []byte
	for i := first; len(records) > 0; i++ {
		n := min(len(records), CipherBlockSize)
		block := make([]byte, max(n-BlockOverhead, 0))
		if err := c.Open(block, records[:n], i); err != nil {
			return nil, err
		}
		plain, records = append(plain, block...), records[n:]
	}
	return plain, nil
}

func TestBlocksOpenToWhatWasSealed(t *testing.T) {
	c, s := testBlocks(1)
	for _, size := range sizes {
		for _, first := range []uint64{0, 1, 1 << 32, maxBlocks - 6} {
			plain := randomBytes(byte(size), size)
			records := make([]byte, CipherLen(size))
			if err := s.Seal(records, plain, first); err != nil {
				t.Fatalf("%d bytes from block %d: %v", size, first, err)
			}
			for name, reader := range map[string]*BlockCipher{"same": c, "another": NewBlockCipher(testKey(9), testFile)} {
				if got, err := openAll(reader, records, first); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%d bytes from block %d, %s cipher: %v", size, first, name, err)
				}
			}
			if size > 16 && bytes.Contains(records, plain[:16]) {
				t.Errorf("%d bytes: plaintext shows", size)
			}
		}
	}
}

// TestBlockIsAnXAESMessage checks the claim that any XAES implementation opens a block.
func TestBlockIsAnXAESMessage(t *testing.T) {
	_, s := testBlocks(1)
	record := make([]byte, CipherLen(100))
	plain := randomBytes(2, 100)
	if err := s.Seal(record, plain, 0x0102); err != nil {
		t.Fatal(err)
	}
	aad := append(testFile[:], 2, 1, 0, 0, 0, 0, 0, 0)
	if got, err := NewXAES(testKey(9)).Open(nil, record, aad); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("XAES: %v", err)
	}
}

func TestEveryBlockGetsItsOwnNonceFromOneRead(t *testing.T) {
	const blocks = 1500 // nonces fill more than the first four records
	random := newStream(1)
	s := must(NewBlockCipher(testKey(9), testFile).NewSealer(random))
	records := make([]byte, CipherLen(blocks*BlockSize-5))
	if err := s.Seal(records, make([]byte, blocks*BlockSize-5), 0); err != nil {
		t.Fatal(err)
	}
	if random.reads != 2 {
		t.Errorf("%d reads of randomness, want one for the session and one for the call", random.reads)
	}
	drawn := newStream(1)
	prefix, nonces := make([]byte, 12), make([]byte, blocks*12)
	_, _ = drawn.Read(prefix)
	_, _ = drawn.Read(nonces)
	for i := range blocks {
		if got, want := records[i*CipherBlockSize:][:NonceSize], slices.Concat(prefix, nonces[i*12:][:12]); !bytes.Equal(got, want) {
			t.Fatalf("nonce %d is %x, want %x", i, got, want)
		}
	}
}

func TestSealingTheSameTwiceGivesOtherBytes(t *testing.T) {
	c, s := testBlocks(1)
	a, b, d := make([]byte, CipherLen(50)), make([]byte, CipherLen(50)), make([]byte, CipherLen(50))
	other := must(c.NewSealer(newStream(2)))
	if err := errors.Join(s.Seal(a, make([]byte, 50), 0), s.Seal(b, make([]byte, 50), 0), other.Seal(d, make([]byte, 50), 0)); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a[12:], b[12:]) || !bytes.Equal(a[:12], b[:12]) || bytes.Equal(a[:12], d[:12]) {
		t.Error("nonces do not change with block and session")
	}
}

func TestBlockOpensOnlyAsItself(t *testing.T) {
	c, s := testBlocks(1)
	plain, record := randomBytes(2, 70), make([]byte, CipherLen(70))
	if err := s.Seal(record, plain, 5); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, c *BlockCipher, record []byte, index uint64) {
		t.Helper()
		dst := bytes.Repeat([]byte{0xff}, len(record)-BlockOverhead)
		if err := c.Open(dst, record, index); !errors.Is(err, ErrAuthentication) {
			t.Errorf("%s: %v", what, err)
		}
		if !bytes.Equal(dst, make([]byte, len(dst))) {
			t.Errorf("%s: the destination is not zeroed", what)
		}
	}
	refused("other index", c, record, 4)
	refused("index with a high bit", c, record, 5|1<<63)
	refused("other file", NewBlockCipher(testKey(9), testDir), record, 5)
	refused("other key", NewBlockCipher(testKey(8), testFile), record, 5)
	refused("cut short", c, record[:len(record)-1], 5)
	refused("longer", c, append(bytes.Clone(record), 0), 5)
	refused("zeros", c, make([]byte, len(record)), 5)
	eachTampering(record, func(at int, tampered []byte) { refused(fmt.Sprint("byte ", at), c, tampered, 5) })
}

func TestBlocksOfTheWrongLengthAreRefused(t *testing.T) {
	c, s := testBlocks(1)
	for _, n := range []struct{ dst, record int }{
		{0, 0}, {0, 1}, {0, 39}, {0, 40}, {1, 40}, {0, 41}, {2, 41}, {BlockSize, BlockSize}, {BlockSize + 1, CipherBlockSize + 1}, {BlockSize - 1, CipherBlockSize},
	} {
		wantError(t, c.Open(make([]byte, n.dst), make([]byte, n.record), 0), ErrMalformed)
	}
	for _, n := range []struct{ dst, plain int }{{0, 1}, {40, 0}, {41, 2}, {CipherBlockSize, BlockSize - 1}, {CipherBlockSize, BlockSize + 1}} {
		wantError(t, s.Seal(make([]byte, n.dst), make([]byte, n.plain), 0), ErrMalformed)
	}
	for _, first := range []uint64{maxBlocks, 1<<64 - 1} {
		wantError(t, s.Seal(make([]byte, 41), make([]byte, 1), first), ErrTooLarge)
	}
	wantError(t, s.Seal(make([]byte, CipherLen(BlockSize+1)), make([]byte, BlockSize+1), maxBlocks-1), ErrTooLarge)
	if err := s.Seal(nil, nil, 0); err != nil {
		t.Errorf("sealing nothing: %v", err)
	}
}

func TestSealFailsWithoutRandomness(t *testing.T) {
	c, s := testBlocks(1)
	_, err := c.NewSealer(dry{})
	wantError(t, err, errNoRandom)
	s.session.random = dry{}
	wantError(t, s.Seal(make([]byte, 41), make([]byte, 1), 0), errNoRandom)
}

func TestWipedBlockCipherRefusesWork(t *testing.T) {
	c, s := testBlocks(1)
	record := make([]byte, CipherLen(10))
	if err := s.Seal(record, make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	c.Wipe()
	c.Wipe()
	wantError(t, c.Open(make([]byte, 10), record, 0), ErrWiped)
	wantError(t, s.Seal(record, make([]byte, 10), 0), ErrWiped)
	_, err := c.NewSealer(newStream(1))
	wantError(t, err, ErrWiped)
}

func TestSealerChangesPrefixWhenItsSessionIsUsedUp(t *testing.T) {
	c, s := testBlocks(1)
	s.session.left = 3
	plain := randomBytes(3, 2*BlockSize)
	a, b := make([]byte, CipherLen(len(plain))), make([]byte, CipherLen(len(plain)))
	if err := errors.Join(s.Seal(a, plain, 0), s.Seal(b, plain, 2)); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a[:12], b[:12]) || !bytes.Equal(b[:12], b[CipherBlockSize:][:12]) {
		t.Error("the prefix did not change between the calls")
	}
	if got, err := openAll(c, append(a, b...), 0); err != nil || !bytes.Equal(got, append(plain, plain...)) {
		t.Errorf("both sessions: %v", err)
	}
}

func TestBlocksAreSealedAndOpenedConcurrently(t *testing.T) {
	c, s := testBlocks(1)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			plain := randomBytes(byte(g), 3*BlockSize+g)
			records := make([]byte, CipherLen(len(plain)))
			for i := range 20 {
				first := uint64(g*1000 + i)
				sealer := s
				if i%5 == 4 { // enough sessions to turn the ring over
					sealer = must(c.NewSealer(newStream(byte(g*20 + i))))
				}
				if err := sealer.Seal(records, plain, first); err != nil {
					t.Error(err)
				}
				if got, err := openAll(c, records, first); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("goroutine %d, round %d: %v", g, i, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestBlocksAllocateNothing(t *testing.T) {
	c, s := testBlocks(1)
	plain := make([]byte, 32*BlockSize)
	records := make([]byte, CipherLen(len(plain)))
	block := make([]byte, BlockSize)
	wantNoAllocs(t, "BlockSealer.Seal", func() {
		if err := s.Seal(records, plain, 0); err != nil {
			t.Fatal(err)
		}
	})
	wantNoAllocs(t, "BlockCipher.Open", func() {
		for i := range 32 {
			if err := c.Open(block, records[i*CipherBlockSize:][:CipherBlockSize], uint64(i)); err != nil {
				t.Fatal(err)
			}
		}
	})
	wantNoAllocs(t, "IsHole and RecordTag", func() {
		if IsHole(records) || RecordTag(records) == [16]byte{} {
			t.Fatal("not a block")
		}
	})
}

func TestHoleIsAllZeros(t *testing.T) {
	for _, n := range []int{1, 7, 41, 100, CipherBlockSize - 1, CipherBlockSize} {
		b := make([]byte, n)
		if !IsHole(b) {
			t.Errorf("%d zeros are no hole", n)
		}
		for i := range b {
			b[i] = 1
			if IsHole(b) {
				t.Errorf("%d bytes with a one at %d are a hole", n, i)
			}
			b[i] = 0
		}
		if IsHole(bytes.Repeat([]byte{3}, n)) {
			t.Errorf("%d equal bytes are a hole", n)
		}
	}
	if IsHole(nil) {
		t.Error("nothing is a hole")
	}
}

func TestRecordTagIsTheEndOfTheRecord(t *testing.T) {
	record := randomBytes(1, 60)
	if got := RecordTag(record); !bytes.Equal(got[:], record[44:]) {
		t.Errorf("tag %x", got)
	}
	wantPanic(t, "the tag of 15 bytes", func() { RecordTag(record[:15]) })
}

func FuzzOpenBlock(f *testing.F) {
	c, s := testBlocks(1)
	record := make([]byte, CipherLen(33))
	if err := s.Seal(record, randomBytes(1, 33), 3); err != nil {
		f.Fatal(err)
	}
	parses := func(b []byte) bool { return c.Open(make([]byte, max(len(b)-BlockOverhead, 0)), b, 3) == nil }
	addSeeds(f, parses, record, make([]byte, 41), make([]byte, 40), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if parses(b) && !bytes.Equal(b, record) {
			t.Errorf("%x opens, and was never sealed", b)
		}
	})
}

// BenchmarkSeal and BenchmarkOpen include the root's terms, as writing and checking a file do.
func BenchmarkSeal(b *testing.B) {
	for _, blocks := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("%dKiB", blocks*4), func(b *testing.B) {
			_, s := testBlocks(1)
			root := NewRooter(testKey(2))
			plain := make([]byte, blocks*BlockSize)
			records := make([]byte, CipherLen(len(plain)))
			var sum [16]byte
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Seal(records, plain, 0); err != nil {
					b.Fatal(err)
				}
				root.XORRecords(&sum, records, 0)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	c, s := testBlocks(1)
	root := NewRooter(testKey(2))
	plain, record := make([]byte, BlockSize), make([]byte, CipherBlockSize)
	if err := s.Seal(record, plain, 0); err != nil {
		b.Fatal(err)
	}
	var sum [16]byte
	b.SetBytes(BlockSize)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Open(plain, record, 0); err != nil {
			b.Fatal(err)
		}
		XORRoot(&sum, root.Term(0, RecordTag(record)))
	}
}

func BenchmarkOpenWithManySessions(b *testing.B) {
	c, _ := testBlocks(1)
	plain := make([]byte, BlockSize)
	records := make([][]byte, 2*ringSlots)
	for i := range records {
		records[i] = make([]byte, CipherBlockSize)
		if err := must(c.NewSealer(newStream(byte(i)))).Seal(records[i], plain, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(BlockSize)
	i := 0
	for b.Loop() {
		if err := c.Open(plain, records[i%len(records)], 0); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkIsHole(b *testing.B) {
	record := make([]byte, CipherBlockSize)
	b.SetBytes(CipherBlockSize)
	for b.Loop() {
		if !IsHole(record) {
			b.Fatal("not a hole")
		}
	}
}
