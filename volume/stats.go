package volume

// Stats is what can be said of an open volume at a moment.
type Stats struct {
	Generation uint64 // of the volume.json that it goes by
	CachedKeys int    // unwrapped data keys of files
	PooledKeys int    // unwrapped data keys of files that are not made yet
}

// Stats returns the present numbers.
func (v *Volume) Stats() Stats {
	s := Stats{Generation: v.conf().Generation, CachedKeys: v.keys.size()}
	if v.pool != nil {
		s.PooledKeys = v.pool.size()
	}
	return s
}
