package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEachTestThatTheDocumentsNameExists keeps docs/SEMANTICS.md from promising
// what nothing holds it to.
func TestEachTestThatTheDocumentsNameExists(t *testing.T) {
	doc, err := os.ReadFile("../docs/SEMANTICS.md")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
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
	names := regexp.MustCompile(`Test[A-Z][A-Za-z0-9]+`).FindAllString(string(doc), -1)
	if len(names) < 15 {
		t.Fatalf("the document names %d tests: %q", len(names), names)
	}
	for _, name := range names {
		if !strings.Contains(code.String(), "func "+name+"(") {
			t.Errorf("docs/SEMANTICS.md names %s, which does not exist", name)
		}
	}
	for _, row := range readTable(t, "../docs/SEMANTICS.md", "operation", "test") {
		if !regexp.MustCompile("`Test[A-Z][A-Za-z0-9]+`").MatchString(row[1]) {
			t.Errorf("docs/SEMANTICS.md names no test for %q", row[0])
		}
	}
	for _, file := range regexp.MustCompile("[a-z/]+_test[.]go").FindAllString(string(doc), -1) {
		if _, err := os.Stat("../" + file); err != nil {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("docs/SEMANTICS.md names %s, which does not exist", file)
			}
		}
	}
}
