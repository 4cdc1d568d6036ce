package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "kmsfs"

// importRule is a row of the import table.
type importRule struct {
	folder string   // below the module's root
	code   []string // what it may import, as the table spells it
	tests  []string // and its tests beside that
}

// onlyIn keeps libraries in one folder each, whatever the table says.
var onlyIn = map[string]string{
	"github.com/spf13/cobra":       "cmd",
	"github.com/spf13/pflag":       "cmd",
	"github.com/hanwen/go-fuse/v2": "fs",
}

func TestImportsAreThoseOfTheTable(t *testing.T) {
	rules := readImportTable(t)
	packages := listPackages(t)
	if len(packages) < 5 {
		t.Fatalf("go list found %d packages, which cannot be all", len(packages))
	}
	for _, p := range packages {
		for _, complaint := range checkImports(rules, p) {
			t.Error(complaint)
		}
	}
}

// TestForbiddenImportsAreNamed makes sure that the check finds something.
func TestForbiddenImportsAreNamed(t *testing.T) {
	rules := readImportTable(t)
	for _, c := range []struct {
		name    string
		p       goPackage
		culprit string // "" if all is well
	}{
		{"volume on its layers", goPackage{ImportPath: "kmsfs/volume", Imports: []string{"os", "kmsfs/crypto", "kmsfs/kmsprovider", "golang.org/x/sys/unix"}}, ""},
		{"volume on FUSE", goPackage{ImportPath: "kmsfs/volume", Imports: []string{"github.com/hanwen/go-fuse/v2/fuse"}}, "go-fuse"},
		{"volume on a provider", goPackage{ImportPath: "kmsfs/volume", Imports: []string{"kmsfs/kmsprovider/local"}}, "kmsfs/kmsprovider/local"},
		{"its tests on a provider", goPackage{ImportPath: "kmsfs/volume", TestImports: []string{"kmsfs/kmsprovider/local"}}, ""},
		{"volume on what is above", goPackage{ImportPath: "kmsfs/volume", Imports: []string{"kmsfs/fs"}}, "kmsfs/fs"},
		{"fs on ciphertext", goPackage{ImportPath: "kmsfs/fs", Imports: []string{"kmsfs/crypto"}}, "kmsfs/crypto"},
		{"crypto on the system", goPackage{ImportPath: "kmsfs/crypto", Imports: []string{"golang.org/x/sys/unix"}}, "golang.org/x/sys/unix"},
		{"crypto's tests on the system", goPackage{ImportPath: "kmsfs/crypto", XTestImports: []string{"golang.org/x/sys/unix"}}, "golang.org/x/sys/unix"},
		{"crypto on what its tests compare it with", goPackage{ImportPath: "kmsfs/crypto", Imports: []string{"github.com/tink-crypto/tink-go/v2/daead/subtle"}}, "tink-go/v2/daead"},
		{"crypto's tests on the rest of tink", goPackage{ImportPath: "kmsfs/crypto", TestImports: []string{"github.com/tink-crypto/tink-go/v2/aead"}}, "tink-go/v2/aead"},
		{"a name that only begins alike", goPackage{ImportPath: "kmsfs/crypto", Imports: []string{"golang.org/x/cryptography"}}, "cryptography"},
		{"the local KMS on crypto", goPackage{ImportPath: "kmsfs/kmsprovider/local", Imports: []string{"kmsfs/crypto", "kmsfs/kmsprovider"}}, ""},
		{"providers on crypto", goPackage{ImportPath: "kmsfs/kmsprovider", Imports: []string{"kmsfs/crypto"}}, "kmsfs/crypto"},
		{"cobra in the command", goPackage{ImportPath: "kmsfs/cmd/kmsfs", Imports: []string{"github.com/spf13/cobra", "kmsfs/fs"}}, ""},
		{"cobra elsewhere", goPackage{ImportPath: "kmsfs/fs", Imports: []string{"github.com/spf13/cobra"}}, "cobra"},
		{"C", goPackage{ImportPath: "kmsfs/fs", Imports: []string{"C"}}, `"C"`},
		{"a folder that is not in the table", goPackage{ImportPath: "kmsfs/util"}, "kmsfs/util"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := checkImports(rules, c.p)
			switch {
			case c.culprit == "" && len(got) > 0:
				t.Errorf("complains: %s", got)
			case c.culprit != "" && (len(got) != 1 || !strings.Contains(got[0], c.culprit)):
				t.Errorf("want one complaint about %s, got %q", c.culprit, got)
			}
		})
	}
}

// checkImports says what a package imports against the rules, a sentence each.
func checkImports(rules []importRule, p goPackage) []string {
	folder := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
	rule, ok := ruleFor(rules, folder)
	if !ok {
		return []string{fmt.Sprintf("package %s is in no row of the import table in docs/ARCHITECTURE.md", p.ImportPath)}
	}
	var out []string
	for _, imported := range p.Imports {
		if why := forbidden(folder, rule.folder, rule.code, imported); why != "" {
			out = append(out, fmt.Sprintf("package %s imports %q, %s", p.ImportPath, imported, why))
		}
	}
	for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
		if why := forbidden(folder, rule.folder, slices.Concat(rule.code, rule.tests), imported); why != "" {
			out = append(out, fmt.Sprintf("the tests of package %s import %q, %s", p.ImportPath, imported, why))
		}
	}
	return out
}

// ruleFor finds the row of a folder: its own, or that of the nearest folder above it.
func ruleFor(rules []importRule, folder string) (best importRule, ok bool) {
	for _, r := range rules {
		if within(folder, r.folder) && (!ok || len(r.folder) > len(best.folder)) {
			best, ok = r, true
		}
	}
	return best, ok
}

// forbidden says why a package in folder may not import a path, or "".
func forbidden(folder, row string, allowed []string, imported string) string {
	if imported == "C" {
		return "but nothing here is written in C"
	}
	for library, home := range onlyIn {
		// A conformance suite is no part of the library that it comes with.
		if within(imported, library) && !within(folder, home) && !slices.Contains(allowed, imported) {
			return "which only " + home + " may"
		}
	}
	own, inModule := strings.CutPrefix(imported, module+"/")
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case inModule && within(own, row):
		return ""
	case !inModule && !strings.Contains(first, "."):
		return "" // the standard library
	case within(imported, "golang.org/x/sys") && row != "crypto":
		return ""
	}
	for _, a := range allowed {
		tree, all := strings.CutSuffix(a, "/...")
		switch {
		case inModule && (own == a || all && within(own, tree)):
			return ""
		case !inModule && within(imported, a):
			return ""
		}
	}
	return "which the import table in docs/ARCHITECTURE.md does not allow " + row
}

// within tells whether a path is root or below it.
func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// readImportTable reads the rows of docs/ARCHITECTURE.md whose head has "may import".
func readImportTable(t *testing.T) []importRule {
	var rules []importRule
	for _, row := range readTable(t, "../docs/ARCHITECTURE.md", "folder", "may import", "its tests also") {
		rule := importRule{code: ticked(row[1]), tests: ticked(row[2])}
		if names := ticked(row[0]); len(names) == 1 {
			rule.folder = names[0]
		} else {
			t.Fatalf("docs/ARCHITECTURE.md: %q is not one folder", row[0])
		}
		rules = append(rules, rule)
	}
	if len(rules) < 5 {
		t.Fatalf("the import table has %d rows, which cannot be all", len(rules))
	}
	return rules
}

// ticked gives what stands between backticks.
func ticked(cell string) (out []string) {
	for i, part := range strings.Split(cell, "`") {
		if i%2 == 1 {
			out = append(out, part)
		}
	}
	return out
}

// goPackage is what this test wants to know from go list.
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func listPackages(t *testing.T) []goPackage {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all = append(all, p)
	}
}

// readTable gives the named columns of the rows of the first table in a Markdown file that has them all.
func readTable(t *testing.T, file string, columns ...string) (rows [][]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Fatal(err)
	}
	var at []int // of the columns; nil outside of the table
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if at != nil {
				return rows
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case at == nil:
			for _, c := range columns {
				if i := slices.Index(cells, c); i >= 0 {
					at = append(at, i)
				}
			}
			if len(at) != len(columns) {
				at = nil
			}
		case strings.Trim(cells[0], "-:") == "":
		default:
			var row []string
			for _, i := range at {
				if i >= len(cells) {
					t.Fatalf("%s: a row is too short: %s", file, line)
				}
				row = append(row, cells[i])
			}
			rows = append(rows, row)
		}
	}
	if at == nil {
		t.Fatalf("%s has no table with the columns %q", file, columns)
	}
	return rows
}
