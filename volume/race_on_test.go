//go:build race

package volume

// raceDetector: the race detector makes everything take many times as long, so that
// exhaustive tests try a part.
const raceDetector = true
