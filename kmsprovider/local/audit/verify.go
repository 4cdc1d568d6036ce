package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"kmsfs/crypto"
)

// Report is what Verify found.
type Report struct {
	Events uint64 // authentic ones
	First  string // time of the first and the last
	Last   string
	// Repairs are crashes that the log went on after: torn lines that were
	// removed, events that a power cut took before they were synced.
	Repairs []string
	// Problems are lines changed, removed, added or moved.
	Problems []string
}

// maxProblems bounds the list in memory.
const maxProblems = 1000

// Verify checks the log at path from its first line to its last, while others
// may append. The error is ErrTampered if the report has problems, and
// fs.ErrNotExist if neither log nor head is there.
func Verify(path string, key *crypto.Key) (Report, error) {
	v := verifier{key: key}
	if err := v.run(path); err != nil {
		return v.report, fmt.Errorf("verify audit log %s: %w", path, err)
	}
	if n := len(v.report.Problems); n > 0 {
		return v.report, fmt.Errorf("verify audit log %s: %w: %s (problems: %d)", path, ErrTampered, v.report.Problems[0], n)
	}
	return v.report, nil
}

type verifier struct {
	key    *crypto.Key
	report Report
	line   int   // number, from 1
	last   point // the last authentic line
}

func (v *verifier) run(path string) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	log, size, h, ok, err := snapshot(path, v.key)
	if err != nil {
		return err
	}
	if log != nil {
		defer log.Close()
		if err := eachLine(io.NewSectionReader(log, 0, size), v.check); err != nil {
			return err
		}
	}
	if v.report.Events == 0 && v.line > 0 && !ok {
		return ErrForeign
	}
	v.finish(h, ok, size, boot)
	return nil
}

// snapshot opens the log and returns its size and its head at one moment.
func snapshot(path string, key *crypto.Key) (log *os.File, size int64, h head, ok bool, err error) {
	headFile, err := os.Open(path + headSuffix)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, 0, h, false, err
	}
	if !missing {
		defer headFile.Close()
		if err := lock(headFile, shared); err != nil {
			return nil, 0, h, false, err
		}
		if h, ok, err = readHead(headFile, key); err != nil {
			return nil, 0, h, false, err
		}
	}
	log, err = os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !missing {
		return nil, 0, h, ok, nil
	}
	if err != nil {
		return nil, 0, h, ok, err
	}
	info, err := log.Stat()
	if err != nil {
		log.Close()
		return nil, 0, h, ok, err
	}
	return log, info.Size(), h, ok, nil
}

// check is eachLine's function.
func (v *verifier) check(line []byte, end int64) error {
	v.line++
	l, ok := decodeLine(v.key, line)
	if !ok {
		v.problem("line %d was changed, or is not of this log", v.line)
		return nil
	}
	v.report.Events++
	if v.report.First == "" {
		v.report.First = l.time
	}
	v.report.Last = l.time
	v.order(l)
	if l.repair != nil {
		v.repaired(l)
	}
	v.last = point{l.sequence, end, l.mac}
	return nil
}

// order checks that l follows the last line.
func (v *verifier) order(l link) {
	switch expected := v.last.sequence + 1; {
	case l.sequence < expected:
		v.problem("line %d: event %d stands after event %d", v.line, l.sequence, v.last.sequence)
	case l.sequence > expected && l.repair != nil && l.repair.LostFrom == expected && l.repair.LostTo == l.sequence-1 && l.previous == v.last.mac:
		// repaired tells about it
	case l.sequence > expected:
		v.problem("before line %d: %s missing", v.line, events(expected, l.sequence-1))
	case l.previous != v.last.mac:
		v.problem("line %d: event %d does not follow from the one before it", v.line, l.sequence)
	}
}

// repaired passes on what the log itself found.
func (v *verifier) repaired(l link) {
	r := l.repair
	if r.RemovedBytes > 0 {
		v.repair("%s: a line that a crash cut short was removed (%d bytes); nothing was answered to that call", l.time, r.RemovedBytes)
	}
	v.lost(*r, "at "+l.time)
	if r.KeptBytes > 0 {
		v.problem("line %d: found %d bytes before it that are not of this log", v.line, r.KeptBytes)
	}
	if r.HeadMissing {
		v.problem("line %d: the head was missing; events may have been removed from the end before", v.line)
	}
}

func (v *verifier) lost(r Repair, when string) {
	switch {
	case r.LostTo == 0:
	case r.Unsynced:
		v.repair("%s: %s missing, not yet synced when the machine stopped", when, events(r.LostFrom, r.LostTo))
	default:
		v.problem("%s: %s missing from the end", when, events(r.LostFrom, r.LostTo))
	}
}

// finish compares the end of the log with the head.
func (v *verifier) finish(h head, ok bool, size int64, boot [16]byte) {
	if !ok {
		if size > 0 {
			v.problem("the head is missing or not of this log: events may have been removed from the end")
		}
		return
	}
	var r Repair
	r.lost(h, v.last, boot)
	v.lost(r, "now")
	if r.LostTo == 0 && v.last.sequence == h.tip.sequence && v.last.mac != h.tip.mac {
		v.problem("the last event is not the one that the head names")
	}
	if torn := size - v.last.end; torn > 0 && len(v.report.Problems) == 0 {
		v.repair("now: the last line is cut short (%d bytes), as by a crash; the next call removes it", torn)
	}
}

func (v *verifier) problem(format string, args ...any) {
	v.report.Problems = noted(v.report.Problems, format, args...)
}

func (v *verifier) repair(format string, args ...any) {
	v.report.Repairs = noted(v.report.Repairs, format, args...)
}

func noted(list []string, format string, args ...any) []string {
	switch {
	case len(list) < maxProblems:
		return append(list, fmt.Sprintf(format, args...))
	case len(list) == maxProblems:
		return append(list, "and more")
	}
	return list
}

func events(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("event %d is", from)
	}
	return fmt.Sprintf("events %d to %d are", from, to)
}
