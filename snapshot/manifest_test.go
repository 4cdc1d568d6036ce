package snapshot

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// someEntries are a tree with one of every kind, and twice as many files as given.
func someEntries(files int) (entries []*Entry) {
	a := Attributes{Mode: 0o644, UID: 1, GID: 2, MTime: unix.Timespec{Sec: -1, Nsec: 999999999}, ATime: unix.Timespec{Sec: 1 << 40}}
	put := func(x Entry) { entries = append(entries, &x) }
	put(Entry{Kind: KindDirectory, Attributes: a})
	put(Entry{Kind: KindFIFO, Name: "a FIFO", Attributes: a, Group: 1})
	for i := range files {
		f := &File{ID: crypto.ID{1, byte(i)}, Generation: uint64(i), Size: uint64(i * 1000), Push: crypto.ID{byte(i % 3)}, Sum: [32]byte{byte(i)}}
		f.Sidecar = Slice{Bundle: uint64(i % 2), Offset: uint32(i), Length: 157, Sum: [16]byte{7}}
		if i%5 == 1 {
			f.Extents = []Extent{{0, 100}, {f.CipherSize() - 20, 20}}
			f.Checksum = "abc-3"
		}
		x := Entry{Kind: KindFile, Name: fmt.Sprintf("file %06d", i), Attributes: a, File: f}
		if i == 0 {
			x.Xattrs = []Xattr{{"user.kmsfs.x", []byte("value")}, {"user.kmsfs.y", nil}}
		}
		put(x)
	}
	put(Entry{Kind: KindDirectory, Name: "sub", Attributes: a, Record: bytes.Repeat([]byte{5}, crypto.DirRecordSize)})
	put(Entry{Kind: KindLink, Name: "link", Group: 1})
	put(Entry{Kind: KindSymlink, Name: "symlink", Attributes: a, Target: "target", Long: []byte("long")})
	put(Entry{Kind: KindFIFO, Name: "fifo", Attributes: a, Group: 2})
	put(Entry{Kind: KindSocket, Name: "socket", Attributes: a})
	put(Entry{Kind: KindCharDevice, Name: "device", Attributes: a, Device: 259})
	put(Entry{Kind: KindBlockDevice, Name: "block", Attributes: a, Device: 1 << 40})
	put(Entry{Kind: kindUp})
	put(Entry{Kind: kindUp})
	return entries
}

var someHead = Head{Generation: 7, Base: 6, Push: crypto.ID{9}, Created: 1e9, Config: []byte("{}")}

// encode writes a manifest, not sealed.
func encode(w io.Writer, h *Head, entries []*Entry, bundles []Bundle) error {
	e, err := newEncoder(w, h)
	for _, x := range entries {
		if err == nil {
			err = e.put(x)
		}
	}
	if err != nil {
		return err
	}
	e.Bundles = bundles
	return e.end()
}

// decode reads one to its end.
func decode(r io.Reader) (d *decoder, entries []*Entry, err error) {
	if d, err = newDecoder(r); err != nil {
		return nil, nil, err
	}
	for {
		x, err := d.next()
		if err == io.EOF {
			return d, entries, nil
		}
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, x)
	}
}

func TestAManifestIsReadAsItWasWritten(t *testing.T) {
	key, err := crypto.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	volume := crypto.ID{1}
	cipher := crypto.NewManifestCipher(key, volume)
	bundles := []Bundle{{Push: crypto.ID{1}, Sum: [32]byte{2}, Size: 3, Live: 2}}
	for _, files := range []int{0, 1, 100, 600, 2000} {
		var plain, sealed bytes.Buffer
		if err := encode(&plain, &someHead, someEntries(files), bundles); err != nil {
			t.Fatal(err)
		}
		s, err := newSealer(&sealed, cipher, rand.Reader, volume, 7)
		if err == nil {
			err = encode(s, &someHead, someEntries(files), bundles)
		}
		if err == nil {
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		whole := sealed.Bytes()
		o, err := newOpener(bytes.NewReader(whole), cipher, volume, 7)
		if err != nil {
			t.Fatal(err)
		}
		d, entries, err := decode(o)
		if err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		if err := encode(&again, &d.Head, entries, d.Bundles); err != nil || !bytes.Equal(again.Bytes(), plain.Bytes()) {
			t.Fatalf("%d files: it is not what was written", files)
		}
		// Cut anywhere it is refused, as it is where chunks change places.
		for n := 0; n < len(whole); n += max(1, len(whole)/200) {
			if err := openAll(whole[:n], cipher, volume); !errors.Is(err, ErrManifest) {
				t.Fatalf("%d files, cut at %d of %d: %v", files, n, len(whole), err)
			}
		}
		if len(whole) > manifestHead+2*sealedChunkSize {
			b := bytes.Clone(whole)
			copy(b[manifestHead:], whole[manifestHead+sealedChunkSize:][:sealedChunkSize])
			copy(b[manifestHead+sealedChunkSize:], whole[manifestHead:][:sealedChunkSize])
			if err := openAll(b, cipher, volume); !errors.Is(err, ErrManifest) {
				t.Fatalf("with chunks exchanged: %v", err)
			}
			if err := openAll(whole[:manifestHead+sealedChunkSize], cipher, volume); !errors.Is(err, ErrManifest) {
				t.Fatalf("cut between chunks: %v", err)
			}
		}
		if err := openAll(append(bytes.Clone(whole), 0), cipher, volume); !errors.Is(err, ErrManifest) {
			t.Fatalf("with a byte more: %v", err)
		}
	}
}

func openAll(b []byte, cipher *crypto.ManifestCipher, volume crypto.ID) error {
	o, err := newOpener(bytes.NewReader(b), cipher, volume, 7)
	if err == nil {
		_, _, err = decode(o)
	}
	return err
}

func TestOnlyWhatIsTheSameHasTheSameDigest(t *testing.T) {
	digest := func(change func([]*Entry)) [32]byte {
		entries := someEntries(10)
		if change != nil {
			change(entries)
		}
		var b bytes.Buffer
		if err := encode(&b, &someHead, entries, nil); err != nil {
			t.Fatal(err)
		}
		d, _, err := decode(&b)
		if err != nil {
			t.Fatal(err)
		}
		return d.Digest
	}
	same := digest(nil)
	for what, change := range map[string]func(*Entry){
		"atime": func(x *Entry) { x.ATime.Sec++ }, "push": func(x *Entry) { x.File.Push[0]++ }, "offset": func(x *Entry) { x.File.Sidecar.Offset++ },
	} {
		if digest(func(e []*Entry) { change(e[4]) }) != same {
			t.Errorf("another %s is another state", what)
		}
	}
	for what, change := range map[string]func(*Entry){
		"mtime": func(x *Entry) { x.MTime.Nsec = 1 }, "mode": func(x *Entry) { x.Mode++ }, "content": func(x *Entry) { x.File.Header[0]++ },
		"sidecar": func(x *Entry) { x.File.Sidecar.Sum[0]++ }, "name": func(x *Entry) { x.Name += "x" }, "root": func(x *Entry) { x.File.Root[3]++ },
	} {
		if digest(func(e []*Entry) { change(e[4]) }) == same {
			t.Errorf("another %s is the same state", what)
		}
	}
}

func FuzzManifest(f *testing.F) {
	seeds := 0
	for _, files := range []int{0, 1, 7} {
		var b bytes.Buffer
		if err := encode(&b, &someHead, someEntries(files), []Bundle{{Size: 1}}); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
		seeds++
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, entries, err := decode(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrManifest) {
				t.Fatalf("%v is not ErrManifest", err)
			}
			return
		}
		// What is read can be written, and is read as the same.
		var again, third bytes.Buffer
		if err := encode(&again, &d.Head, entries, d.Bundles); err != nil {
			t.Fatal(err)
		}
		d2, entries2, err := decode(bytes.NewReader(again.Bytes()))
		if err != nil {
			t.Fatalf("what was written again is refused: %v", err)
		}
		if err := encode(&third, &d2.Head, entries2, d2.Bundles); err != nil || !bytes.Equal(again.Bytes(), third.Bytes()) {
			t.Fatal("it is another one")
		}
	})
}

func TestKeysAreReadAsTheyWereWritten(t *testing.T) {
	for _, g := range []uint64{1, 42, 1<<64 - 1} {
		for _, suffix := range []string{"", prunedSuffix} {
			got, pruned, ok := parseManifestKey(manifestKey(g) + suffix)
			if !ok || got != g || pruned != (suffix != "") {
				t.Errorf("%s is %d, %v, %v", manifestKey(g)+suffix, got, pruned, ok)
			}
		}
	}
	for _, key := range []string{"manifests/1", "manifests/00000000000000000000", "manifests/0000000000000000000x", "other/00000000000000000001"} {
		if _, _, ok := parseManifestKey(key); ok {
			t.Errorf("%s is one", key)
		}
	}
}
