package volume

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
)

var tamperFsck = flag.Int("tamper.fsck", 61, "check and repair after each `N`th manipulation; those that only a check sees always")

// checked is what a check and a repair make of a manipulation.
type checked struct {
	found    []string // kinds
	repaired int
	wrong    []string
}

// alwaysChecked lists manipulations, by kind and column, after which one repair once
// was not enough.
var alwaysChecked = []string{"symlink, replaced by another volume's", "data file, hard link planted"}

// isChecked tells whether fsck is run after the n-th manipulation.
func (m *manipulation) isChecked(n int) bool {
	return n%*tamperFsck == 0 || slices.Contains(forFsck, m.row) || slices.Contains(alwaysChecked, m.kind+", "+m.how)
}

// check has the manipulated volume checked and repaired, and then puts all of it
// back. got is what could be read before, nil if it could not be opened.
func (w *tamperTree) check(m *manipulation, got observation, d *difference) (c checked) {
	w.t.Helper()
	defer func() {
		if p := recover(); p != nil {
			c.wrong = append(c.wrong, fmt.Sprintf("panic: %v", p))
		}
	}()
	before := w.backingFiles()
	r, err := w.fsck(FsckOptions{})
	if changed := differ(before, w.backingFiles()); len(changed) > 0 {
		c.wrong = append(c.wrong, fmt.Sprintf("a check changed %q", changed))
	}
	switch {
	case got == nil: // a check, too, may be unable to open it
	case err != nil:
		c.wrong = append(c.wrong, "fsck: "+err.Error())
	default:
		c.found = kinds(r)
		if len(r.Findings) == 0 && (len(d.seen) > 0 || slices.Contains(forFsck, m.row) && len(d.silent) > 0) {
			c.wrong = append(c.wrong, fmt.Sprintf("fsck finds nothing, reading saw %q, not %q", d.seen, d.silent))
		}
	}
	if r, err = w.fsck(FsckOptions{Repair: true}); err != nil {
		if got != nil {
			c.wrong = append(c.wrong, "repair: "+err.Error())
		}
		return c
	}
	for _, f := range r.Findings {
		if f.Repaired {
			c.repaired++
		}
	}
	v, err := w.tryOpen(func(o *Options) { o.ReadOnly = true })
	if err != nil {
		c.wrong = append(c.wrong, "open after a repair: "+err.Error())
		return c
	}
	after := observe(v, nil)
	if err := v.Close(); err != nil {
		c.wrong = append(c.wrong, err.Error())
	}
	c.wrong = append(c.wrong, lost(got, after)...)
	if again, err := w.fsck(FsckOptions{}); err != nil || again.Errors != r.Remaining {
		c.wrong = append(c.wrong, fmt.Sprintf("after a repair: %v:%s\n\twhich it left:%s", err, show(again), show(r)))
	}
	return c
}

// lost tells which contents, targets and values of attributes could be read before,
// and can be nowhere after.
func lost(before, after observation) (out []string) {
	have := make(map[string]bool)
	value := func(key, v string) (string, bool) {
		_, aspect, _ := strings.Cut(key, "\x00")
		kept := strings.HasPrefix(aspect, "content") || aspect == "target" || strings.HasPrefix(aspect, "xattr ")
		return aspect + "\x00" + v, kept && !strings.HasPrefix(v, errSeen) && !strings.HasPrefix(v, errOther)
	}
	for key, v := range after {
		if x, ok := value(key, v); ok {
			have[x] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if x, ok := value(key, before[key]); ok && !have[x] {
			out = append(out, fmt.Sprintf("%q could be read before the repair, and cannot now", key))
		}
	}
	return out
}
