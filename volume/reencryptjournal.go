package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// reencryptJournal is what this host remembers of a Reencrypt that is not
// complete: which file IDs it made. It lies beside the host state, where the
// backing store cannot forge it, else that could have files passed over:
//
//	began 2026-03-01T12:30:00Z
//	+FILE-ID   a file of this ID is about to be made
//	=FILE-ID   it has taken another's place
//
// An ID says nothing about a file that the store has lost since: what is in its
// place has another ID, and is done again. A last line that a crash cut short is
// passed over.
type reencryptJournal struct {
	path    string
	file    *os.File
	ids     map[crypto.ID]byte // the last sign of each
	old     map[crypto.ID]bool // begun before a restart
	resumed *time.Time         // when the run began that is being gone on with
}

const (
	journalBegun = '+'
	journalDone  = '='
	journalStart = "began "
)

var errJournal = errors.New("journal of reencrypt")

// openReencryptJournal opens the journal of a volume in the host state directory,
// making it if there is none; with restart what is in it is forgotten.
func openReencryptJournal(dir string, volume crypto.ID, restart bool) (*reencryptJournal, error) {
	j := &reencryptJournal{path: filepath.Join(dir, volume.String()+".reencrypt"), ids: make(map[crypto.ID]byte), old: make(map[crypto.ID]bool)}
	b, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read journal of reencrypt: %w", err)
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		j.parse(line, restart)
	}
	if j.file, err = os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, fmt.Errorf("open journal of reencrypt: %w", err)
	}
	if restart {
		j.resumed = nil
		err = j.file.Truncate(0)
	}
	start := ""
	if len(b) > 0 && !restart {
		start = "\n" // after a line that was cut short
	}
	if j.resumed == nil {
		start += journalStart + time.Now().UTC().Format(time.RFC3339) + "\n"
	}
	if err == nil {
		_, err = j.file.WriteString(start)
	}
	if err != nil {
		j.file.Close()
		return nil, fmt.Errorf("write journal of reencrypt: %w", err)
	}
	return j, nil
}

func (j *reencryptJournal) parse(line string, restart bool) {
	if began, ok := strings.CutPrefix(line, journalStart); ok {
		if t, err := time.Parse(time.RFC3339, began); err == nil {
			j.resumed = &t
		}
		return
	}
	if len(line) == 0 || line[0] != journalBegun && line[0] != journalDone {
		return
	}
	switch id, err := crypto.ParseID(line[1:]); {
	case err != nil:
	case restart:
		j.old[id] = line[0] == journalBegun // it may have left a temporary
	default:
		j.ids[id] = line[0]
	}
}

// note writes a line. It need not be durable: see reencryptJournal.
func (j *reencryptJournal) note(sign byte, id crypto.ID) error {
	if j == nil || j.ids[id] == sign { // nil: nobody will go on with it
		return nil
	}
	j.ids[id] = sign
	if _, err := fmt.Fprintf(j.file, "%c%s\n", sign, id); err != nil {
		return fmt.Errorf("write %w: %w", errJournal, err)
	}
	return nil
}

// has tells whether a file of this ID was made by this run or the one that it
// goes on with.
func (j *reencryptJournal) has(id crypto.ID) bool { return j.ids[id] != 0 }

// begun tells whether a file of this ID was begun and not finished.
func (j *reencryptJournal) begun(id crypto.ID) bool { return j.ids[id] == journalBegun || j.old[id] }

func (j *reencryptJournal) close() { _ = j.file.Close() }

// remove forgets everything: the run is complete.
func (j *reencryptJournal) remove() error {
	if err := os.Remove(j.path); err != nil {
		return fmt.Errorf("remove journal of reencrypt: %w", err)
	}
	return nil
}
