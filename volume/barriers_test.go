package volume

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// needless are barriers whose loss no state shows, and why they stay.
var needless = map[string]string{
	"fsync of replacement for volume.json.bak": "a copy for repairs, which no mount reads",
}

// The test of power loss finds out about every barrier: without it, some state
// breaks a promise.
func TestEveryBarrierIsNeeded(t *testing.T) {
	p := powerLoss{ModeFile, true}
	seed := drawSeed()
	t.Logf("-powerloss.seed %d", seed)
	l, h := p.record(t, seed, 0, nil)
	if v := l.try(h, seed, p.strict, true, 300); len(v.violations) > 0 {
		t.Fatalf("with all barriers: %d violations, such as: %s", len(v.violations), v.violations[0])
	}
	for _, class := range slices.Sorted(maps.Keys(l.rec.seen)) {
		what, _, _ := strings.Cut(class, ", by ")
		if why := needless[what]; why != "" {
			t.Logf("%s: %s", class, why)
			continue
		}
		l, h := p.record(t, seed, 0, func(c string) bool { return c == class })
		var sum verdict
		for batch := uint64(0); len(sum.violations) == 0 && batch < 40; batch++ {
			v := l.try(h, seed+batch, p.strict, false, 100)
			sum.add(&v)
		}
		if len(sum.violations) == 0 {
			t.Errorf("%s: left out %d times, and nothing is wrong in %d states", class, l.rec.seen[class], sum.states)
			continue
		}
		t.Logf("%s: left out %d times, %d violations in %d states, such as: %s", class, l.rec.seen[class], len(sum.violations), sum.states, sum.violations[0])
	}
}
