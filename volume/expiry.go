package volume

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Cache is what keeps plaintext of the volume outside of it: the kernel of a
// mount. Its methods call back into the volume, by way of the kernel's writes,
// and are called without any lock.
type Cache interface {
	// DropFile writes back and drops what is cached of a file's content.
	DropFile(n *Node)
	// DropAll does so with every file, and drops all else too: attributes, names,
	// targets. Meanwhile calls other than writes fail. Nothing that a program was
	// told is written may be left when it returns.
	DropAll()
}

// SetCache says what caches plaintext. It is called before anything is cached.
func (v *Volume) SetCache(c Cache) { v.cache.Store(&c) }

// dropPages has the pages of files written back, with the keys that there are,
// and dropped.
func (v *Volume) dropPages(files []*Node) {
	c := v.cache.Load()
	if c == nil {
		return
	}
	for _, n := range files {
		(*c).DropFile(n)
	}
}

// bootTime is a clock that goes on while the machine sleeps, and that nobody sets.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("volume: read clock: " + err.Error()) // no Linux that Go runs on lacks it
	}
	return time.Duration(ts.Nano())
}

const (
	// expirySteps is in how many steps a key's life is measured: it ends up to
	// one of them early, and never late.
	expirySteps = 16
	// maxExpiryStep bounds a step, for a machine that slept.
	maxExpiryStep = 30 * time.Second
	// expiryWorkers is how many files' pages are written back at once.
	expiryWorkers = 8
)

func (v *Volume) expiryStep() time.Duration {
	return min(max(v.keyTTL/expirySteps, time.Millisecond), maxExpiryStep)
}

// watchKeys ends the life of keys until the volume is closed.
func (v *Volume) watchKeys() {
	step := v.expiryStep()
	tick := time.NewTicker(step)
	defer tick.Stop()
	var workers sync.WaitGroup
	defer workers.Wait()
	free := make(chan struct{}, expiryWorkers)
	for {
		select {
		case <-v.ctx.Done():
			return
		case <-tick.C:
		}
		// What would be too old at the next step goes at this one.
		before := v.uptime() + step - v.keyTTL
		if v.pool != nil {
			v.pool.expire(before)
		}
		for _, e := range v.keys.expire(before) {
			free <- struct{}{}
			workers.Go(func() {
				v.expire(e)
				<-free
			})
		}
	}
}

// expire ends the life of a file's keys. While the kernel writes its pages back
// they are still there; what it wants afterwards needs new ones from the KMS.
func (v *Volume) expire(e *keyEntry) {
	files := v.keys.users(e)
	e.keys.touched.Store(false)
	v.dropPages(files)
	v.keys.remove(e)
	if e.keys.touched.Load() {
		v.dropPages(files) // what was read meanwhile; what was written needs new keys
	}
}
