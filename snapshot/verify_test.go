package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kmsfs/volume"
)

func (b *bench) verify(m *memory, edit ...func(*VerifyOptions)) (VerifyReport, error) {
	b.t.Helper()
	o := VerifyOptions{Place: place, Jobs: 3}
	for _, e := range edit {
		e(&o)
	}
	a, err := volume.OpenAccess(context.Background(), b.dir, b.options())
	if err != nil {
		b.t.Fatal(err)
	}
	defer a.Close()
	return Verify(context.Background(), b.dir, a, m, o)
}

// objectOf is the key of the object of a file of a state.
func objectOf(t testing.TB, b *bench, m *memory, generation uint64, want string) (key string) {
	t.Helper()
	b.with(func(v *volume.Volume) {
		a := v.Access()
		defer a.Close()
		f, _, err := fetchManifest(t.Context(), a, m, generation)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := &pathTeller{access: a}
		err = each(a, f, generation, func(x *Entry) error {
			if path := p.next(x); path == want {
				key = x.File.Key()
			}
			return nil
		})
		if err != nil || key == "" {
			t.Fatalf("%s is not in state %d: %v", want, generation, err)
		}
	})
	return key
}

func TestWhateverIsChangedInABucketIsNamed(t *testing.T) {
	b, clean, _ := twoStates(t, volume.ModeFile)
	small, old := objectOf(t, b, clean, 2, "small"), objectOf(t, b, clean, 1, "small")
	deep := objectOf(t, b, clean, 2, "dir/attributes")
	empty := objectOf(t, b, clean, 2, "empty")
	bundle := clean.keys(strings.TrimSuffix(old, old[strings.LastIndex(old, "/")+1:]) + smallPrefix)[0]
	set := func(m *memory, to, from string) { m.objects[to] = clean.objects[from] }
	flip := func(m *memory, key string) {
		o := clean.objects[key]
		o.b = slices.Clone(o.b)
		o.b[len(o.b)/2] ^= 1
		m.objects[key] = o
	}
	cut := func(m *memory, key string, by int) {
		o := clean.objects[key]
		o.b = o.b[:len(o.b)-by]
		m.objects[key] = o
	}
	for name, c := range map[string]struct {
		tamper    func(m *memory)
		kind, key string
		detail    string
		pulls     bool // it is nothing that a pull needs
	}{
		"an object swapped for another":     {func(m *memory) { set(m, small, deep) }, ProblemSwapped, small, "dir/attributes", false},
		"two of them swapped":               {func(m *memory) { set(m, small, deep); set(m, deep, small) }, ProblemSwapped, deep, "belongs to small", false},
		"an object put back to an older":    {func(m *memory) { set(m, small, old) }, ProblemRollback, small, "generation", false},
		"a bit":                             {func(m *memory) { flip(m, small) }, ProblemChanged, small, "", false},
		"an object cut short":               {func(m *memory) { cut(m, small, 1) }, ProblemTruncated, small, "should have", false},
		"an object emptied":                 {func(m *memory) { cut(m, empty, 144) }, ProblemTruncated, empty, "0 bytes", false},
		"an object that is gone":            {func(m *memory) { delete(m.objects, deep) }, ProblemMissing, deep, "", false},
		"keys":                              {func(m *memory) { flip(m, bundle) }, ProblemChanged, bundle, "keys of files", false},
		"keys that are gone":                {func(m *memory) { delete(m.objects, bundle) }, ProblemMissing, bundle, "", false},
		"the manifest":                      {func(m *memory) { flip(m, manifestKey(2)) }, ProblemManifest, manifestKey(2), "chunk 0", false},
		"the manifest cut in its head":      {func(m *memory) { cut(m, manifestKey(2), len(clean.objects[manifestKey(2)].b)-20) }, ProblemManifest, manifestKey(2), "cut short", false},
		"the manifest cut":                  {func(m *memory) { cut(m, manifestKey(2), 1) }, ProblemManifest, manifestKey(2), "chunk", false},
		"an older manifest in its place":    {func(m *memory) { set(m, manifestKey(2), manifestKey(1)) }, ProblemManifest, manifestKey(2), "generation 1", false},
		"the newest state gone":             {func(m *memory) { delete(m.objects, manifestKey(2)) }, ProblemRollback, manifestKey(2), "is 1, and this host has seen 2", false},
		"no state at all":                   {func(m *memory) { delete(m.objects, manifestKey(1)); delete(m.objects, manifestKey(2)) }, ProblemRollback, manifestKey(2), "is 0", false},
		"a later manifest made of an older": {func(m *memory) { set(m, manifestKey(3), manifestKey(2)) }, ProblemManifest, manifestKey(3), "generation 2", false},
		"volume.json":                       {func(m *memory) { flip(m, configKey) }, ProblemChanged, configKey, "", false},
		"volume.json gone":                  {func(m *memory) { delete(m.objects, configKey) }, ProblemMissing, configKey, "", false},
	} {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " full=", full), func(t *testing.T) {
				m := clean.clone()
				c.tamper(m)
				m.noSums = full
				r, err := b.verify(m, func(o *VerifyOptions) { o.Full = full })
				if !errors.Is(err, ErrDamaged) {
					t.Fatalf("it is %v", err)
				}
				i := slices.IndexFunc(r.Problems, func(p Problem) bool { return p.Key == c.key })
				if i < 0 || r.Problems[i].Kind != c.kind || !strings.Contains(r.Problems[i].Detail, c.detail) {
					t.Fatalf("the problems are %+v", r.Problems)
				}
				// And none of it comes into a volume.
				fresh := b.elsewhere()
				saved := saveState(t, b)
				restoreState(t, fresh, saved)
				os.RemoveAll(fresh.state + "/nothing")
				_, err = fresh.tryPull(m)
				if err == nil {
					t.Fatal("it was pulled")
				}
				if _, serr := os.Stat(filepath.Join(fresh.dir, ".kmsfs/volume.json")); serr == nil {
					t.Fatal("there is a volume")
				}
				if strings.HasPrefix(c.key, objectPrefix) && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "objects/")) {
					t.Fatalf("pull says %v", err)
				}
			})
		}
	}
	for _, full := range []bool{false, true} {
		m := clean.clone()
		m.noSums = true
		r, err := b.verify(m, func(o *VerifyOptions) { o.Full = full })
		if err != nil || r.Objects == 0 || (r.Unproven == 0) != full {
			t.Fatalf("what is clean gives %v, %+v", err, r)
		}
	}
	if r, err := b.verify(clean); err != nil || r.Unproven != 0 || clean.calls["get"] > 100 || len(r.Differences) > 0 {
		t.Fatalf("what is clean gives %v, %+v", err, r)
	}
}

func TestWhatIsChangedInAVolumeIsToldFromWhatIsDamaged(t *testing.T) {
	b, m, _ := twoStates(t, volume.ModeVolume)
	backing := make(map[string]string)
	b.with(func(v *volume.Volume) {
		for _, name := range []string{"small", "renamed", "sparse", "symlink"} {
			n, _, err := v.Root().Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			backing[name] = filepath.Join(b.dir, n.BackingPath())
		}
	})
	older := must(os.ReadFile(backing["small"]))
	b.with(func(v *volume.Volume) {
		n, _, _ := v.Root().Lookup("small")
		write(t, n, []byte("later"), 0)
	})
	b.push(m)
	b.with(func(v *volume.Volume) {
		n, _, _ := v.Root().Lookup("symlink")
		write(t, n, []byte("later"), 0)
		create(t, v.Root(), "added", nil)
		if err := v.Root().Unlink("empty"); err != nil {
			t.Fatal(err)
		}
	})
	if err := os.WriteFile(backing["small"], older, 0o644); err != nil { // nobody else sees that
		t.Fatal(err)
	}
	f := must(os.OpenFile(backing["renamed"], os.O_RDWR, 0))
	must(f.WriteAt([]byte("damage"), 5000))
	f.Close()
	if err := os.Truncate(backing["sparse"], 1<<20); err != nil {
		t.Fatal(err)
	}
	r, err := b.verify(m, func(o *VerifyOptions) { o.Full = true })
	if !errors.Is(err, ErrDamaged) {
		t.Fatalf("it is %v", err)
	}
	got := map[string]string{}
	for _, p := range r.Problems {
		got[p.Paths[0]] = p.Kind
	}
	if os.Geteuid() != 0 && got["dir/nobody's"] == ProblemUnreadable {
		delete(got, "dir/nobody's")
	}
	want := map[string]string{"small": ProblemRollback, "renamed": ProblemChanged, "sparse": ProblemTruncated}
	if d := diff(want, got); d != "" {
		t.Fatalf("problems:\n%s", d)
	}
	differences := map[string]string{}
	for _, d := range r.Differences {
		differences[d.Path] = d.Kind
	}
	if d := diff(map[string]string{"symlink": DifferenceChanged, "added": DifferenceNew, "empty": DifferenceDeleted}, differences); d != "" {
		t.Fatalf("differences:\n%s", d)
	}
}
