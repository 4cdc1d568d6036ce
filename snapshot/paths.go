package snapshot

import (
	"strings"

	"kmsfs/crypto"
	"kmsfs/volume"
)

// pathTeller goes along with the entries of a manifest, and tells their paths in the
// volume, of which the end where they are very long. A name that does not decrypt is
// told as the backing directory has it.
type pathTeller struct {
	access *volume.Access
	dirs   []tellerDir
}

type tellerDir struct {
	id    crypto.ID
	known bool
	path  string
}

// next takes the next entry.
func (p *pathTeller) next(x *Entry) string {
	if x.Kind == kindUp {
		last := len(p.dirs) - 1
		path := p.dirs[last].path
		p.dirs = p.dirs[:last]
		return path
	}
	if x.Name == "" {
		p.dirs = append(p.dirs, tellerDir{p.access.RootID(), true, ""})
		return "."
	}
	d := &p.dirs[len(p.dirs)-1]
	path := p.join(d, x.Name)
	if x.Kind == KindDirectory {
		next := tellerDir{path: path}
		if rec, err := p.access.DirRecord(x.Record); err == nil {
			next.id, next.known = rec.ID, true
		}
		p.dirs = append(p.dirs, next)
	}
	return path
}

// join is the path of an entry, by its full encrypted name.
func (p *pathTeller) join(d *tellerDir, full string) string {
	const most = 4096
	name := full
	if d.known {
		if plain, err := p.access.DecryptName(d.id, full); err == nil {
			name = plain
		}
	}
	path := name
	if d.path != "" {
		path = d.path + "/" + name
	}
	if n := len(path) - most; n > 0 {
		path = "…" + strings.ToValidUTF8(path[n:], "")
	}
	return path
}
