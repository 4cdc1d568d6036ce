package crypto

import (
	"errors"
	"math"
	"testing"
)

func TestConstantsAreThoseOfTheFormat(t *testing.T) {
	if HeaderSize != 144 || RecordOffset != 24 || CipherBlockSize != 4136 || BlockOverhead != 40 || DirRecordSize != 112 ||
		HeaderSize-RecordOffset != 120 || MaxInlineSymlink != 3031 || MaxEncryptedName != 363 || MaxXattrName != 167 || WrappedDataKeySize != 72 {
		t.Error("a constant has moved")
	}
}

// TestLayoutCountsBytesOneByOne grows a file by single bytes and keeps count by hand.
func TestLayoutCountsBytesOneByOne(t *testing.T) {
	cipher, blocks := int64(144), uint64(0)
	for plain := int64(0); plain <= 3*BlockSize+2; plain++ {
		if plain > 0 {
			if (plain-1)%4096 == 0 { // this byte begins a block
				cipher += 40
				blocks++
			}
			cipher++
		}
		if got, err := CipherSize(plain); err != nil || got != cipher {
			t.Fatalf("CipherSize(%d) = %d, %v; want %d", plain, got, err, cipher)
		}
		if got, err := PlainSize(cipher); err != nil || got != plain {
			t.Fatalf("PlainSize(%d) = %d, %v; want %d", cipher, got, err, plain)
		}
		if got := CipherLen(int(plain)); got != int(cipher)-144 {
			t.Fatalf("CipherLen(%d) = %d; want %d", plain, got, cipher-144)
		}
		if got := BlockCount(plain); got != blocks {
			t.Fatalf("BlockCount(%d) = %d; want %d", plain, got, blocks)
		}
		sum := int64(0)
		for i := range blocks {
			n := BlockLen(plain, i)
			if n < 1 || n > 4096 || (n < 4096 && i != blocks-1) || BlockIndex(sum) != i || BlockIndex(sum+int64(n)-1) != i {
				t.Fatalf("file of %d: block %d at %d has %d bytes", plain, i, sum, n)
			}
			if got, want := BlockOffset(i), 144+sum+40*int64(i); got != want {
				t.Fatalf("BlockOffset(%d) = %d, want %d", i, got, want)
			}
			sum += int64(n)
		}
		if sum != plain || BlockLen(plain, blocks) != 0 || BlockLen(plain, math.MaxUint64) != 0 {
			t.Fatalf("blocks of a file of %d sum to %d", plain, sum)
		}
	}
}

func TestTornTailsAndShortHeadersAreToldApart(t *testing.T) {
	for cipher := int64(-1); cipher < 144+2*CipherBlockSize+50; cipher++ {
		plain, err := PlainSize(cipher)
		floor := PlainSizeFloor(cipher)
		tail := (cipher - 144) % CipherBlockSize
		switch {
		case cipher < 144:
			if !errors.Is(err, ErrShortHeader) || floor != 0 {
				t.Errorf("PlainSize(%d): %v, floor %d", cipher, err, floor)
			}
		case tail >= 1 && tail <= 40:
			if want := (cipher - 144) / CipherBlockSize * BlockSize; !errors.Is(err, ErrTornTail) || floor != want {
				t.Errorf("PlainSize(%d): %v, floor %d, want %d", cipher, err, floor, want)
			}
		case err != nil || floor != plain:
			t.Errorf("PlainSize(%d) = %d, %v; floor %d", cipher, plain, err, floor)
		}
	}
	if got := PlainSizeFloor(math.MinInt64); got != 0 {
		t.Errorf("PlainSizeFloor(min) = %d", got)
	}
}

func TestLargestFileFillsTheLastCipherByte(t *testing.T) {
	cipher, err := CipherSize(MaxFileSize)
	if err != nil || cipher < 0 || math.MaxInt64-cipher > BlockOverhead {
		t.Errorf("CipherSize(%d) = %d, %v: %d bytes are left", MaxFileSize, cipher, err, math.MaxInt64-cipher)
	}
	if got, err := PlainSize(cipher); err != nil || got != MaxFileSize {
		t.Errorf("PlainSize(%d) = %d, %v", cipher, got, err)
	}
	if got := PlainSizeFloor(math.MaxInt64); got != MaxFileSize {
		t.Errorf("PlainSizeFloor(max) = %d", got)
	}
	last := BlockCount(MaxFileSize) - 1
	if got := BlockOffset(last) + int64(BlockLen(MaxFileSize, last)) + 40; got != cipher {
		t.Errorf("the last block ends at %d, the file at %d", got, cipher)
	}
	if BlockCount(math.MaxInt64) != 1<<51 || BlockCount(-1) != 0 {
		t.Error("BlockCount overflows")
	}
	for _, bad := range []int64{-1, math.MinInt64, MaxFileSize + 1, math.MaxInt64} {
		_, err := CipherSize(bad)
		wantError(t, err, ErrTooLarge)
	}
}

func FuzzSizes(f *testing.F) {
	for _, n := range []int64{0, 1, 143, 144, 145, 184, 185, 4280, 4281, MaxFileSize, math.MaxInt64, -1} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		if plain, err := PlainSize(n); err == nil {
			if back, err := CipherSize(plain); err != nil || back != n {
				t.Errorf("%d → %d → %d, %v", n, plain, back, err)
			}
		}
		if floor := PlainSizeFloor(n); floor < 0 || floor > max(n, 0) {
			t.Errorf("PlainSizeFloor(%d) = %d", n, floor)
		}
		if cipher, err := CipherSize(n); err == nil {
			if back, err := PlainSize(cipher); err != nil || back != n {
				t.Errorf("%d → %d → %d, %v", n, cipher, back, err)
			}
		}
	})
}
