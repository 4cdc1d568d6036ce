package volume

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// undetectable is a row of THREAT_MODEL.md's table of what goes unseen.
type undetectable struct {
	tested bool // here: some rows are about what needs a time before
	fsck   bool // fsck sees it
}

// forFsck lists what reading does not show, and fsck must.
var forFsck = []string{"older-block", "erased-block"}

// undetectableRows parses the table: | key | what | fsck |.
func undetectableRows(t *testing.T) map[string]undetectable {
	b, err := os.ReadFile(filepath.Join("..", "docs", "THREAT_MODEL.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]undetectable)
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		key := strings.Trim(cells[1], " `")
		if _, again := rows[key]; again {
			t.Errorf("THREAT_MODEL.md has two rows %q", key)
		}
		rows[key] = undetectable{tested: key != "rollback", fsck: strings.TrimSpace(cells[3]) == "yes"}
	}
	if len(rows) == 0 {
		t.Fatal("THREAT_MODEL.md has no table of what goes unseen")
	}
	for key, row := range rows {
		if row.fsck != slices.Contains(forFsck, key) {
			t.Errorf("row %q: THREAT_MODEL.md says that fsck sees it: %v; forFsck says otherwise", key, row.fsck)
		}
	}
	return rows
}
