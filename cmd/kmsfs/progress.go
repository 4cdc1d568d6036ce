package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows how far something is that takes long: on a terminal a bar with
// rate and time left, else a line now and then. What ends within progressAfter
// shows nothing. It is safe for concurrent use, and is written through by
// whoever logs meanwhile, so that a message never lands behind a bar.
type progress struct {
	out   io.Writer
	what  string
	unit  func(int64) string
	every time.Duration
	width func() int // of the terminal, in characters; 0 where it is none
	now   func() time.Time

	mu      sync.Mutex
	started time.Time
	shown   time.Time
	done    int64
	bar     bool // one stands on the last line
}

const (
	progressAfter = time.Second
	progressBar   = 100 * time.Millisecond // between two looks of the bar
	progressLine  = 10 * time.Second       // between two lines
)

// newProgress shows on stderr. unit formats numbers, as count does; nil shows
// none, but how much of the whole is done.
func (a *app) newProgress(what string, unit func(int64) string) *progress {
	p := &progress{out: a.stderr, what: what, unit: unit, every: progressLine, width: func() int { return 0 }, now: time.Now}
	f, ok := a.stderr.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) && a.getenv("TERM") != "dumb" {
		p.every = progressBar
		p.width = func() int {
			w, _, err := term.GetSize(int(f.Fd()))
			if err != nil || w < 40 {
				return 40
			}
			return w
		}
	}
	return p
}

// update says that done of total are done; of 0 where the whole is not known.
// Fewer than before means that it begins anew.
func (p *progress) update(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.started.IsZero() || done < p.done {
		p.started, p.shown = now, now.Add(progressAfter-p.every)
	}
	p.done = done
	if now.Sub(p.shown) < p.every {
		return
	}
	p.shown = now
	text := p.text(done, total, now.Sub(p.started))
	width := p.width()
	if width == 0 {
		say(p.out, "%s", text)
		return
	}
	p.bar = true
	fmt.Fprintf(p.out, "\r%s%s\x1b[K", p.drawing(done, total, width-len(text)-1), text)
}

// text is "rewrap: 431 of 10,000 (4 %), 812/s, 12s left", or without a unit
// "reencrypt: 4 %, 12s left". Where the whole is not known, it is "encrypt: 3.1
// GiB, 812.0 MiB/s".
func (p *progress) text(done, total int64, took time.Duration) string {
	var b strings.Builder
	percent := int64(100)
	if total > 0 {
		percent = done * 100 / total
	}
	perSecond := float64(done) / max(took.Seconds(), 1e-3)
	switch {
	case p.unit != nil && total == 0:
		fmt.Fprintf(&b, "%s: %s, %s/s", p.what, p.unit(done), p.unit(int64(perSecond)))
	case p.unit == nil:
		fmt.Fprintf(&b, "%s: %d %%", p.what, percent)
	default:
		fmt.Fprintf(&b, "%s: %s of %s (%d %%), %s/s", p.what, p.unit(done), p.unit(total), percent, p.unit(int64(perSecond)))
	}
	if left := time.Duration(float64(total-done) / perSecond * float64(time.Second)); done > 0 && left > 0 {
		fmt.Fprintf(&b, ", %s left", left.Round(time.Second))
	}
	return b.String()
}

// drawing is a bar in that many characters, or nothing where it would be tiny.
func (p *progress) drawing(done, total int64, width int) string {
	width = min(width-3, 40)
	if width < 5 || total <= 0 {
		return ""
	}
	full := int(min(done, total) * int64(width) / total)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] "
}

// Write writes a message in the place of the bar, which comes back by itself.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	return p.out.Write(b)
}

// end takes the bar away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.bar {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.bar = false
	}
}

// count is a number with a comma after each three digits.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// byteSize is a number of bytes in the binary unit that leaves one to four digits.
func byteSize(n int64) string {
	const units = "KMGTPE"
	size, unit := float64(n), -1
	for size >= 1024 && unit < len(units)-1 {
		size /= 1024
		unit++
	}
	if unit < 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", size, units[unit])
}
