package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// How many there are at scale 1.
const (
	smallFiles  = 5000
	syncs       = 2000
	inserts     = 1000
	bulkInserts = 50000
	entries     = 100000
)

var (
	create = workload{
		name: "create", what: "5,000 files of 4 KiB made, in one directory", kind: mounts,
		run: createFiles,
	}
	syncWrite = workload{
		name: "fsync", what: "a file grown by 2,000 writes of 4 KiB, each synced", kind: mounts,
		run: writeSynced,
	}
	sqlite = workload{
		name: "sqlite", what: "1,000 inserts, each a transaction, and one of 50,000", kind: mounts,
		run: insertRows,
	}
	list = workload{
		name: "list", what: "ls -f of a directory of 100,000 files, cold", kind: mounts,
		on:  &preparation{name: "entries", fill: makeEntries},
		run: listEntries,
	}
)

func createFiles(ctx context.Context, in input, at mount) error {
	b := bytes.Repeat([]byte("kmsfs"), page/5+1)[:page]
	for i := range in.scaled(smallFiles) {
		if err := os.WriteFile(filepath.Join(at.dir(), fmt.Sprintf("file-%05d", i)), b, 0o644); err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	return nil
}

func writeSynced(ctx context.Context, in input, at mount) error {
	f, err := os.Create(filepath.Join(at.dir(), "log"))
	if err != nil {
		return err
	}
	b := make([]byte, page)
	for range in.scaled(syncs) {
		if _, err = f.Write(b); err != nil {
			break
		}
		if err = errors.Join(f.Sync(), ctx.Err()); err != nil {
			break
		}
	}
	return errors.Join(err, f.Close())
}

func insertRows(ctx context.Context, in input, at mount) error {
	var sql strings.Builder
	sql.WriteString("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);\n")
	insert := func(n int) {
		for range n {
			sql.WriteString("INSERT INTO t (v) VALUES ('a row of some forty bytes, as they often are');\n")
		}
	}
	insert(in.scaled(inserts))
	sql.WriteString("BEGIN;\n")
	insert(in.scaled(bulkInserts))
	sql.WriteString("COMMIT;\nSELECT count(*) FROM t;\n")
	c := exec.CommandContext(ctx, "sqlite3", "-bail", filepath.Join(at.dir(), "db"))
	c.Stdin, c.Stderr = strings.NewReader(sql.String()), os.Stderr
	out, err := c.Output()
	if want := fmt.Sprintf("%d\n", in.scaled(inserts)+in.scaled(bulkInserts)); err == nil && string(out) != want {
		err = fmt.Errorf("%q rows, want %q", out, want)
	}
	if err != nil {
		return fmt.Errorf("run sqlite3: %w", err)
	}
	return nil
}

func entriesDir(at mount) string { return filepath.Join(at.dir(), "entries") }

func makeEntries(ctx context.Context, in input, at mount) error {
	if err := os.Mkdir(entriesDir(at), 0o755); err != nil {
		return err
	}
	for i := range in.scaled(entries) {
		f, err := os.Create(filepath.Join(entriesDir(at), fmt.Sprintf("entry-%06d", i)))
		if err == nil {
			err = f.Close()
		}
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	return nil
}

func listEntries(ctx context.Context, in input, at mount) error {
	var out bytes.Buffer
	if err := command(ctx, &out, "ls", "-f", entriesDir(at)); err != nil {
		return err
	}
	// With . and ..
	if n, want := bytes.Count(out.Bytes(), []byte("\n")), in.scaled(entries)+2; n != want {
		return fmt.Errorf("ls shows %d entries, want %d", n, want)
	}
	return nil
}
