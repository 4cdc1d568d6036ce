package volume

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// cutAgain makes a state a store, mounts and settles it, and loses the power a
// second time meanwhile: what had been acknowledged before the first time is there
// after the second one, too.
func (l *crashLoad) cutAgain(first *crashState, dir string, strict bool, sampled int) *verdict {
	c := &check{crashLoad: l, k: first.k, tree: first.tree, strict: strict}
	defer os.RemoveAll(dir)
	st, h, err := first.restart(filepath.Join(dir, "first"))
	if err != nil {
		c.violation("the test itself: %v", err)
		return &c.verdict
	}
	rec := newRecorder(l.t, st.was(), st.backing(), st.hosts())
	before := map[*object]*object{}
	for _, o := range rec.objects {
		before[o] = st.inodes[o.ino]
	}
	if !l.recover(c, st, rec) {
		return &c.verdict
	}
	again := newHistory(rec)
	rng := rand.New(rand.NewPCG(first.seed, 5))
	for i := range sampled {
		k := 1 + rng.IntN(len(again.log))
		if at := pickOne(rng, again.barriers); rng.IntN(2) == 0 && at > 0 {
			k = at
		}
		model := crashModel(rng.IntN(int(crashModels)))
		s := again.moment(k).crash(model, rng.Uint64())
		second, now, err := s.restart(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			c.violation("the test itself: %v", err)
			return &c.verdict
		}
		inos := map[uint64]uint64{}
		for ino, o := range second.inodes {
			if inos[ino] = o.ino | madeSince; before[o] != nil {
				inos[ino] = before[o].ino
			}
		}
		of := &check{
			crashLoad: l, k: first.k, tree: translated(s.tree, before), strict: strict,
			phase: fmt.Sprintf("cut again before event %d (%s; state seed %d): ", k, model, s.seed),
		}
		of.clean = !h.Open
		of.mounts(second, now, restarted{inos: inos}, false)
		c.verdict.add(&of.verdict)
		os.RemoveAll(second.dir)
	}
	return &c.verdict
}

// recover mounts a store after a power cut, settles it and ends the mount, and
// tells whether it could.
func (l *crashLoad) recover(c *check, st store, rec *recorder) bool {
	v, err := Open(context.Background(), st.backing(), l.optionsAfter(c.k, st, c.strict, rec))
	if err == nil {
		_, err = v.Settle(context.Background())
		if cerr := v.Close(); err == nil {
			err = cerr
		}
	}
	rec.now()
	rec.stop()
	if err != nil {
		c.violation("before the second power cut: %v", err)
	}
	return err == nil
}

// translated is a tree with the objects that were there before; what was made
// since is not in it.
func translated(tree map[*object]map[string]*object, before map[*object]*object) map[*object]map[string]*object {
	out := map[*object]map[string]*object{}
	for dir, entries := range tree {
		if before[dir] == nil {
			continue
		}
		out[before[dir]] = map[string]*object{}
		for name, o := range entries {
			if before[o] != nil {
				out[before[dir]][name] = before[o]
			}
		}
	}
	return out
}
