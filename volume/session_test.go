package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// sampleSession is a mount's description of itself.
func sampleSession(n byte) sessionInfo {
	return sessionInfo{
		ID: crypto.ID{n}, Host: "here", PID: 1000 + int(n), Mountpoint: fmt.Sprintf("/mnt/%d", n),
		Since: time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC), Generation: 3,
	}
}

func begin(t testing.TB, root int, n byte) *session {
	t.Helper()
	return must(beginSession(System{}, root, sampleSession(n)))(t)
}

func sessionFiles(t testing.TB, dir string) (names []string) {
	t.Helper()
	for _, e := range must(os.ReadDir(filepath.Join(dir, metaDir, sessionsDir)))(t) {
		names = append(names, e.Name())
	}
	return names
}

func sessionPath(dir string, n byte) string {
	return filepath.Join(dir, metaDir, sessionsDir, crypto.ID{n}.String())
}

func TestASessionKeepsOthersOutAndSaysWhereItIs(t *testing.T) {
	dir, root, _ := metaPlace(t)
	s := begin(t, root, 1)
	_, err := beginSession(System{}, root, sampleSession(2))
	var inUse *InUseError
	if !errors.As(err, &inUse) || !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	if *inUse != (InUseError{Session: crypto.ID{1}, Host: "here", PID: 1001, Mountpoint: "/mnt/1", Since: sampleSession(1).Since}) {
		t.Errorf("%+v", inUse)
	}
	for _, part := range []string{`"/mnt/1"`, "1001", `"here"`, "2026-03-01T12:30:00Z"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %s", err, part)
		}
	}
	if live, err := liveSessions(System{}, root); err != nil || len(live) != 1 || live[0] != sampleSession(1) {
		t.Errorf("live: %+v, %v", live, err)
	}
	if names := sessionFiles(t, dir); len(names) != 1 {
		t.Errorf("files %v", names)
	}
	s.end()
	if names := sessionFiles(t, dir); len(names) != 0 {
		t.Errorf("files after the end: %v", names)
	}
	begin(t, root, 2).end()
	if live, err := liveSessions(System{}, root); err != nil || len(live) != 0 {
		t.Errorf("live after the end: %+v, %v", live, err)
	}
}

func TestASessionFileIsOneJSONObject(t *testing.T) {
	dir, root, _ := metaPlace(t)
	s := begin(t, root, 1)
	defer s.end()
	want := `{"id":"01000000000000000000000000000000","host":"here","pid":1001,"mountpoint":"/mnt/1","since":"2026-03-01T12:30:00Z","generation":3}` + "\n"
	if got := string(readFile(t, sessionPath(dir, 1))); got != want {
		t.Errorf("wrote %s", got)
	}
	s.info.Mountpoint = "/m" // shorter than before
	if err := s.follow(4); err != nil {
		t.Fatal(err)
	}
	want = strings.Replace(strings.Replace(want, "/mnt/1", "/m", 1), ":3}", ":4}", 1)
	if got := string(readFile(t, sessionPath(dir, 1))); got != want {
		t.Errorf("wrote %s", got)
	}
	if live := must(liveSessions(System{}, root))(t); len(live) != 1 || live[0].Generation != 4 {
		t.Errorf("live %+v", live)
	}
}

func TestOfManyThatBeginASessionAtOnceOneWins(t *testing.T) {
	_, root, _ := metaPlace(t)
	for range 50 {
		var all sync.WaitGroup
		start := make(chan struct{})
		sessions, errs := make([]*session, 8), make([]error, 8)
		for i := range sessions {
			all.Go(func() {
				<-start
				sessions[i], errs[i] = beginSession(System{}, root, sampleSession(byte(i+1)))
			})
		}
		close(start)
		all.Wait()
		won := 0
		for i, s := range sessions {
			if errs[i] == nil {
				won++
				s.end()
			} else if !errors.Is(errs[i], ErrInUse) {
				t.Error(errs[i])
			}
		}
		if won != 1 {
			t.Fatalf("%d won", won)
		}
	}
}

const sessionChild = "KMSFS_TEST_SESSION_CHILD"

// TestAChildProcessHoldsASession is the other process of the tests below: it
// begins a session, says whether it could, and holds it until it is killed or
// its standard input ends.
func TestAChildProcessHoldsASession(t *testing.T) {
	dir := os.Getenv(sessionChild)
	if dir == "" {
		t.Skip("runs as a child of other tests")
	}
	id := must(crypto.ParseID(os.Getenv(sessionChild + "_ID")))(t)
	info := sampleSession(1)
	info.ID, info.PID = id, os.Getpid()
	s, err := beginSession(System{}, openDir(t, dir), info)
	if err != nil {
		fmt.Printf("\nrefused %v\n", err)
		return
	}
	fmt.Printf("\nholding\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	s.end()
}

// startChild runs the test above in a process of its own and returns its answer.
func startChild(t *testing.T, dir string, n byte) (cmd *exec.Cmd, answer string) {
	t.Helper()
	cmd = exec.Command(os.Args[0], "-test.run=^TestAChildProcessHoldsASession$")
	cmd.Env = append(os.Environ(), sessionChild+"="+dir, sessionChild+"_ID="+crypto.ID{n}.String())
	stdin, out := must(cmd.StdinPipe())(t), must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if s := lines.Text(); strings.HasPrefix(s, "holding") || strings.HasPrefix(s, "refused") {
			return cmd, s
		}
	}
	t.Fatal("the child says nothing")
	return nil, ""
}

func TestAKilledProcessLeavesASessionThatKeepsNobodyOut(t *testing.T) {
	dir, root, _ := metaPlace(t)
	child, answer := startChild(t, dir, 1)
	if answer != "holding" {
		t.Fatal(answer)
	}
	_, err := beginSession(System{}, root, sampleSession(2))
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.PID != child.Process.Pid {
		t.Fatalf("while it lives: %v", err)
	}
	if err := child.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if live := must(liveSessions(System{}, root))(t); len(live) != 0 {
		t.Errorf("live after the kill: %+v", live)
	}
	s := begin(t, root, 2)
	defer s.end()
	if len(s.stale) != 1 || s.stale[0] != (crypto.ID{1}) {
		t.Errorf("stale %v", s.stale)
	}
	if names := sessionFiles(t, dir); len(names) != 2 {
		t.Errorf("files before they are removed: %v", names)
	}
	s.removeStale()
	if names := sessionFiles(t, dir); len(names) != 1 || names[0] != (crypto.ID{2}).String() {
		t.Errorf("files %v", names)
	}
}

func TestOfTwoProcessesThatBeginASessionAtOnceOneWins(t *testing.T) {
	dir, _, _ := metaPlace(t)
	answers := make([]string, 4)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { _, answers[i] = startChild(t, dir, byte(i+1)) })
	}
	all.Wait()
	won := 0
	for _, a := range answers {
		if a == "holding" {
			won++
		} else if !strings.Contains(a, "in use") {
			t.Error(a)
		}
	}
	if won != 1 {
		t.Errorf("%d of 4 processes hold a session: %q", won, answers)
	}
}

func TestAnUnreadableSessionThatIsLockedIsInUse(t *testing.T) {
	dir, root, _ := metaPlace(t)
	for _, content := range []string{"", "{", "null", "\x00\x01", `{"host":"half","pid":"x"}`, `{"id":"02000000000000000000000000000000"}`, strings.Repeat("x", 2*maxSession)} {
		s := begin(t, root, 1)
		writeFile(t, sessionPath(dir, 1), []byte(content))
		_, err := beginSession(System{}, root, sampleSession(2))
		var inUse *InUseError
		if !errors.As(err, &inUse) || *inUse != (InUseError{Session: crypto.ID{1}}) || !strings.Contains(err.Error(), crypto.ID{1}.String()) {
			t.Errorf("%.20q: %v", content, err)
		}
		s.end()
	}
}

func TestLeftoversInTheSessionsDirectoryBlockNobody(t *testing.T) {
	dir, root, _ := metaPlace(t)
	begin(t, root, 1).end() // makes the directory
	elsewhere := filepath.Join(t.TempDir(), "x")
	writeFile(t, elsewhere, nil)
	path := func(n byte) string { return sessionPath(dir, n) }
	writeFile(t, path(0x10), []byte("rubbish"))
	writeFile(t, filepath.Join(filepath.Dir(path(0)), "not an ID"), nil)
	if err := errors.Join(
		os.Symlink(elsewhere, path(0x11)), os.Symlink("nowhere", path(0x12)), os.Mkdir(path(0x13), 0o700), syscall.Mkfifo(path(0x14), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	fd := must(unix.Open(elsewhere, unix.O_RDWR|unix.O_CLOEXEC, 0))(t)
	defer unix.Close(fd)
	if err := lockSession(fd, false); err != nil {
		t.Fatal(err)
	}
	s := begin(t, root, 2)
	s.removeStale()
	s.end()
	if _, err := os.Lstat(path(0x10)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover was not removed: %v", err)
	}
	if _, err := os.Lstat(elsewhere); err != nil {
		t.Errorf("removed through a link: %v", err)
	}
}

func TestASessionThatCannotBeginLeavesNoFileAndNoLock(t *testing.T) {
	dir, root, _ := metaPlace(t)
	for n := 0; ; n++ {
		before := openDescriptors(t)
		s, err := beginSession(&brittle{left: n}, root, sampleSession(1))
		if err == nil {
			if n < 5 {
				t.Errorf("begins though call %d failed", n)
			}
			s.end()
			break
		}
		if s != nil || errors.Is(err, ErrInUse) {
			t.Errorf("call %d fails: %v", n, err)
		}
		if after := openDescriptors(t); after > before { // fewer where something that another test left was collected
			t.Errorf("call %d fails: %d descriptors left", n, after-before)
		}
		if _, err := os.Stat(filepath.Join(dir, metaDir, sessionsDir)); err == nil && len(sessionFiles(t, dir)) > 0 {
			t.Errorf("call %d fails: %v left", n, sessionFiles(t, dir))
		}
	}
	begin(t, root, 2).end()
}

func TestAnAbandonedSessionLooksKilled(t *testing.T) {
	_, root, _ := metaPlace(t)
	begin(t, root, 1).abandon()
	s := begin(t, root, 2)
	defer s.end()
	if len(s.stale) != 1 || s.stale[0] != (crypto.ID{1}) {
		t.Errorf("stale %v", s.stale)
	}
}

func TestWithoutASessionsDirectoryNobodyIsThere(t *testing.T) {
	_, root, _ := metaPlace(t)
	if live, err := liveSessions(System{}, root); err != nil || len(live) != 0 {
		t.Errorf("%v, %v", live, err)
	}
	if _, err := liveSessions(System{}, openDir(t, t.TempDir())); !errors.Is(err, ErrNotVolume) {
		t.Errorf("no volume: %v", err)
	}
}

func TestAnInUseErrorShowsNoControlCharacters(t *testing.T) {
	for _, e := range []InUseError{
		{Mountpoint: "/mnt/\x1b[2J", Host: "ho\nst", PID: 1}, {Mountpoint: "/\x1b"}, {},
	} {
		if s := e.Error(); strings.ContainsAny(s, "\x1b\n") || !strings.Contains(s, "in use") {
			t.Errorf("%q", s)
		}
	}
}

func TestAMountRemovesTheSessionsOfKilledOnes(t *testing.T) {
	b := newBench(t, ModeVolume)
	begin(t, openDir(t, b.dir), 1).abandon()
	v := b.open()
	if names := sessionFiles(t, b.dir); len(names) != 1 || names[0] != v.session.id.String() {
		t.Errorf("files %v", names)
	}
	b.close(v)
	if names := sessionFiles(t, b.dir); len(names) != 0 {
		t.Errorf("files after the unmount: %v", names)
	}
}

func TestASecondMountIsRefusedAndNamesTheFirst(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open(func(o *Options) { o.Mountpoint = "/mnt/first" })
	for _, readOnly := range []bool{false, true} {
		_, err := b.tryOpen(func(o *Options) { o.ReadOnly = readOnly })
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "/mnt/first") || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("read-only %v: %v", readOnly, err)
		}
	}
	createFile(t, v.Root(), "still", []byte("works"))
	b.close(v)
	v = b.open()
	if got := string(readAll(t, lookup(t, v.Root(), "still"))); got != "works" {
		t.Errorf("reads %q", got)
	}
}
