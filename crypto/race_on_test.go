//go:build race

package crypto

// raceDetector: sync.Pool drops items at random under it, so allocations cannot be counted.
const raceDetector = true
