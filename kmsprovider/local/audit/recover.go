package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// recover finds the end of a log that its head does not describe: after a crash
// between line and head or within a line, after a power cut, or when somebody
// else was at the files. It returns the head to go on from. What it finds wrong
// is in the log then, as an event. The caller holds the lock.
func (l *Log) recover(h head, ok bool, size int64) (head, error) {
	if !ok && size == 0 {
		return l.begin()
	}
	from := point{}
	switch {
	case ok && h.boot == l.boot && size >= h.tip.end:
		from = h.tip
	case ok && size >= h.synced.end:
		from = h.synced
	}
	last, err := l.lastLine(from, size)
	if err != nil {
		return head{}, err
	}
	if !ok && last.sequence == 0 {
		return head{}, fmt.Errorf("%w: move it and %s%s away, or use the keystore that it belongs to", ErrForeign, l.path, headSuffix)
	}
	repair := Repair{HeadMissing: !ok}
	if ok {
		repair.lost(h, last, l.boot)
	}
	now := head{tip: last, synced: from, boot: l.boot}
	if size > last.end {
		if now.tip.end, err = l.dropTorn(last.end, size, &repair); err != nil {
			return head{}, err
		}
	}
	if repair == (Repair{}) {
		return now, nil
	}
	return l.write(now, Event{
		UserIdentity: UserIdentity{Type: "Service", ARN: "kmsfs"}, EventName: repairName,
		EventType: "AwsServiceEvent", ServiceEventDetails: &repair,
	})
}

// lost notes the events after last that h has.
func (r *Repair) lost(h head, last point, boot [16]byte) {
	if h.tip.sequence > last.sequence {
		r.LostFrom, r.LostTo = last.sequence+1, h.tip.sequence
		r.Unsynced = h.boot != boot && last.sequence >= h.synced.sequence
	}
}

// begin makes the head of an empty log. It is there before the first line, so
// that a log without one was not left so by a crash.
func (l *Log) begin() (head, error) {
	h := head{boot: l.boot}
	if err := l.head.Truncate(0); err != nil {
		return h, err
	}
	if err := writeAll(l.head.File, h.encode(l.key), 0); err != nil {
		return h, err
	}
	return h, errors.Join(datasync(l.head.File), syncDir(l.path))
}

// lastLine returns the last line that is of this log, from a point on.
func (l *Log) lastLine(from point, size int64) (point, error) {
	last := from
	err := eachLine(io.NewSectionReader(l.log, from.end, size-from.end), func(line []byte, end int64) error {
		if link, ok := decodeLine(l.key, line); ok {
			last = point{link.sequence, from.end + end, link.mac}
		}
		return nil
	})
	return last, err
}

// dropTorn removes what follows the last line if it is a torn line: something
// without a newline. Anything else is left there, and the log goes on after it.
func (l *Log) dropTorn(from, size int64, r *Repair) (end int64, err error) {
	rest := make([]byte, min(size-from, maxLine))
	if _, err := l.log.ReadAt(rest, from); err != nil {
		return 0, fmt.Errorf("read the end: %w", err)
	}
	if int64(len(rest)) == size-from && !bytes.Contains(rest, []byte{'\n'}) {
		hash := sha256.Sum256(rest)
		r.RemovedBytes, r.RemovedSHA256 = size-from, hex.EncodeToString(hash[:])
		return from, l.log.Truncate(from)
	}
	r.KeptBytes = size - from
	var last [1]byte
	if _, err := l.log.ReadAt(last[:], size-1); err != nil {
		return 0, fmt.Errorf("read the end: %w", err)
	}
	if last[0] == '\n' {
		return size, nil
	}
	return size + 1, writeAll(l.log.File, []byte{'\n'}, size)
}

// eachLine calls f with every line of r, its newline included and at most
// maxLine+1 bytes of it, and where it ends. What follows the last newline is no
// line. The line is f's until it returns.
func eachLine(r io.Reader, f func(line []byte, end int64) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	var end int64
	for {
		part, err := b.ReadSlice('\n')
		end += int64(len(part))
		if room := maxLine + 1 - len(line); room > 0 {
			line = append(line, part[:min(room, len(part))]...)
		}
		switch {
		case err == nil:
			if err := f(line, end); err != nil {
				return err
			}
			line = line[:0]
		case errors.Is(err, io.EOF):
			return nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("read lines: %w", err)
		}
	}
}

// shared is lock's argument for readers.
const shared = unix.LOCK_SH
