package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/crypto"
)

func TestAVolumeIsAdmittedAsTheHostKnowsIt(t *testing.T) {
	known1, other := crypto.ID{1}, crypto.ID{2}
	print1, print2 := [32]byte{1}, [32]byte{2}
	hex1 := "01" + strings.Repeat("0", 62)
	for what, c := range map[string]struct {
		id          crypto.ID
		fingerprint [32]byte
		elsewhere   bool // not in the directory where volume 1 was
		o           AdmitOptions
		refused     bool
		firstSeen   bool
	}{
		"the same":                                  {id: known1, fingerprint: print1},
		"the same, moved or copied":                 {id: known1, fingerprint: print1, elsewhere: true},
		"another volume elsewhere":                  {id: other, fingerprint: print2, elsewhere: true, firstSeen: true},
		"another fingerprint":                       {id: known1, fingerprint: print2, refused: true},
		"another fingerprint elsewhere":             {id: known1, fingerprint: print2, elsewhere: true, refused: true},
		"another fingerprint, trusted":              {id: known1, fingerprint: print2, o: AdmitOptions{TrustNew: true}, firstSeen: true},
		"another volume in its place":               {id: other, fingerprint: print2, refused: true},
		"another volume of that key in its place":   {id: other, fingerprint: print1, refused: true},
		"another volume in its place, trusted":      {id: other, fingerprint: print2, o: AdmitOptions{TrustNew: true}, firstSeen: true},
		"the demanded fingerprint":                  {id: known1, fingerprint: print1, o: AdmitOptions{Demand: hex1}},
		"the demanded fingerprint in capitals":      {id: known1, fingerprint: [32]byte{1}, o: AdmitOptions{Demand: strings.ToUpper(hex1)}},
		"another than the demanded one":             {id: known1, fingerprint: print1, o: AdmitOptions{Demand: "02" + hex1[2:]}, refused: true},
		"another than demanded, trusted":            {id: known1, fingerprint: print2, o: AdmitOptions{Demand: hex1, TrustNew: true}, refused: true},
		"a part of the demanded fingerprint":        {id: known1, fingerprint: print1, o: AdmitOptions{Demand: hex1[:8]}, refused: true},
		"the demanded fingerprint of a changed one": {id: known1, fingerprint: print2, o: AdmitOptions{Demand: "02" + hex1[2:]}, refused: true},
		"unknown, another than demanded":            {id: other, fingerprint: print2, elsewhere: true, o: AdmitOptions{Demand: hex1}, refused: true},
	} {
		s := newStore(t)
		dir := known(t, s, known1)
		must(s.begin(known1, crypto.ID{9}, "boot"))(t)
		before := string(readFile(t, s.file(known1)))
		at := dir
		if c.elsewhere {
			at = t.TempDir()
		}
		h, firstSeen, err := s.admit(at, c.id, c.fingerprint, []string{"key 2"}, c.o)
		if c.refused {
			if !errors.Is(err, ErrFingerprint) || h != nil || firstSeen || !strings.Contains(err.Error(), at) {
				t.Errorf("%s: %+v, %v", what, h, err)
			}
			if entries := must(os.ReadDir(s.dir))(t); len(entries) != 1 || string(readFile(t, s.file(known1))) != before {
				t.Errorf("%s: refused, but host state has changed", what)
			}
			continue
		}
		if err != nil || firstSeen != c.firstSeen {
			t.Errorf("%s: first seen %v, %v", what, firstSeen, err)
			continue
		}
		if kept := loadState(t, s, c.id); kept.Path != at || kept.Fingerprint != h.Fingerprint || kept.KeyIDs[0] != "key 2" || kept.Open == firstSeen || h.Open == firstSeen {
			t.Errorf("%s: kept %+v, returned %+v", what, kept, h)
		}
		if old := loadState(t, s, known1); c.id != known1 && (old.Path == "") == c.elsewhere {
			t.Errorf("%s: the volume of before is at %q", what, old.Path)
		}
		if _, again, err := s.admit(at, c.id, c.fingerprint, []string{"key 2"}, AdmitOptions{}); err != nil || again {
			t.Errorf("%s: the second time: first seen %v, %v", what, again, err)
		}
	}
}

func TestAPathIsKnownByWhereItLeads(t *testing.T) {
	s := newStore(t)
	dir := known(t, s, crypto.ID{1})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.admit(link, crypto.ID{2}, [32]byte{2}, nil, AdmitOptions{}); !errors.Is(err, ErrFingerprint) {
		t.Errorf("another volume behind a link to a known path: %v", err)
	}
	if _, _, err := s.admit(filepath.Join(dir, "missing"), crypto.ID{1}, [32]byte{1}, nil, AdmitOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a path that leads nowhere: %v", err)
	}
}

func TestStrangeFilesInTheStateDirectoryAreInNobodysWay(t *testing.T) {
	s := newStore(t)
	dir := known(t, s, crypto.ID{1})
	for _, name := range []string{"notes", "x.json", crypto.ID{7}.String() + ".json", crypto.ID{1}.String() + ".json.tmp"} {
		writeFile(t, filepath.Join(s.dir, name), []byte("not a state"))
	}
	if _, _, err := s.admit(dir, crypto.ID{1}, [32]byte{1}, nil, AdmitOptions{}); err != nil {
		t.Error(err)
	}
}

func TestAnUnchangedStateIsNotWrittenAgain(t *testing.T) {
	s := newStore(t)
	dir := known(t, s, crypto.ID{1})
	before := must(os.Stat(s.file(crypto.ID{1})))(t)
	if _, _, err := s.admit(dir, crypto.ID{1}, [32]byte{1}, []string{"key 1"}, AdmitOptions{}); err != nil {
		t.Fatal(err)
	}
	if after := must(os.Stat(s.file(crypto.ID{1})))(t); !os.SameFile(before, after) {
		t.Error("replaced")
	}
}

func TestOpenRefusesAnotherVolumeAtAKnownPathUntilItIsTrusted(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	print, id := v.Fingerprint(), v.id
	b.close(v)
	other := newBench(t, ModeVolume)
	other.kms, other.state = b.kms, t.TempDir()
	if err := os.RemoveAll(other.dir); err != nil {
		t.Fatal(err)
	}
	other.init()
	if err := os.Rename(b.dir, b.dir+".aside"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other.dir, b.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := b.tryOpen(); !errors.Is(err, ErrFingerprint) {
		t.Fatalf("another volume: %v", err)
	}
	if _, err := b.tryOpen(func(o *Options) { o.Fingerprint = print; o.TrustNew = true }); !errors.Is(err, ErrFingerprint) {
		t.Fatalf("another volume than demanded: %v", err)
	}
	v = b.open(func(o *Options) { o.TrustNew = true })
	if v.id == id || !strings.Contains(b.log.String(), v.Fingerprint()) {
		t.Errorf("opened %s, logged %q", v.id, b.log)
	}
	b.close(v)
	b.dir += ".aside"
	v = b.open(func(o *Options) { o.Fingerprint = print })
	if v.id != id || strings.Contains(b.log.String(), print) {
		t.Errorf("opened %s, logged %q", v.id, b.log)
	}
}

func TestAnOlderConfigurationIsReadOnlyUnlessItIsTrusted(t *testing.T) {
	s := newStore(t)
	dir, id, print := t.TempDir(), crypto.ID{1}, [32]byte{1}
	admit := func(generation uint64, keyID string, o AdmitOptions) (*HostState, error) {
		o.Generation = generation
		h, _, err := s.admit(dir, id, print, []string{keyID}, o)
		return h, err
	}
	must(admit(3, "key 3", AdmitOptions{}))(t)
	if _, err := admit(2, "key 2", AdmitOptions{}); !errors.Is(err, ErrOlder) {
		t.Errorf("an older one is let in: %v", err)
	}
	for _, c := range []struct {
		generation, want uint64
		keyID, wantKey   string
		o                AdmitOptions
	}{
		{3, 3, "key 3", "key 3", AdmitOptions{}},
		{2, 3, "key 2", "key 3", AdmitOptions{ReadOnly: true}},
		{4, 4, "key 4", "key 4", AdmitOptions{ReadOnly: true}},
		{2, 2, "key 2", "key 2", AdmitOptions{TrustNew: true}},
		{2, 2, "key 2", "key 2", AdmitOptions{}},
	} {
		h, err := admit(c.generation, c.keyID, c.o)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		for _, h := range []*HostState{h, loadState(t, s, id)} {
			if h.Generation != c.want || h.KeyIDs[0] != c.wantKey {
				t.Errorf("%+v: generation %d, keys %v", c, h.Generation, h.KeyIDs)
			}
		}
	}
}
