package volume

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// damagedConfig makes a volume whose keys are changed by a rewrap, and damages
// volume.json then. It returns what that was before, and the path of the previous
// version.
func damagedConfig(t *testing.T, from, to kmsprovider.KeyURI) (b *bench, first []byte, previous string) {
	t.Helper()
	b = newBench(t, ModeFile)
	b.furnished()
	current := filepath.Join(b.dir, metaDir, configName)
	first = readPath(t, current)
	b.mustRewrap(from, to)
	v := b.open() // this host sees it
	b.close(v)
	truncate(t, current, 40)
	return b, first, filepath.Join(b.dir, metaDir, configBackup)
}

func TestARepairTakesThePreviousConfigurationForADamagedOne(t *testing.T) {
	b, _, _ := damagedConfig(t, kmsprovider.KeyURI{}, uriB)
	before := b.backingFiles()
	r := b.mustFsck(FsckOptions{})
	if got := kinds(r); !slices.Equal(got, []string{"config"}) || r.Remaining != 1 || !r.Complete {
		t.Errorf("found:%s", show(r))
	}
	if got := differ(before, b.backingFiles()); len(got) > 0 {
		t.Errorf("a check changed %q", got)
	}
	r = b.mustFsck(FsckOptions{Repair: true})
	if r.Remaining != 0 || r.Errors != 1 {
		t.Errorf("repaired:%s", show(r))
	}
	if r = b.mustFsck(FsckOptions{}); len(r.Findings) > 0 {
		t.Errorf("afterwards:%s", show(r))
	}
	b.close(b.open())

	// The one before names a key that was given up: it does not come back.
	b, _, _ = damagedConfig(t, uriA, uriB)
	if r := b.mustFsck(FsckOptions{Repair: true}); r.Remaining != 0 || len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Note, "without 1 of its keys") {
		t.Errorf("repaired:%s", show(r))
	}
	v := b.open()
	if keys := v.conf().Keys; len(keys) != 1 || keys[0].KeyID != uriB.KeyID {
		t.Errorf("keys %+v", keys)
	}
}

// Who damages volume.json does not bring back what was given up, nor anything
// that is not this volume's.
func TestARepairTakesNoPreviousConfigurationThatIsNotToBeTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, b *bench, first []byte, previous string)
		want   error
	}{
		"its only active key was given up": {func(t *testing.T, _ *bench, first []byte, p string) { ok(t, os.WriteFile(p, first, 0o600)) }, ErrOlder},
		"it is changed":                    {func(t *testing.T, _ *bench, _ []byte, p string) { flipByte(t, p, int64(len(readPath(t, p)))-3) }, ErrIntegrity},
		"it is cut":                        {func(t *testing.T, _ *bench, _ []byte, p string) { truncate(t, p, 60) }, ErrIntegrity},
		"it is missing":                    {func(t *testing.T, _ *bench, _ []byte, p string) { ok(t, os.Remove(p)) }, ErrNotVolume},
		"it is another volume's": {func(t *testing.T, b *bench, _ []byte, p string) {
			other := newBenchWith(t, ModeFile, b.kms)
			copyPath(t, filepath.Join(other.dir, metaDir, configName), p)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b, first, previous := damagedConfig(t, uriA, uriB)
			c.change(t, b, first, previous)
			before := b.backingFiles()
			_, err := b.fsck(FsckOptions{Repair: true})
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), configName) {
				t.Errorf("Fsck: %v", err)
			}
			if got := differ(before, b.backingFiles()); len(got) > 0 {
				t.Errorf("changed: %q", got)
			}
		})
	}
}
