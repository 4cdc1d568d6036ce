package integration

import (
	"flag"
	"testing"

	"kmsfs/fs"
	"kmsfs/integration/model"
	"kmsfs/volume"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "seed of the model tests; 0 draws one")
	modelSteps = flag.Int("model.steps", 33_000, "operations of the model test on a plain directory; a third on each mount")
	modelTime  = flag.Duration("model.time", 0, "how long each model test on a mount goes on, at least")
)

// TestTheModelAgreesWithAPlainDirectory shows that the model is right: what it
// expects is what the kernel's own file systems do.
func TestTheModelAgreesWithAPlainDirectory(t *testing.T) {
	dir := t.TempDir()
	model.Run(t, model.Directory(dir), model.Options{
		Seed: *modelSeed, Steps: *modelSteps, Every: 1000, NoZeroRange: true, Store: probe(t, dir),
	})
}

// probe finds out what a store can do, and tells what the model will not do.
func probe(t *testing.T, dir string) model.Store {
	t.Helper()
	s, err := model.ProbeStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s != (model.Store{Xattrs: true, Tmpfile: true}) {
		t.Logf("%s can do only %+v; ext4, xfs or btrfs can do all", dir, s)
	}
	return s
}

func TestRandomOperationsOnAMountAgreeWithAModel(t *testing.T) {
	for name, edit := range map[string]func(*fs.Options){
		"writeback":                func(*fs.Options) {},
		"no writeback":             func(o *fs.Options) { o.NoWriteback = true },
		"keep open":                func(o *fs.Options) { o.KeepOpen = true },
		"no attributes":            func(o *fs.Options) { o.NoXattr = true },
		"ACLs":                     func(o *fs.Options) { o.ACL = true },
		"no writeback, all let in": func(o *fs.Options) { o.NoWriteback, o.AllowOther = true, true },
		"keep open, no attributes": func(o *fs.Options) { o.KeepOpen, o.NoXattr = true, true },
		"all but writeback, ACLs":  func(o *fs.Options) { o.NoWriteback, o.KeepOpen, o.ACL = true, true, true },
	} {
		t.Run(name, func(t *testing.T) {
			var o fs.Options
			edit(&o)
			if o.AllowOther {
				needRoot(t, "users let others in only where /etc/fuse.conf says so")
			}
			m := newVolume(t, volume.ModeFile)
			m.mount(edit)
			store := probe(t, m.Backing)
			store.Xattrs = store.Xattrs && !o.NoXattr
			model.Run(t, model.Directory(m.Dir), model.Options{
				Seed: *modelSeed, Steps: *modelSteps / 3, Time: *modelTime, Every: 1000, Store: store,
				Reopen: func() model.Target {
					m.unmount()
					m.mount(edit)
					return model.Directory(m.Dir)
				},
			})
		})
	}
}
