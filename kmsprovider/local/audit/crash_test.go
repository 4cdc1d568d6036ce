package audit

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test's binary, run again, appends to the log in this variable.
const appenderVariable = "KMSFS_TEST_AUDIT_LOG"

func TestMain(m *testing.M) {
	if path := os.Getenv(appenderVariable); path != "" {
		appendForever(path)
	}
	os.Exit(m.Run())
}

// appendForever prints a byte for every event that was acknowledged.
func appendForever(path string) {
	l, err := Open(path, testKey(1), Options{})
	for err == nil {
		if err = l.Append(decrypt(0)); err == nil {
			_, err = os.Stdout.WriteString(".")
		}
	}
	os.Stderr.WriteString(err.Error())
	os.Exit(1)
}

func startAppender(t *testing.T, path string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), appenderVariable+"="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(out)
}

// Several processes append and are killed; nothing acknowledged is lost, and
// the log stays whole.
func TestKilledProcessesLoseNoEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	acknowledged := 0
	for round := range 4 {
		var appenders []*exec.Cmd
		var outs []*bufio.Reader
		for range 3 {
			c, out := startAppender(t, path)
			appenders, outs = append(appenders, c), append(outs, out)
		}
		for _, out := range outs {
			if _, err := io.CopyN(io.Discard, out, int64(20+7*round)); err != nil {
				t.Fatal(err)
			}
			acknowledged += 20 + 7*round
		}
		for _, c := range appenders {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range appenders {
			rest, _ := io.ReadAll(outs[i])
			acknowledged += len(rest)
			_ = c.Wait()
		}
		r, err := Verify(path, testKey(1))
		if err != nil {
			t.Fatal(err)
		}
		if r.Events < uint64(acknowledged) {
			t.Fatalf("%d events of %d that were acknowledged", r.Events, acknowledged)
		}
	}
}

// Between line and head: the head is one line behind.
func TestCrashBetweenLineAndHead(t *testing.T) {
	l, path := newLog(t, 3)
	before, err := os.ReadFile(path + headSuffix)
	if err != nil {
		t.Fatal(err)
	}
	appendEvents(t, l, 1)
	l.Close()
	write(t, path+headSuffix, string(before))
	if r := verify(t, path, 4); len(r.Repairs) != 0 {
		t.Errorf("%q", r.Repairs)
	}
	appendEvents(t, openLog(t, path), 1)
	if r := verify(t, path, 5); len(r.Repairs) != 0 {
		t.Errorf("%q", r.Repairs)
	}
}

// Within a line, of every length.
func TestTornLinesAreRepairedVisibly(t *testing.T) {
	l, path := newLog(t, 3)
	head, err := os.ReadFile(path + headSuffix)
	if err != nil {
		t.Fatal(err)
	}
	appendEvents(t, l, 1)
	l.Close()
	all := lines(t, path)
	for _, cut := range []int{1, 100, len(all[3]) - 2, len(all[3]) - 1} {
		write(t, path, strings.Join(all[:3], "")+all[3][:cut])
		write(t, path+headSuffix, string(head))
		if r := verify(t, path, 3); len(r.Repairs) != 1 || !strings.Contains(r.Repairs[0], "cut short") {
			t.Errorf("before: %q", r.Repairs)
		}
		again := openLog(t, path)
		appendEvents(t, again, 1)
		again.Close()
		r := verify(t, path, 5) // three, the repair, one
		if len(r.Repairs) != 1 || !strings.Contains(r.Repairs[0], "was removed ("+strconv.Itoa(cut)+" bytes)") {
			t.Errorf("after: %q", r.Repairs)
		}
	}
}

// anotherBoot makes the head say that the machine was started anew since, and
// that it was synced after event n.
func anotherBoot(t *testing.T, path string, n int) {
	t.Helper()
	key := testKey(1)
	b, err := os.ReadFile(path + headSuffix)
	if err != nil {
		t.Fatal(err)
	}
	h, ok := decodeHead(key, b)
	if !ok {
		t.Fatal("no head")
	}
	h.boot[0] ^= 1
	h.synced = point{}
	for _, line := range lines(t, path)[:n] {
		l, ok := decodeLine(key, []byte(line))
		if !ok {
			t.Fatal("no line")
		}
		h.synced = point{l.sequence, h.synced.end + int64(len(line)), l.mac}
	}
	write(t, path+headSuffix, string(h.encode(key)))
}

func TestPowerCut(t *testing.T) {
	for _, c := range []struct {
		name    string
		lose    func(l []string) string
		events  int
		repairs []string
		problem string
	}{
		{"nothing lost", func(l []string) string { return strings.Join(l, "") }, 6, nil, ""},
		{"the last lines lost", func(l []string) string { return strings.Join(l[:4], "") }, 5, []string{"events 5 to 6 are missing, not yet synced"}, ""},
		{"a line torn", func(l []string) string { return strings.Join(l[:5], "") + l[5][:9] }, 6, []string{"9 bytes", "event 6 is missing, not yet synced"}, ""},
		{"zeros at the end", func(l []string) string { return strings.Join(l[:5], "") + strings.Repeat("\x00", len(l[5])) }, 6, []string{"was removed", "event 6 is missing"}, ""},
		{"synced lines missing", func(l []string) string { return strings.Join(l[:2], "") }, 3, nil, "events 3 to 6 are missing from the end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, path := newLog(t, 6)
			l.Close()
			all := lines(t, path)
			anotherBoot(t, path, 3)
			write(t, path, c.lose(all))
			again := openLog(t, path)
			appendEvents(t, again, 1)
			again.Close()
			r, err := Verify(path, testKey(1))
			if c.problem == "" != (err == nil) || c.problem != "" && !strings.Contains(err.Error(), c.problem) {
				t.Fatal(err)
			}
			want := uint64(c.events + 1)
			if c.repairs != nil || c.problem != "" {
				want = uint64(len(lines(t, path)))
			}
			if r.Events != want {
				t.Errorf("%d events, want %d", r.Events, want)
			}
			if got := strings.Join(r.Repairs, "; "); len(r.Repairs) != len(c.repairs) {
				t.Errorf("repairs: %s", got)
			} else {
				for _, s := range c.repairs {
					if !strings.Contains(got, s) {
						t.Errorf("%q is not in %q", s, got)
					}
				}
			}
		})
	}
}

// A disk that is full fails the append, and leaves the log as it was.
func TestFullDiskFailsTheAppend(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	l, path := newLog(t, 3)
	size := int64(len(strings.Join(lines(t, path), "")))
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	// The limit is the process's: nothing else may write meanwhile.
	for _, room := range []int64{0, 100} {
		limit := old
		limit.Cur = uint64(size + room)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		err := l.Append(decrypt(0))
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(err, unix.EFBIG) {
			t.Fatalf("room for %d bytes: %v", room, err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != size {
			t.Errorf("room for %d bytes: something stayed: %v %v", room, info.Size(), err)
		}
		verify(t, path, 3)
	}
	appendEvents(t, l, 1)
	if r := verify(t, path, 4); len(r.Repairs) != 0 {
		t.Errorf("%q", r.Repairs)
	}
}

func TestFollowGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string, 100)
	done := make(chan error)
	go func() {
		done <- Follow(ctx, path, func(line []byte) error {
			got <- string(line)
			return nil
		})
	}()
	l := openLog(t, path)
	appendEvents(t, l, 2)
	first := []string{<-got, <-got}
	appendEvents(t, l, 1)
	all := append(first, <-got)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if strings.Join(all, "") != strings.Join(lines(t, path), "") {
		t.Errorf("followed %q", all)
	}
	var read []string
	if err := Read(path, func(line []byte) error { read = append(read, string(line)); return nil }); err != nil || strings.Join(read, "") != strings.Join(all, "") {
		t.Errorf("read %q, %v", read, err)
	}
}
