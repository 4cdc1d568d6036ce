package volume

import "golang.org/x/sys/unix"

import "time"

// Stats is what can be said of an open volume at a moment.
type Stats struct {
	Generation uint64    // of the volume.json that it goes by
	CachedKeys int       // unwrapped data keys of files
	PooledKeys int       // unwrapped data keys of files that are not made yet
	Settling   *Settling // the check after a power cut; nil if none is under way
	Unsettled  bool      // after a power cut mismatches are accepted still
	Closed     error     // why calls fail that need keys; nil if they do not

	// Since the volume was opened; final once it is closed.
	Discarded int    // pooled keys that no file was made for
	Ahead     uint64 // keys unwrapped ahead of a reader, who then asked for them
	InVain    uint64 // keys unwrapped ahead that nobody asked for
	// Waited is how long calls waited for data keys, added up: what the pool and
	// the keys unwrapped ahead did not hide.
	Waited time.Duration
}

// Stats returns the present numbers.
func (v *Volume) Stats() Stats {
	s := Stats{
		Generation: v.conf().Generation, CachedKeys: v.keys.size(),
		Settling: v.settling.now(), Unsettled: v.accepting(),
	}
	s.Ahead, s.InVain = v.keys.aheadCounts()
	s.Waited = time.Duration(v.keys.waited.Load())
	if v.pool != nil {
		s.Waited += time.Duration(v.pool.waited.Load())
		s.PooledKeys, s.Discarded = v.pool.counts()
	}
	if v.custody.gate.state.Load() != gateOpen {
		s.Closed = *v.custody.gate.reason.Load()
	}
	return s
}

// Statfs reports on the file system below.
func (v *Volume) Statfs() (unix.Statfs_t, error) {
	var st unix.Statfs_t
	err := v.backing.Statfs(v.rootDesc.fd, &st)
	return st, err
}
