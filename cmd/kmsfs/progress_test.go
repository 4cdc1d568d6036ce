package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// clockedProgress is one whose time the test sets.
func clockedProgress(width int, every time.Duration) (*progress, *bytes.Buffer, *time.Time) {
	out, now := new(bytes.Buffer), time.Unix(1000, 0)
	return &progress{
		out: out, what: "rewrap", unit: count, every: every,
		width: func() int { return width }, now: func() time.Time { return now },
	}, out, &now
}

func TestProgressIsPlainLinesWhereThereIsNoTerminal(t *testing.T) {
	p, out, now := clockedProgress(0, progressLine)
	for i := range 26 { // one update a second
		p.update(int64(i)*1000, 100_000)
		*now = now.Add(time.Second)
	}
	p.end()
	want := "kmsfs: rewrap: 1,000 of 100,000 (1 %), 1,000/s, 1m39s left\n" +
		"kmsfs: rewrap: 11,000 of 100,000 (11 %), 1,000/s, 1m29s left\n" +
		"kmsfs: rewrap: 21,000 of 100,000 (21 %), 1,000/s, 1m19s left\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out, want)
	}
}

func TestProgressOfMixedWorkShowsTheShareThatIsDone(t *testing.T) {
	p, out, now := clockedProgress(0, progressLine)
	p.unit = nil
	p.update(0, 0)
	*now = now.Add(2 * time.Second)
	p.update(1<<30, 4<<30)
	if want := "kmsfs: rewrap: 25 %, 6s left\n"; out.String() != want {
		t.Errorf("%q, want %q", out, want)
	}
}

func TestProgressOfWhatHasNoKnownEndShowsHowMuchIsDone(t *testing.T) {
	p, out, now := clockedProgress(0, progressLine)
	p.unit = byteSize
	p.update(0, 0)
	*now = now.Add(2 * time.Second)
	p.update(3<<30, 0)
	if want := "kmsfs: rewrap: 3.0 GiB, 1.5 GiB/s\n"; out.String() != want {
		t.Errorf("%q, want %q", out, want)
	}
}

func TestProgressOnATerminalIsABarThatMessagesReplace(t *testing.T) {
	p, out, now := clockedProgress(80, progressBar)
	p.update(0, 200)
	*now = now.Add(time.Second)
	p.update(100, 200)
	const bar = "\r[#################..................] rewrap: 100 of 200 (50 %), 100/s, 1s left\x1b[K"
	if out.String() != bar {
		t.Errorf("%q, want %q", out, bar)
	}
	if n := len([]rune(strings.Trim(bar, "\r"))) - len("\x1b[K"); n > 80 {
		t.Errorf("%d characters on a line of 80", n)
	}
	out.Reset()
	*now = now.Add(progressBar / 2)
	p.update(105, 200)
	if out.Len() != 0 {
		t.Errorf("drawn again after 50 ms: %q", out)
	}
	if _, err := io.WriteString(p, "kmsfs: something\n"); err != nil || out.String() != "\r\x1b[Kkmsfs: something\n" {
		t.Errorf("%v, %q", err, out)
	}
	out.Reset()
	p.end()
	if out.Len() != 0 {
		t.Errorf("nothing stood there to be taken away: %q", out)
	}
}

func TestWhatIsDoneAtOnceShowsNoProgress(t *testing.T) {
	for _, every := range []time.Duration{progressBar, progressLine} {
		p, out, now := clockedProgress(80, every)
		for i := range 9 {
			p.update(int64(i), 8)
			*now = now.Add(100 * time.Millisecond)
		}
		p.end()
		if out.Len() != 0 {
			t.Errorf("%q", out)
		}
	}
}

func TestNumbersAreShownForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536 << 20: "1.5 GiB", 1 << 62: "4.0 EiB"} {
		if got := byteSize(n); got != want {
			t.Errorf("byteSize(%d) = %q, want %q", n, got, want)
		}
	}
}
