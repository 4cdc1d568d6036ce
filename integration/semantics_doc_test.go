package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestEachTestThatTheDocumentsNameExists keeps the documents from promising what
// nothing holds them to.
func TestEachTestThatTheDocumentsNameExists(t *testing.T) {
	var code strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			b, err := os.ReadFile(path)
			code.Write(b)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []struct {
		file, subject string // subject: the column of what the table's tests are of; empty: it has no such table
		atLeast       int    // tests
	}{
		{"docs/SEMANTICS.md", "operation", 15},
		{"docs/REGRESSIONS.md", "number", 25},
		{"docs/S3.md", "", 4},
	} {
		doc, err := os.ReadFile("../" + d.file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`Test[A-Z][A-Za-z0-9]+`).FindAllString(string(doc), -1)
		if len(names) < d.atLeast {
			t.Fatalf("%s names %d tests: %q", d.file, len(names), names)
		}
		for _, name := range names {
			if !strings.Contains(code.String(), "func "+name+"(") {
				t.Errorf("%s names %s, which does not exist", d.file, name)
			}
		}
		for _, row := range testedRows(t, d.file, d.subject) {
			if !regexp.MustCompile("`Test[A-Z][A-Za-z0-9]+`").MatchString(row[1]) {
				t.Errorf("%s names no test for %q", d.file, row[0])
			}
		}
		for _, file := range regexp.MustCompile("[a-z/]+_test[.]go").FindAllString(string(doc), -1) {
			if _, err := os.Stat("../" + file); err != nil {
				if _, err := os.Stat(file); err != nil {
					t.Errorf("%s names %s, which does not exist", d.file, file)
				}
			}
		}
	}
	for i, row := range readTable(t, "../docs/REGRESSIONS.md", "number", "test") {
		if row[0] != strconv.Itoa(i+1) {
			t.Errorf("docs/REGRESSIONS.md has number %s in line %d of its table", row[0], i+1)
		}
	}
}

// testedRows is a document's table of subjects and tests.
func testedRows(t *testing.T, file, subject string) [][]string {
	t.Helper()
	if subject == "" {
		return nil
	}
	return readTable(t, "../"+file, subject, "test")
}
