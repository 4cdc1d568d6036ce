package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

// Between making a sidecar and writing it a mount may be anywhere, longer than a pass takes.
func TestARewrapWaitsForASidecarThatIsBeingWritten(t *testing.T) {
	b := filledBench(t, ModeFile, 3)
	v := b.open()
	path := b.sidecarOf(v, fileName(1))
	b.close(v)
	whole := readPath(t, path)
	truncate(t, path, 0)
	looked := 0 // at all sidecars, in the passes so far
	r := b.mustRewrap(zeroKey, zeroKey, func(o *RewrapOptions) {
		o.Progress = func(done, total int) {
			if looked++; looked == total {
				overwrite(t, path, 0, whole)
			}
		}
	})
	if len(r.Damaged) > 0 || r.Proven != r.Sidecars || !r.Complete {
		t.Errorf("%+v", r)
	}
}

func TestALiveMountFollowsARewrapWhileItMakesFiles(t *testing.T) {
	const before = 40
	b := filledBench(t, ModeFile, before)
	v := b.open()
	held := lookup(t, v.Root(), fileName(30))
	readAll(t, held)

	stop := make(chan struct{})
	made := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for ; ; made++ {
			select {
			case <-stop:
				return
			default:
			}
			n, _, err := v.Root().Create(fmt.Sprint("new ", made), 0o644, Owner{})
			if err == nil {
				_, err = n.WriteAt(context.Background(), pattern(100, byte(made)), 0)
			}
			if err == nil && made%3 == 0 { // the sidecar goes, too, whoever replaces it
				err = v.Root().Unlink(fmt.Sprint("new ", made))
				n.Forget()
				v.reaper.flush()
			}
			if err == nil {
				_, err = held.WriteAt(context.Background(), []byte{byte(made)}, 0)
			}
			if err != nil {
				t.Errorf("while rewrapping: %v", err)
				return
			}
		}
	})
	r := b.mustRewrap(uriA, uriB)
	close(stop)
	wg.Wait()
	if made == 0 || r.Rewritten < before {
		t.Errorf("%d files made meanwhile, %+v", made, r)
	}
	t.Logf("%d files made meanwhile, %d sidecars rewritten in %d passes", made, r.Rewritten, r.Passes)
	// The old key may go at once: nothing needs it any more.
	b.kms.mu.Lock()
	delete(b.kms.keys, keyA)
	b.kms.mu.Unlock()
	createFile(t, v.Root(), "afterwards", pattern(10, 1))
	for i := range before {
		n := lookup(t, v.Root(), fileName(i))
		n.Forget()
		if _, err := tryReadAll(n); err != nil {
			t.Errorf("%s: %v", fileName(i), err)
		}
	}
	b.close(v)
	left := len(hashTree(t, b.dir, sidecarFiles))
	b.checkSidecars(left, keyB)
	if want := before + 1 + made - (made+2)/3; left != want {
		t.Errorf("%d sidecars for %d files", left, want)
	}
}

// sessionOf is what the open volume's session file says.
func (b *bench) sessionOf(v *Volume) (info sessionInfo) {
	b.t.Helper()
	if err := json.Unmarshal(readFile(b.t, b.dir, metaDir, sessionsDir, v.session.id.String()), &info); err != nil {
		b.t.Fatal(err)
	}
	return info
}

func TestAMountDoesNotSayThatItFollowsWhileAnOldKeyIsBeingMade(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	entered, release := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	slow := &slowKMS{fakeKMS: b.kms, enter: func() {
		if held.CompareAndSwap(false, true) {
			close(entered)
			<-release
		}
	}}
	r := kmsprovider.NewRegistry()
	r.Register("local", func(context.Context) (kmsprovider.Provider, error) { return slow, nil })
	v.providers = r
	done := make(chan error, 1)
	go func() {
		_, err := v.newDataKey(context.Background())
		done <- err
	}()
	<-entered
	rewrapped := make(chan RewrapReport, 1)
	go func() {
		r, err := b.rewrap(uriA, uriB)
		if err != nil {
			t.Errorf("Rewrap: %v", err)
		}
		rewrapped <- r
	}()
	// The mount goes by the new configuration, and another key it makes is of it.
	for v.conf().Generation == 1 {
		v.followConfig()
		time.Sleep(time.Millisecond)
	}
	if _, err := v.newDataKey(context.Background()); err != nil {
		t.Fatal(err)
	}
	v.followConfig()
	if got := b.sessionOf(v).Generation; got != 1 {
		t.Errorf("the session says generation %d while a key of 1 is being made", got)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := b.sessionOf(v).Generation; got < 2 {
		t.Errorf("the session says generation %d when that is done", got)
	}
	if r := <-rewrapped; r.Rewritten != 1 || r.Sidecars != 2 {
		t.Errorf("%+v", r)
	}
	b.checkSidecars(2, keyB)
}

// slowKMS calls enter within each GenerateDataKey, before it answers.
type slowKMS struct {
	*fakeKMS
	enter func()
}

func (k *slowKMS) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) ([]byte, []byte, error) {
	plain, wrapped, err := k.fakeKMS.GenerateDataKey(ctx, keyID, ec)
	k.enter()
	return plain, wrapped, err
}

func TestARewrapWaitsForAMountThatDoesNotFollowAndNamesIt(t *testing.T) {
	b := filledBench(t, ModeFile, 5)
	root := openDir(t, b.dir)
	info := sampleSession(1)
	info.Generation = 1
	s := must(beginSession(System{}, root, info))(t)
	r, err := b.rewrap(uriA, uriB, func(o *RewrapOptions) { o.FollowWithin = 100 * time.Millisecond })
	if !errors.Is(err, ErrMountBehind) || !strings.Contains(err.Error(), `"/mnt/1"`) || r.Rewritten != 0 {
		t.Fatalf("%v, %+v", err, r)
	}
	if got := b.states(); !slices.Equal(got, []string{keyA + ": retiring", keyB + ": active"}) {
		t.Errorf("keys %v", got)
	}
	s.end()
	b.mustRewrap(uriA, uriB)
	b.checkSidecars(5, keyB)
}

func TestAReadOnlyMountReadsOnAfterARewrap(t *testing.T) {
	const n = 6
	b := filledBench(t, ModeFile, n)
	v := b.open(func(o *Options) { o.ReadOnly = true })
	b.mustRewrap(uriA, uriB)
	delete(b.kms.keys, keyA)
	for i := range n {
		if got := readAll(t, lookup(t, v.Root(), fileName(i))); !bytes.Equal(got, pattern(i%9000, byte(i))) {
			t.Errorf("file %d holds something else", i)
		}
	}
	if got := v.conf().Generation; got != 3 {
		t.Errorf("it goes by generation %d, want 3", got)
	}
}

func TestAConfigurationThatDoesNotVouchForItselfIsNotFollowed(t *testing.T) {
	b := filledBench(t, ModeFile, 1)
	old := readFile(t, b.dir, metaDir, configName)
	b.mustRewrap(kmsprovider.KeyURI{}, uriB)
	log := &lockedWriter{w: b.log}
	logged := func() string { // since it was last asked
		log.mu.Lock()
		defer log.mu.Unlock()
		defer b.log.Reset()
		return b.log.String()
	}
	v := b.open(func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	now := readFile(t, b.dir, metaDir, configName)
	path := filepath.Join(b.dir, metaDir, configName)
	other := newBench(t, ModeFile)
	foreign := readFile(t, other.dir, metaDir, configName)
	created := 0
	create := func() {
		t.Helper()
		if _, err := v.newDataKey(context.Background()); err != nil {
			t.Fatal(err)
		}
		created++
	}
	replace := func(content []byte) {
		t.Helper()
		writeFile(t, path+".new", content)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"an older one":            {old, "older one back"},
		"another volume's":        {foreign, "another volume key"},
		"one bit flipped":         {bytes.Replace(now, []byte(`"active"`), []byte(`"actjve"`), 1), "damaged"},
		"half":                    {now[:len(now)/2], "damaged"},
		"nothing":                 {nil, "damaged"},
		"one of the other's keys": {bytes.Replace(now, []byte(`"active"`), []byte(`"retiring"`), 1), "another volume key"},
	} {
		logged()
		replace(c.content)
		create()
		create()
		if got := logged(); strings.Count(got, "refused") != 1 || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q", name, got)
		}
		if got := v.conf().bytes(); !bytes.Equal(got, now) {
			t.Errorf("%s is followed", name)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	create()
	replace(now)
	logged()
	create()
	if got := logged(); got != "" {
		t.Errorf("the right one, put back: %q", got)
	}
	b.close(v)
	b.checkSidecars(1+created, keyA, keyB)
}

func TestAskingForANewConfigurationIsOneStatForEachKeyOfTheKMS(t *testing.T) {
	for mode, want := range map[KeyMode]int{ModeFile: 1, ModeVolume: 0} {
		b := newBench(t, mode)
		k := newFaulty()
		stats := 0
		k.fail = func(call, name string) error {
			if call == "statx" && name == configName {
				stats++
			} else if name == configName {
				t.Errorf("%s of %s", call, name)
			}
			return nil
		}
		v, err := b.tryOpen()
		if err != nil {
			t.Fatal(err)
		}
		v.cancel() // the look every two seconds must not fall in between
		v.backing = k
		if _, err := v.newDataKey(context.Background()); err != nil {
			t.Fatal(err)
		}
		if stats != want {
			t.Errorf("key mode %s: %d stats, want %d", mode, stats, want)
		}
		v.backing = System{}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}
