package volume

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// needless are barriers whose loss no state shows, and why they stay.
var needless = map[string]string{
	"fsync of shelf of sidecars, by Rewrap run syncShelf": "the syncfs at the end of a rewrap does it, too; " +
		"without it a power cut would take back all of a long one",
	"fsync of replacement for volume.json.bak, by Rewrap run writeTemporary": "a copy for repairs, which no mount reads",
	"fsync of directory, by Sync payParents syncInside": "the names of the new directories above a file that is synced: " +
		"as ext4 does, though nothing is promised of names that were not synced themselves",
	"fsync of directory, by Rename run syncInside": "likewise, of the directory that a synced file moves to; " +
		"the models keep the order within a directory",
}

// The test of power loss finds out about every barrier: without it, some state
// breaks a promise.
func TestEveryBarrierIsNeeded(t *testing.T) {
	seed := drawSeed()
	t.Logf("-powerloss.seed %d", seed)
	broken := map[string]string{}
	for _, p := range []powerLoss{{ModeFile, true}, {ModeFile, false}} {
		l, h := p.record(t, seed, 0, nil)
		if v := l.try(h, seed, p.strict, false, 500); len(v.violations) > 0 {
			t.Fatalf("%s, with all barriers: %d violations, such as: %s", p, len(v.violations), v.violations[0])
		}
		for class := range l.rec.seen {
			if needless[class] == "" && (broken[class] == "" || strings.HasPrefix(broken[class], "nothing")) {
				broken[class] = p.without(t, seed, class)
			}
		}
	}
	for _, class := range slices.Sorted(maps.Keys(broken)) {
		if strings.HasPrefix(broken[class], "nothing") {
			t.Errorf("%s: left out, %s", class, broken[class])
		} else {
			t.Logf("%s: left out, %s", class, broken[class])
		}
	}
}

// without says what goes wrong without a class of barriers.
func (p powerLoss) without(t *testing.T, seed uint64, class string) string {
	l, h := p.record(t, seed, 0, func(c string) bool { return c == class })
	states := 0
	for batch := uint64(0); batch < 30; batch++ {
		v := l.try(h, seed+batch, p.strict, false, 100)
		states += v.states
		if len(v.violations) > 0 {
			return fmt.Sprintf("%s: %d violations in %d states, such as: %s", p, len(v.violations), states, v.violations[0])
		}
	}
	return fmt.Sprintf("nothing is wrong in %d states", states)
}
