package volume

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	tamperAll  = flag.Bool("tamper.all", false, "flip every byte of everything in the tamper matrix, and try all pairs")
	tamperOnly = flag.String("tamper.only", "", "try only the manipulations whose description has this in it")
)

// manipulation is one thing that somebody does to the backing directory.
type manipulation struct {
	kind   string // of object
	how    string // the table's column
	detail string
	owners []string // plaintext paths concerned
	// row is that of the table in THREAT_MODEL.md which says that this goes
	// unseen; "" if it must be seen or change nothing.
	row  string
	must bool // be seen: not even harmless
	// readOnly says how the volume is opened.
	readOnly bool
	do       func(w *tamperTree)
	undo     func(w *tamperTree) // nil: all that was touched is put back
}

func (m *manipulation) String() string { return m.kind + ", " + m.how + " (" + m.detail + ")" }

// tally counts what became of the manipulations of one kind.
type tally struct {
	seen, harmless, unseen   int // by reading
	checked, found, repaired int // by fsck, where it was run
}

func (t *tally) add(c checked) {
	t.checked++
	t.found += min(1, len(c.found))
	t.repaired += min(1, c.repaired)
}

func TestTamperMatrix(t *testing.T) {
	table := make(map[[2]string]*tally)
	met := make(map[string]bool)
	rows := undetectableRows(t)
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		w := newTamperTree(t, mode)
		all := w.manipulations()
		t.Logf("key mode %s: %d manipulations of %d entries", mode, len(all), len(w.entries))
		for _, m := range all {
			if !strings.Contains(m.String(), *tamperOnly) {
				continue
			}
			w.try(&m, table, rows, met)
			if w.failures > 50 {
				t.Fatal("too many failures")
			}
		}
		w.wantUntouched()
	}
	t.Logf("what is done to the backing directory, and what reading shows\n%s", printTable(table))
	for key := range rows {
		if *tamperOnly == "" && !met[key] && rows[key].tested {
			t.Errorf("THREAT_MODEL.md says that %q goes unseen, and nothing here did", key)
		}
	}
}

// try does it, reads everything, and puts the backing directory right again.
func (w *tamperTree) try(m *manipulation, table map[[2]string]*tally, rows map[string]undetectable, met map[string]bool) {
	w.t.Helper()
	watchdog := time.AfterFunc(2*time.Minute, func() { panic("hangs: " + m.String()) })
	defer watchdog.Stop()
	m.do(w)
	got, d := w.read(m)
	w.tried++
	var c checked
	if m.isChecked(w.tried) {
		c = w.check(m, got, &d)
		w.load(w.saved)
		clear(w.touched)
	} else {
		if m.undo != nil {
			m.undo(w)
		}
		w.restore()
	}

	key := [2]string{m.kind, m.how}
	if table[key] == nil {
		table[key] = new(tally)
	}
	fail := func(format string, args ...any) {
		w.t.Helper()
		w.failures++
		w.t.Errorf("%s, key mode %s: %s", m, w.mode, fmt.Sprintf(format, args...))
	}
	if m.isChecked(w.tried) {
		table[key].add(c)
		if len(c.wrong) > 0 {
			fail("found %q: %s", c.found, strings.Join(c.wrong, "\n\t"))
		}
	}
	switch {
	case len(d.wrong) > 0:
		fail("%s", strings.Join(d.wrong, "\n\t"))
	case len(d.silent) > 0:
		table[key].unseen++
		met[m.row] = true
		if _, ok := rows[m.row]; !ok {
			fail("nobody is told that\n\t%s\nand THREAT_MODEL.md does not say so (row %q); seen: %q", strings.Join(d.silent, "\n\t"), m.row, d.seen)
		}
	case len(d.seen) > 0:
		table[key].seen++
	default:
		table[key].harmless++
		if m.must {
			fail("it goes unnoticed")
		}
	}
}

// read opens the volume as a mount does and reads everything. Nothing that
// outlives the process may change meanwhile.
func (w *tamperTree) read(m *manipulation) (got observation, d difference) {
	defer func() {
		if p := recover(); p != nil {
			d.wrong = append(d.wrong, fmt.Sprintf("panic: %v", p))
		}
	}()
	var reading atomic.Bool
	var changed []string
	v, err := w.tryOpen(func(o *Options) {
		o.ReadOnly = m.readOnly
		o.Backing = &tap{Backing: System{}, through: func(c call, do func(int) error) error {
			if reading.Load() && c.changes {
				changed = append(changed, fmt.Sprintf("reading did %s %q", c.op, c.name))
			}
			return do(c.bytes)
		}}
	})
	if err != nil {
		// What volume.json says cannot be checked before a KMS was asked for what it
		// names, so it may be the KMS's error.
		if !strings.Contains(err.Error(), metaDir) && !strings.Contains(err.Error(), "unwrap volume key") && !errors.Is(err, ErrFingerprint) && !errors.Is(err, ErrIntegrity) {
			d.wrong = append(d.wrong, "open does not say what is wrong: "+err.Error())
		}
		if !slices.Contains(m.owners, "*") {
			d.wrong = append(d.wrong, "not concerned: open: "+err.Error())
		}
		d.seen = append(d.seen, err.Error())
		return nil, d
	}
	reading.Store(true)
	got = observe(v, w.base)
	reading.Store(false)
	d = got.compare(w.base, m.owners)
	d.wrong = append(d.wrong, changed...)
	if err := v.Close(); err != nil {
		d.wrong = append(d.wrong, "close: "+err.Error())
	}
	return got, d
}

// wantUntouched makes sure that putting things back did so.
func (w *tamperTree) wantUntouched() {
	w.t.Helper()
	m := manipulation{kind: "nothing", how: "nothing"}
	if _, d := w.read(&m); len(d.seen)+len(d.silent)+len(d.wrong) > 0 {
		w.t.Errorf("at the end, with everything put back: %+v", d)
	}
}

// String is the columns of the table.
func (t *tally) String() string {
	return fmt.Sprintf("%d\t%d\t%d\t%d\t%d\t%d", t.seen, t.harmless, t.unseen, t.checked, t.found, t.repaired)
}

func printTable(table map[[2]string]*tally) string {
	var b strings.Builder
	p := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(p, "object\tmanipulation\tdetected\tharmless\tundetectable\tchecked\tfound\trepaired\n")
	keys := make([][2]string, 0, len(table))
	for k := range table {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1]) })
	var sum tally
	for _, k := range keys {
		c := table[k]
		fmt.Fprintf(p, "%s\t%s\t%s\n", k[0], k[1], c)
		sum.seen, sum.harmless, sum.unseen = sum.seen+c.seen, sum.harmless+c.harmless, sum.unseen+c.unseen
		sum.checked, sum.found, sum.repaired = sum.checked+c.checked, sum.found+c.found, sum.repaired+c.repaired
	}
	fmt.Fprintf(p, "all\t\t%s\n", &sum)
	_ = p.Flush()
	return b.String()
}
