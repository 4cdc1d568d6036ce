package integration

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kmsfs/crypto"
)

// TestWorkedSizesOfTheFormatAreRight computes the table of backing sizes in docs/FORMAT.md again.
func TestWorkedSizesOfTheFormatAreRight(t *testing.T) {
	var seen []int64
	for _, row := range readTable(t, "../docs/FORMAT.md", "plaintext", "blocks", "backing file") {
		plain, blocks, backing := number(t, row[0]), number(t, row[1]), number(t, row[2])
		seen = append(seen, plain)
		if got, err := crypto.CipherSize(plain); err != nil || got != backing {
			t.Errorf("%d bytes: docs/FORMAT.md says a backing file of %d, it has %d (%v)", plain, backing, got, err)
		}
		if got := crypto.BlockCount(plain); got != uint64(blocks) {
			t.Errorf("%d bytes: docs/FORMAT.md says %d blocks, there are %d", plain, blocks, got)
		}
	}
	if want := []int64{0, 1, 4096, 4097, 5000}; !slices.Equal(seen, want) {
		t.Errorf("docs/FORMAT.md works out sizes %d, want %d", seen, want)
	}
}

// TestLengthsOfTheFormatAreRight computes other lengths that docs/FORMAT.md gives in its text.
func TestLengthsOfTheFormatAreRight(t *testing.T) {
	b, err := os.ReadFile("../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(b)), " ")
	sidecar := func(k crypto.WrappedKey) int {
		b, err := (&crypto.Sidecar{Keys: []crypto.WrappedKey{k}}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return len(b)
	}
	local := crypto.WrappedKey{Provider: "local", KeyID: strings.Repeat("k", 71), Wrapped: make([]byte, 121)}
	for _, want := range []string{
		fmt.Sprintf("Such a sidecar has %d bytes", sidecar(crypto.WrappedKey{Provider: "volume", Wrapped: make([]byte, crypto.WrappedDataKeySize)})),
		fmt.Sprintf("a sidecar with one has %d bytes", sidecar(local)),
		"None has more than " + grouped(crypto.MaxSidecarSize),
		fmt.Sprintf("%d bytes in `.kmsfs.dir`", crypto.DirRecordSize),
		"A target of more than " + grouped(crypto.MaxInlineSymlink) + " bytes",
		fmt.Sprintf("up to %d. What is over %d characters", crypto.MaxEncryptedName, crypto.MaxBackingName),
		fmt.Sprintf("names of at most %d bytes with their namespace", crypto.MaxXattrName),
		fmt.Sprintf("Block i begins at %s + %s i", grouped(crypto.HeaderSize), grouped(crypto.CipherBlockSize)),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("docs/FORMAT.md does not say %q", want)
		}
	}
}

// grouped writes 5000 as 5,000.
func grouped(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", grouped(n/1000), n%1000)
}

func number(t *testing.T, cell string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.ReplaceAll(cell, ",", ""), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
