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
	modelSteps = flag.Int("model.steps", 4000, "operations of each model test")
)

// TestTheModelAgreesWithAPlainDirectory shows that the model is right: what it
// expects is what the kernel's own file systems do.
func TestTheModelAgreesWithAPlainDirectory(t *testing.T) {
	model.Run(t, model.Directory(t.TempDir()), model.Options{Seed: *modelSeed, Steps: *modelSteps, Every: 1000, NoZeroRange: true})
}

func TestRandomOperationsOnAMountAgreeWithAModel(t *testing.T) {
	for name, edit := range map[string]func(*fs.Options){
		"writeback":    func(*fs.Options) {},
		"no writeback": func(o *fs.Options) { o.NoWriteback = true },
		"keep open":    func(o *fs.Options) { o.KeepOpen = true },
	} {
		t.Run(name, func(t *testing.T) {
			m := newVolume(t, volume.ModeFile)
			m.mount(edit)
			model.Run(t, model.Directory(m.Dir), model.Options{
				Seed: *modelSeed, Steps: *modelSteps, Every: 1000,
				Reopen: func() model.Target {
					m.unmount()
					m.mount(edit)
					return model.Directory(m.Dir)
				},
			})
		})
	}
}
