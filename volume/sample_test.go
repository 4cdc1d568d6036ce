package volume

import (
	"flag"
	"hash/fnv"
	"math/rand/v2"
)

var sampleSeed = flag.Uint64("sample.seed", 1, "which of the instants and calls the tests of operations take that do not take all")

// sample takes one of so many in turn, beginning where the seed says.
type sample struct{ every, turn int }

// sampleOf is a sample for what has that name. The race detector makes everything
// slower, and finds nothing in the rest that it does not find in these.
func sampleOf(name string, all bool, every, withRace int) *sample {
	switch {
	case all:
		every = 1
	case raceDetector:
		every = withRace
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return &sample{every, rand.New(rand.NewPCG(*sampleSeed, h.Sum64())).IntN(every)}
}

func (s *sample) takes() bool {
	s.turn++
	return s.turn%s.every == 0
}
