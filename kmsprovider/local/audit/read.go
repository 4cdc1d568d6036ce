package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"time"
)

// pollInterval is how often Follow looks.
const pollInterval = 100 * time.Millisecond

// Read calls f with every whole line of the log at path, its newline included.
// It checks nothing and needs no key. The line is f's until it returns.
func Read(path string, f func(line []byte) error) error {
	log, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	defer log.Close()
	return eachLine(log, func(line []byte, _ int64) error { return f(line) })
}

// Follow is Read, and goes on with the lines that come, until ctx ends; it
// returns nil then. It waits for a log that is not there, and begins anew with
// one that took its place.
func Follow(ctx context.Context, path string, f func(line []byte) error) error {
	var log *os.File
	var at int64 // in log, after the last whole line
	defer func() { log.Close() }()
	for {
		if log == nil {
			var err error
			if log, err = os.Open(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("follow audit log: %w", err)
			}
			at = 0
		}
		if log != nil {
			next := at
			err := eachLine(io.NewSectionReader(log, at, math.MaxInt64-at), func(line []byte, end int64) error {
				next = at + end
				return f(line)
			})
			if err != nil {
				return err
			}
			at = next
			replaced, err := replacedSince(log, path, at)
			if err != nil {
				return fmt.Errorf("follow audit log: %w", err)
			}
			if replaced {
				log.Close()
				log = nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollInterval):
		}
	}
}

// replacedSince tells whether path no longer names log, or log is shorter than
// what was read of it.
func replacedSince(log *os.File, path string, read int64) (bool, error) {
	ours, err := log.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return !os.SameFile(ours, now) || now.Size() < read, nil
}
