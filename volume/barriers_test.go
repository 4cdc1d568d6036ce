package volume

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// needless are barriers whose loss no state shows, and why they stay.
var needless = map[string]string{
	"fsync of shelf of sidecars, by Rewrap run syncShelf": "the syncfs at the end of a rewrap does it, too; " +
		"without it a power cut would take back all of a long one",
	"fsync of directory, by Link makeEntry payName":                          noOrder,
	"fsync of directory, by Rename run payName":                              noOrder,
	"fsync of directory, by Sync payParents payName":                         noOrder,
	"fsync of replacement for volume.json.bak, by Rewrap run writeTemporary": "a copy for repairs, which no mount reads",
}

// noOrder: the file of a long name is made before the name itself.
const noOrder = "the models keep the order of changes within a directory; stores may not, and then a synced file is lost"

// The test of power loss finds out about every barrier: without it, some state
// breaks a promise.
func TestEveryBarrierIsNeeded(t *testing.T) {
	seed := drawSeed()
	broken := map[string]string{}
	for _, p := range []powerLoss{{ModeFile, true}, {ModeFile, false}} {
		l, h := p.record(t, seed, 0, nil)
		if v := l.try(h, seed, p.strict, 0, 30); len(v.violations) > 0 {
			t.Fatalf("%s, with all barriers: %d violations, such as: %s", p, len(v.violations), v.violations[0])
		}
		classes := slices.Sorted(maps.Keys(l.rec.seen))
		if !*powerBarriers {
			rng := rand.New(rand.NewPCG(drawSeed(), 4))
			rng.Shuffle(len(classes), func(i, j int) { classes[i], classes[j] = classes[j], classes[i] })
			classes = classes[:min(2, len(classes))]
		}
		for _, class := range classes {
			if needless[class] == "" && (broken[class] == "" || strings.HasPrefix(broken[class], "nothing")) {
				broken[class] = p.without(t, seed, class)
				t.Logf("%s: left out, %s", class, broken[class])
			}
		}
	}
	for class, what := range broken {
		if strings.HasPrefix(what, "nothing") {
			t.Errorf("%s: left out, %s", class, what)
		}
	}
}

// without says what goes wrong without a class of barriers.
func (p powerLoss) without(t *testing.T, seed uint64, class string) string {
	l, h := p.record(t, seed, 0, func(c string) bool { return c == class })
	states := 0
	for batch := uint64(0); batch < 75; batch++ {
		v := l.try(h, seed+batch, p.strict, 0, 40)
		states += v.states
		if len(v.violations) > 0 {
			return fmt.Sprintf("%s: %d violations in %d states, such as: %s", p, len(v.violations), states, v.violations[0])
		}
	}
	return fmt.Sprintf("nothing is wrong in %d states", states)
}

// barrierCallers names the functions that make a barrier, the outer one first.
func barrierCallers() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	var names []string
	for {
		f, more := frames.Next()
		name := f.Function[strings.LastIndex(f.Function, ".")+1:]
		switch {
		case strings.HasSuffix(f.File, "_test.go"):
			if len(names) > 0 {
				more = false
			}
		case strings.HasPrefix(name, "func"), strings.HasSuffix(f.File, "/patient.go"), name == "retry":
		case name == "syncInside", name == "syncDir", name == "pay": // for all of them
		case !strings.Contains(f.Function, "kmsfs/volume"):
		default:
			names = append(names, name)
		}
		if !more {
			break
		}
	}
	slices.Reverse(names)
	if len(names) > 3 { // where it is wanted, and where it is made
		names = append(names[:2], names[len(names)-1])
	}
	return strings.Join(names, " ")
}

// barrierClass says what a barrier is for.
func barrierClass(e *event) string {
	if e.kind == evAll {
		return "syncfs"
	}
	what, isDir := "data file", e.obj.mode&unix.S_IFMT == unix.S_IFDIR
	base := filepath.Base(e.obj.path)
	replacement := strings.HasSuffix(base, tmpSuffix)
	switch in, inMeta := strings.CutPrefix(e.obj.path+"/", metaDir+"/"); {
	case inMeta && in == "":
		what = ".kmsfs"
	case inMeta && strings.HasPrefix(in, "keys"):
		what = []string{2: "keys", 3: "shelf of sidecars", 4: "sidecar"}[strings.Count(e.obj.path, "/")+1]
	case inMeta:
		what = strings.Split(in, "/")[0]
		if !isDir {
			what += " file"
		}
	case base == recordName:
		what = "directory record"
	case isLongNameFile(base):
		what = "long name"
	case isDir:
		what = "directory"
	}
	if replacement {
		what = "replacement for " + strings.TrimSuffix(what, tmpSuffix+" file")
	}
	if e.dataOnly {
		return "fdatasync of " + what
	}
	return "fsync of " + what
}
