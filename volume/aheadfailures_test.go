package volume

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

func TestFailuresAheadAreSilentAndNotRemembered(t *testing.T) {
	slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		v := b.open()
		const files = 400
		for i := range files {
			createFile(t, v.Root(), fmt.Sprint(i), []byte("content"))
		}
		b.close(v)
		v = b.open()
		refused, reading := 0, ""
		var mu sync.Mutex
		b.refusing.setRefuse(func(file string) error {
			mu.Lock()
			defer mu.Unlock()
			if b.slow.UnderWay() > 4 && file != reading {
				refused++
				return kmsprovider.ErrThrottled
			}
			return nil
		})
		calls, _ := b.decrypts(func() {
			visit(t, v.Root(), func(n *Node) {
				f, err := n.openFile(false)
				if err != nil {
					t.Fatal(err)
				}
				f.release()
				mu.Lock()
				reading = f.id.String()
				mu.Unlock()
				read(t, n)
				time.Sleep(300 * time.Microsecond)
			})
		})
		t.Logf("%d calls that succeeded, %d refused", calls, refused)
		// By chance 100 to 220, as calls that end at the same moment come to run.
		if refused == 0 || refused > files {
			t.Errorf("%d calls refused", refused)
		}
		if calls != files {
			t.Errorf("%d calls succeeded for %d files", calls, files)
		}
	})
}

func TestAKMSThatDeniesIsAskedOnceForEachRead(t *testing.T) {
	slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		v := b.open()
		for i := range 100 {
			createFile(t, v.Root(), fmt.Sprint(i), []byte("content"))
		}
		b.close(v)
		v = b.open()
		var asked atomic.Int32
		reads := 0
		visit(t, v.Root(), func(n *Node) {
			if reads++; reads == 20 {
				b.refusing.setRefuse(func(string) error {
					asked.Add(1)
					return kmsprovider.ErrAccessDenied
				})
			}
			if _, err := tryReadAll(n); err != nil && !errors.Is(err, kmsprovider.ErrAccessDenied) {
				t.Fatal(err)
			}
		})
		time.Sleep(time.Second)
		if n := asked.Load(); n == 0 || n > 81+aheadLimit {
			t.Errorf("%d calls for 81 reads", n)
		}
		b.refusing.setRefuse(nil)
		visit(t, v.Root(), func(n *Node) { read(t, n) }) // heals
	})
}

func TestClosingAVolumeEndsWhatIsUnderWayAhead(t *testing.T) {
	slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		v := b.open()
		for i := range 50 {
			createFile(t, v.Root(), fmt.Sprint(i), []byte("content"))
		}
		b.close(v)
		v = b.open()
		for _, name := range list(t, v.Root())[:12] {
			read(t, lookup(t, v.Root(), name))
		}
		b.close(v)
		if n := b.slow.UnderWay(); n != 0 {
			t.Errorf("%d calls are still under way", n)
		}
	})
}

func TestALockEndsWhatIsUnderWayAhead(t *testing.T) {
	slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		v := b.open()
		for i := range 100 {
			createFile(t, v.Root(), fmt.Sprint(i), []byte("content"))
		}
		b.close(v)
		v = b.open()
		for _, name := range list(t, v.Root()) {
			if read(t, lookup(t, v.Root(), name)); b.slow.UnderWay() > 1 {
				break
			}
		}
		if n := b.slow.UnderWay(); n < 2 {
			t.Errorf("%d calls are under way ahead", n)
		}
		began := time.Now()
		if err := v.Lock(); err != nil {
			t.Fatal(err)
		}
		if n := b.slow.UnderWay(); n != 0 || time.Since(began) != 0 || v.Stats().CachedKeys != 0 {
			t.Errorf("%d calls are under way, %v later; %+v", n, time.Since(began), v.Stats())
		}
		if err := v.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		calls, waits := b.decrypts(func() { visit(t, v.Root(), func(n *Node) { read(t, n) }) })
		if calls != 100 || waits > 30 {
			t.Errorf("%d Decrypt for 100 files after an unlock, %d waited for", calls, waits)
		}
	})
}
