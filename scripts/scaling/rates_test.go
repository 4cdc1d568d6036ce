package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"kmsfs/integration/emulator"
	"kmsfs/integration/program"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/kmsprovider/slow"
	"kmsfs/snapshot/bucket"
	"kmsfs/volume"
)

const (
	files     = 20_000
	perDir    = 100
	objectsOf = 4096 // bytes of a small object or file
)

func TestMain(m *testing.M) { os.Exit(program.Main(m)) }

// TestTheDocumentHasTheTables keeps docs/SCALING.md to the arithmetic.
func TestTheDocumentHasTheTables(t *testing.T) {
	doc, err := os.ReadFile("../../docs/SCALING.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	tables(&b, measured)
	for table := range strings.SplitSeq(strings.TrimSpace(b.String()), "\n\n") {
		if !strings.Contains(string(doc), table+"\n") {
			t.Errorf("docs/SCALING.md lacks this, which go run ./scripts/scaling prints:\n%s", table)
		}
	}
}

func TestNumbersAreSaidAsPeopleSayThem(t *testing.T) {
	for got, want := range map[string]string{
		count(0.5): "0.5", count(7): "7", count(1234567): "1,230,000", dollars(0.3): "$0.30", dollars(30000): "$30,000",
		took(1): "1.0 s", took(1000): "17 min", took(100_000): "28 h", took(1e6): "12 days",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// stage is a volume of so many files, without a mount.
type stage struct {
	dir, state string
	place      string // keystore, passphrase
	keys       *kmsprovider.Registry
	slow       *slow.Provider
	to         string // a second key
}

// build makes a volume of small files, and tells how long it took.
func build(b *testing.B, n int, delay time.Duration) (*stage, time.Duration) {
	b.Helper()
	place := b.TempDir()
	options := local.Options{
		Path: filepath.Join(place, "keystore.json"), Passphrase: func() ([]byte, error) { return []byte("correct horse"), nil },
		KDF: &local.KDFParams{Time: 1, MemoryKiB: 64, Threads: 1},
	}
	store, err := local.Create(context.Background(), options)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	if _, err := store.EnsureDefaultKey(context.Background()); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(place, "passphrase"), []byte("correct horse\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	s := &stage{dir: filepath.Join(place, "backing"), state: filepath.Join(place, "state"), place: place, keys: kmsprovider.NewRegistry()}
	made, err := store.Do(context.Background(), store.Root(), &local.CreateKeyInput{})
	if err != nil {
		b.Fatal(err)
	}
	s.to = made.(*local.CreateKeyOutput).KeyMetadata.ARN
	s.keys.Register("local", func(ctx context.Context) (kmsprovider.Provider, error) {
		p, err := local.Open(ctx, options)
		if err != nil {
			return nil, err
		}
		s.slow = slow.New(p, delay)
		return s.slow, nil
	})
	b.Cleanup(func() { s.keys.Close() })
	_, err = volume.Init(context.Background(), s.dir, volume.InitOptions{
		Keys: []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/kmsfs"}}, Mode: volume.ModeFile, Providers: s.keys, StateDir: s.state,
	})
	if err != nil {
		b.Fatal(err)
	}
	v, err := volume.Open(context.Background(), s.dir, volume.Options{Providers: s.keys, StateDir: s.state})
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	content := bytes.Repeat([]byte("scaling "), objectsOf/8)
	var in *volume.Node
	for i := range n {
		if i%perDir == 0 {
			if in, _, err = v.Root().Mkdir(fmt.Sprint("directory ", i), 0o755, volume.Owner{}); err != nil {
				b.Fatal(err)
			}
		}
		f, _, err := in.Create(fmt.Sprint("file ", i), 0o644, volume.Owner{})
		if err == nil {
			_, err = f.WriteAt(context.Background(), content, 0)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(start)
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
	return s, took
}

func BenchmarkVolume(b *testing.B) {
	s, took := build(b, files, 0)
	b.ReportMetric(files/took.Seconds(), "creates/s")

	start, headers := time.Now(), 0
	buf := make([]byte, 144)
	err := filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.Contains(p, "/.kmsfs") {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.ReadAt(buf, 0)
		headers++
		return err
	})
	if err != nil || headers != files {
		b.Fatal(headers, err)
	}
	b.ReportMetric(files/time.Since(start).Seconds(), "headers/s")

	start = time.Now()
	if _, err := volume.Fsck(context.Background(), s.dir, volume.Options{Providers: s.keys, StateDir: s.state}, volume.FsckOptions{}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(files/time.Since(start).Seconds(), "fsck-files/s")

	before := requests(s)
	start = time.Now()
	s.rewrap(b)
	b.ReportMetric(files/time.Since(start).Seconds(), "rewraps/s")
	b.ReportMetric(float64(requests(s)-before)/files, "calls/rewrap")
}

func BenchmarkRewrapWithASlowKMS(b *testing.B) {
	s, _ := build(b, 2000, 10*time.Millisecond)
	s.slow.Peak()
	s.rewrap(b)
	b.ReportMetric(float64(s.slow.Peak()), "calls-at-once")
}

// BenchmarkMemory is what commands need for each file beyond what they need anyway.
func BenchmarkMemory(b *testing.B) {
	small, _ := build(b, files/10, 0)
	large, _ := build(b, files, 0)
	for what, args := range map[string][]string{
		"fsck-bytes/file":   {"fsck"},
		"rewrap-bytes/file": {"rewrap", "--from", "local:alias/kmsfs", "--to"},
	} {
		more := large.peak(b, args) - small.peak(b, args)
		b.ReportMetric(float64(more)*1024/(files-files/10), what)
	}
}

// peak runs the command on the volume, and returns the most memory that it had, in KiB.
func (s *stage) peak(b *testing.B, args []string) int64 {
	b.Helper()
	if args[0] == "rewrap" {
		args = append(slices.Clone(args), "local:"+s.to)
	}
	cmd := exec.Command(program.Path(b), append(slices.Clone(args), s.dir)...)
	cmd.Env = append(os.Environ(), "KMSFS_KEYSTORE="+filepath.Join(s.place, "keystore.json"), "KMSFS_PASSPHRASE_FILE="+filepath.Join(s.place, "passphrase"),
		"XDG_STATE_HOME="+b.TempDir())
	peak, err := program.Run(cmd)
	if err != nil {
		b.Fatalf("%s: %v", args, err)
	}
	return peak
}

func (s *stage) rewrap(b *testing.B) {
	b.Helper()
	_, err := volume.Rewrap(context.Background(), s.dir, volume.RewrapOptions{
		From: kmsprovider.KeyURI{Provider: "local", KeyID: "alias/kmsfs"}, To: kmsprovider.KeyURI{Provider: "local", KeyID: s.to},
		Providers: s.keys, StateDir: s.state, KMSDeadline: time.Hour,
	})
	if err != nil {
		b.Fatal(err)
	}
}

// requests counts the calls to the KMS so far.
func requests(s *stage) (n int) {
	for _, c := range s.slow.Calls() {
		n += c
	}
	return n
}

func BenchmarkStore(b *testing.B) {
	s := emulator.Versity(b)
	name := s.CreateBucket(b)
	for key, value := range s.Environment(s.URL) {
		b.Setenv(key, value)
	}
	to, err := bucket.Open(context.Background(), "s3://"+name, bucket.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	const n = 5000
	content := bytes.Repeat([]byte("scaling "), objectsOf/8)
	start := time.Now()
	group := new(errgroup.Group)
	group.SetLimit(32)
	for i := range n {
		group.Go(func() error {
			_, err := to.Put(ctx, fmt.Sprintf("small/%02d/%d", i%100, i), bytes.NewReader(content), objectsOf, bucket.PutOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(n/time.Since(start).Seconds(), "puts/s")

	start, keys := time.Now(), 0
	for _, err := range to.List(ctx, "small/") {
		if err != nil {
			b.Fatal(err)
		}
		keys++
	}
	b.ReportMetric(float64(keys)/time.Since(start).Seconds(), "keys/s")

	const large = 256 << 20
	body := bytes.NewReader(make([]byte, large))
	start = time.Now()
	if _, err := to.Put(ctx, "large", body, large, bucket.PutOptions{}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(large/1e6/time.Since(start).Seconds(), "put-MB/s")
	start = time.Now()
	b.ReportMetric(float64(readAll(b, to))/1e6/time.Since(start).Seconds(), "get-MB/s")
}

// readAll reads the large object, in eight ranges at once.
func readAll(b *testing.B, from bucket.Bucket) int64 {
	b.Helper()
	info, err := from.Head(context.Background(), "large")
	if err != nil {
		b.Fatal(err)
	}
	var all sync.WaitGroup
	var n atomic.Int64
	for i := range int64(8) {
		all.Go(func() {
			body, _, err := from.Get(context.Background(), "large", i*info.Size/8, info.Size/8)
			if err != nil {
				b.Error(err)
				return
			}
			defer body.Close()
			got, err := new(bytes.Buffer).ReadFrom(body)
			if err != nil {
				b.Error(err)
			}
			n.Add(got)
		})
	}
	all.Wait()
	return n.Load()
}
