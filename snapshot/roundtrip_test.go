package snapshot

import (
	"os"
	"testing"

	"kmsfs/volume"
)

func TestAVolumeThatIsLostComesBackAsItWas(t *testing.T) {
	for _, mode := range []volume.KeyMode{volume.ModeFile, volume.ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			b, m := newBench(t, mode), newMemory()
			b.with(func(v *volume.Volume) { furnish(t, v.Root()) })
			r := b.push(m)
			if r.Generation != 1 || !r.Changed || r.Files < 10 {
				t.Fatalf("the first push says %+v", r)
			}
			want := look(t, b.dir)
			b.lose()
			b.pull(m)
			mustBeSame(t, want, look(t, b.dir))
			report, err := volume.Fsck(t.Context(), b.dir, b.options(), volume.FsckOptions{})
			if err != nil || len(report.Findings) > 0 && os.Geteuid() == 0 { // fsck cannot read what its user may not
				t.Fatalf("fsck finds %v, %v", report.Findings, err)
			}
			if left := m.keys(pushPrefix); len(left) > 0 {
				t.Fatalf("marks are left: %v", left)
			}
			// Nothing has changed: nothing is sent, and there is no new state.
			if r := b.push(m); r.Changed || r.Generation != 1 {
				t.Fatalf("a push of what was pulled says %+v", r)
			}
		})
	}
}
