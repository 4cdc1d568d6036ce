package volume

import (
	"errors"
	"time"

	"kmsfs/kmsprovider"
)

// pace says how many calls to a KMS have to be under way so that nobody waits
// for one: by Little's law, as many as are asked for while one of them lasts,
// and twice that, so that a guess that is too small corrects itself. Whoever
// waits asks as slowly as the calls come back, so the number doubles with every
// call's time until it is enough. After a failure it starts from one again, and
// grows by one with every call that succeeds. The owner's lock guards it.
type pace struct {
	least, most int // calls under way

	call  time.Duration // what a call takes; 0 if not known
	gap   time.Duration // between two requests, smoothed; 0 if not known
	last  time.Time     // of the last request
	limit int           // after a failure, calls under way; 0 if there was none

	failures int // in a row
	rest     time.Time
}

// Bounds of the rest after failures: it doubles with each.
const (
	firstRest = 100 * time.Millisecond
	longRest  = 30 * time.Second
)

// asked notes that somebody asked for a key.
func (p *pace) asked(now time.Time) {
	gap := now.Sub(p.last)
	if p.last.IsZero() {
		gap = 0
	}
	p.last = now
	// A longer gap says no more than that one call at a time is enough.
	gap = min(gap, 2*p.call)
	if p.gap == 0 {
		p.gap = gap
		return
	}
	p.gap += (gap - p.gap) / 8
}

// took notes how long a call lasted that succeeded. One that was slow by chance
// counts for little: the estimate falls at once and rises by a factor of two.
func (p *pace) took(d time.Duration) {
	d = max(d, 1)
	if p.call != 0 {
		d = min(d, 2*p.call)
	}
	p.call = d
	p.failures, p.rest = 0, time.Time{}
	if p.limit > 0 {
		if p.limit++; p.limit >= p.most {
			p.limit = 0
		}
	}
}

// failed notes a failure, after which only what somebody waits for is worth a call.
func (p *pace) failed(now time.Time, err error) {
	p.rest = now.Add(min(firstRest<<min(p.failures, 16), longRest))
	p.failures++
	if errors.Is(err, kmsprovider.ErrThrottled) {
		p.limit = max(1, p.width()/2)
	} else {
		p.limit = 1
	}
}

// resting tells whether calls fail at present.
func (p *pace) resting(now time.Time) bool { return now.Before(p.rest) }

// quickCall is the time below which a call goes nowhere: nothing is waited for, and
// several at once only compete with who wants the keys.
const quickCall = time.Millisecond

// width is how many calls to have under way.
func (p *pace) width() int {
	least := p.least
	if p.call > 0 && p.call < quickCall {
		least = 1
	}
	width := least
	if p.gap > 0 {
		width = int(2 * p.call / p.gap)
	}
	width = min(max(width, least), p.most)
	if p.limit > 0 {
		width = min(width, p.limit)
	}
	return width
}
