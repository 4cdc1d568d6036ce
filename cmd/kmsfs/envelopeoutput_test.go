package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// namedOutput is an output on a file system that has no files without names.
func namedOutput(t *testing.T, target string, o outputOptions) *outputFile {
	t.Helper()
	f := &outputFile{target: target, o: o}
	f.temp = f.tempName()
	var err error
	if f.File, err = os.OpenFile(f.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func unnamedOutput(t *testing.T, target string, o outputOptions) *outputFile {
	t.Helper()
	f, err := createOutput(target, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// outputs are both kinds.
var outputs = map[string]func(*testing.T, string, outputOptions) *outputFile{"unnamed": unnamedOutput, "named": namedOutput}

// onlyFile checks what a directory holds: one file, or none.
func onlyFile(t *testing.T, dir, name, content string, mode fs.FileMode) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if name == "" {
		if len(entries) != 0 {
			t.Errorf("left: %v", entries)
		}
		return
	}
	if len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("left: %v, want %s", entries, name)
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || string(b) != content {
		t.Errorf("%s has %q, want %q (%v)", name, b, content, err)
	}
	if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode() != mode {
		t.Errorf("%s has mode %v, want %v (%v)", name, st.Mode(), mode, err)
	}
}

func TestAnOutputAppearsWhenItIsWhole(t *testing.T) {
	for kind, create := range outputs {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "out")
			f := create(t, target, outputOptions{mode: 0o640})
			if _, err := f.WriteString("new"); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is there before it is whole: %v", err)
			}
			if err := f.commit(); err != nil {
				t.Fatal(err)
			}
			f.discard() // comes too late
			onlyFile(t, dir, "out", "new", 0o640)
		})
	}
}

func TestAnOutputReplacesAFileAndKeepsItsMode(t *testing.T) {
	for kind, create := range outputs {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "out")
			if err := os.WriteFile(target, []byte("old"), 0o604); err != nil {
				t.Fatal(err)
			}
			f := create(t, target, outputOptions{mode: 0o640})
			if _, err := f.WriteString("new"); err != nil {
				t.Fatal(err)
			}
			if err := f.commit(); err != nil {
				t.Fatal(err)
			}
			onlyFile(t, dir, "out", "new", 0o604)
		})
	}
}

func TestNothingIsLeftOfAnOutputThatIsDiscarded(t *testing.T) {
	for kind, create := range outputs {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "out")
			f := create(t, target, outputOptions{mode: 0o640})
			f.discard()
			if err := f.commit(); err == nil {
				t.Error("it was committed after that")
			}
			onlyFile(t, dir, "", "", 0)
			if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			create(t, target, outputOptions{mode: 0o640}).discard()
			onlyFile(t, dir, "out", "old", 0o600)
		})
	}
}

// The file comes while the output is being written.
func TestNoOverwriteKeepsAFileThatComesMeanwhile(t *testing.T) {
	for kind, create := range outputs {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			target := filepath.Join(dir, "out")
			f := create(t, target, outputOptions{mode: 0o640, noOverwrite: true})
			if err := os.WriteFile(target, []byte("theirs"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := f.commit(); !errors.Is(err, errKept) {
				t.Errorf("commit: %v", err)
			}
			f.discard()
			onlyFile(t, dir, "out", "theirs", 0o600)
			if _, err := createOutput(target, outputOptions{noOverwrite: true}); !errors.Is(err, errKept) {
				t.Errorf("create: %v", err)
			}
			if err := os.Remove(target); err != nil {
				t.Fatal(err)
			}
			f = create(t, target, outputOptions{mode: 0o640, noOverwrite: true})
			if err := f.commit(); err != nil {
				t.Fatal(err)
			}
			onlyFile(t, dir, "out", "", 0o640)
		})
	}
}

func TestAnOutputThatIsNotWholeIsItsOwnersAlone(t *testing.T) {
	for kind, create := range outputs {
		t.Run(kind, func(t *testing.T) {
			f := create(t, filepath.Join(t.TempDir(), "out"), outputOptions{mode: 0o666})
			defer f.discard()
			var st unix.Stat_t
			if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&0o777 != 0o600 {
				t.Errorf("mode %o, %v", st.Mode, err)
			}
		})
	}
}
