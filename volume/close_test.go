package volume

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Closed again, a volume does nothing: its descriptors' numbers are others' by then.
func TestAVolumeIsClosedOnce(t *testing.T) {
	for name, readOnly := range map[string]bool{"for writing": false, "read-only": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, ModeFile)
			b.furnished()
			k := &tap{Backing: System{}, through: idle}
			v := b.open(withTap(k), func(o *Options) { o.ReadOnly = readOnly })
			contents(t, v)
			ok(t, v.Close())
			k.turn(func(c call, _ func(int) error) error {
				t.Errorf("the second time it does %+v", c)
				return nil
			})
			ok(t, v.Close())
		})
	}
}

// What went wrong when a volume was closed, each call says.
func TestClosedAgainAVolumeSaysWhatTheFirstTimeSaid(t *testing.T) {
	b := newBench(t, ModeFile)
	k := &tap{Backing: System{}, through: idle}
	v := b.open(withTap(k))
	createFile(t, v.Root(), "file", pattern(5000, 1))
	k.turn(func(c call, do func(int) error) error {
		switch c.op {
		case "fsync", "fdatasync", "syncfs":
			return unix.EIO
		}
		return do(c.bytes)
	})
	first := v.Close()
	if again := v.Close(); first == nil || again != first {
		t.Errorf("first %v, then %v", first, again)
	}
}
