package volume

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// isReading tells whether a call asks the store for something.
func isReading(c call) bool {
	switch c.op {
	case "close", "fsync", "fdatasync", "syncfs":
		return false
	}
	return !c.changes
}

// blindness is a tap's through for which one call that reads fails.
type blindness struct {
	at  int // from 1; 0 fails none
	err error

	mu    sync.Mutex
	calls []call
}

func (d *blindness) through(c call, do func(int) error) error {
	if !isReading(c) {
		return idle(c, do)
	}
	d.mu.Lock()
	d.calls = append(d.calls, c)
	hit := len(d.calls) == d.at
	d.mu.Unlock()
	if hit {
		return d.err
	}
	return do(c.bytes)
}

// sidecarsNow are the IDs of all sidecars.
func (b *bench) sidecarsNow() map[crypto.ID]bool {
	b.t.Helper()
	v, err := b.tryOpen(func(o *Options) { o.ReadOnly = true })
	ok(b.t, err)
	ids, err := v.sidecars.list(false)
	ok(b.t, err)
	b.close(v)
	out := make(map[crypto.ID]bool)
	for _, id := range ids {
		out[id] = true
	}
	return out
}

// seenContents is what can be read without a write to the volume.
func (b *bench) seenContents() map[string]string {
	b.t.Helper()
	v, err := b.tryOpen(func(o *Options) { o.ReadOnly = true })
	ok(b.t, err)
	defer b.close(v)
	return contents(b.t, v)
}

// briefFindings names findings, whatever their words are.
func briefFindings(r *FsckReport) (out []string) {
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s %v %s", f.Kind, f.Harmless, unhashed([]string{f.Path})[0]))
	}
	slices.Sort(out)
	return out
}

// A repair to which the store does not give something takes nothing away for it,
// and says what it was.
func TestARepairWhoseReadsFailAnywhereLosesNothing(t *testing.T) {
	tried, hit, failed, told := 0, map[string]int{}, 0, 0
	for _, c := range damageCases {
		t.Run(c.name, func(t *testing.T) {
			b := newBenchIn(t, fastPlace(t), ModeFile, newFakeKMS())
			b.store = &tap{Backing: System{}, through: idle}
			intact, at := b.furnished()
			c.do(t, b, at)
			b.close(b.open()) // what a mount finishes is another test's
			readable, before := b.seenContents(), b.sidecarsNow()
			saved := b.save()

			count := &blindness{}
			reference, err := b.fsck(FsckOptions{Repair: true, Jobs: 1}, withTap(&tap{Backing: System{}, through: count.through}))
			ok(t, err)
			kept := b.sidecarsNow()
			sampled := sampleOf(c.name, *faultAll, 197, 797)
			for n := range count.calls {
				for _, fault := range []unix.Errno{unix.EIO, unix.EACCES} {
					if !sampled.takes() {
						continue
					}
					b.load(saved)
					blind := &blindness{at: n + 1, err: fault}
					r, err := b.fsck(FsckOptions{Repair: true, Jobs: 1}, withTap(&tap{Backing: System{}, through: blind.through}))
					if len(blind.calls) < blind.at {
						continue // not every repair makes as many
					}
					what := fmt.Sprintf("%v at call %d, %+v", fault, n+1, blind.calls[n])
					tried++
					hit[blind.calls[n].op]++
					switch {
					case err != nil:
						failed++
						if !errors.Is(err, fault) || err.Error() == fault.Error() {
							t.Errorf("%s: the repair ends with %v", what, err)
						}
					case strings.Contains(show(r), fault.Error()):
						told++
					case !slices.Equal(briefFindings(r), briefFindings(reference)):
						t.Errorf("%s: without a word of it, another repair:%s\nnot:%s", what, show(r), show(reference))
					}
					after := b.seenContents()
					wantKept(t, readable, after)
					for id := range before {
						if kept[id] && !b.sidecarsNow()[id] {
							t.Errorf("%s: a key is gone that another repair keeps: %s", what, id)
						}
					}
					b.mustFsck(FsckOptions{Repair: true})
					c.wantSettled(t, b.mustFsck(FsckOptions{Repair: true}))
					c.wantNothingLost(t, b, intact, readable)
					if t.Failed() {
						t.Fatalf("%s; the repair: %v%s", what, err, showIf(r))
					}
				}
			}
		})
	}
	t.Logf("%d faults: %v; %d ended the repair, %d were findings", tried, hit, failed, told)
	if tried < 25 || failed == 0 || told == 0 {
		t.Error("hardly anything failed")
	}
}

func showIf(r *FsckReport) string {
	if r == nil {
		return ""
	}
	return show(r)
}

// wantKept wants everything that could be read to be somewhere.
func wantKept(t *testing.T, before, after map[string]string) {
	t.Helper()
	have := slices.Collect(maps.Values(after))
	for p, content := range before {
		if content == "error" || content == "directory" || after[p] == content || slices.Contains(have, content) {
			continue
		}
		t.Errorf("%q could be read before the repair, and cannot now", p)
	}
}
