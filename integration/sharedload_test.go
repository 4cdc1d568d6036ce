package integration

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	processes["shared-append"] = appendProcess
	processes["shared-cells"] = cellsProcess
}

// processOf is a command of a daemon's host.
func processOf(d *daemon, args ...string) *exec.Cmd {
	cmd := exec.Command(d.bin, args...)
	cmd.Env = d.env
	return cmd
}

// appendProcess appends lines to a file: under flock, under fcntl, or without a lock.
func appendProcess(args []string) int {
	name, how := args[0], args[1]
	lines, _ := strconv.Atoi(args[2])
	fail := func(err error) int { fmt.Fprintln(os.Stderr, how, err); return 1 }
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_APPEND, 0)
	if err != nil {
		return fail(err)
	}
	r := rand.New(rand.NewPCG(1, uint64(os.Getpid())))
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	for i := range lines {
		line := fmt.Appendf(nil, "%s %d %s\n", args[3], i, strings.Repeat("x", r.IntN(500)))
		switch how {
		case "flock":
			err = unix.Flock(fd, unix.LOCK_EX)
		case "fcntl":
			whole.Type = unix.F_WRLCK
			err = unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &whole)
		}
		if err != nil {
			return fail(err)
		}
		if _, err := unix.Write(fd, line); err != nil {
			return fail(err)
		}
		switch how {
		case "flock":
			err = unix.Flock(fd, unix.LOCK_UN)
		case "fcntl":
			whole.Type = unix.F_UNLCK
			err = unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &whole)
		}
		if err != nil {
			return fail(err)
		}
	}
	return 0
}

func sharedAppends(t *testing.T, h *hosts) {
	const each = 60
	for _, how := range []string{"flock", "fcntl", "none"} {
		name := "log-" + how
		ok(t, os.WriteFile(filepath.Join(h.one.Dir, name), nil, 0o600))
		var all sync.WaitGroup
		for i, d := range []*daemon{h.one, h.one, h.two, h.two} {
			cmd := process(t, "shared-append", filepath.Join(d.Dir, name), how, strconv.Itoa(each), strconv.Itoa(i))
			all.Go(func() {
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v %s", how, err, out)
				}
			})
		}
		all.Wait()
		a, err := os.ReadFile(filepath.Join(h.one.Dir, name))
		ok(t, err)
		b, err := os.ReadFile(filepath.Join(h.two.Dir, name))
		ok(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: the hosts see different files", how)
		}
		next := [4]int{}
		lines := strings.Split(strings.TrimSuffix(string(a), "\n"), "\n")
		for _, l := range lines {
			var who, i int
			if _, err := fmt.Sscanf(l, "%d %d", &who, &i); err != nil || i != next[who] {
				t.Fatalf("%s: line %.60q, %v, want number %d", how, l, err, next[who])
			}
			next[who]++
		}
		if len(lines) != 4*each {
			t.Errorf("%s: %d lines of %d", how, len(lines), 4*each)
		}
	}
}

// A file of cells, which lie across blocks. Each holds a number, as often as it fits,
// that whoever changes the cell increases by one while he has it locked. So the model
// is a count: what all say that they did, and at most what those were about to do who
// never said that they had.
const (
	cellSize = 8 * 33
	cells    = 200
)

// cellsProcess increases random ranges of cells, and tells what it is about to do and
// what is done. It ends with an error if a cell is not whole.
func cellsProcess(args []string) int {
	seed, _ := strconv.ParseUint(args[1], 10, 64)
	rounds, _ := strconv.Atoi(args[2])
	fd, err := unix.Open(args[0], unix.O_RDWR, 0)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	r := rand.New(rand.NewPCG(7, seed))
	for range rounds {
		first := r.IntN(cells)
		n := min(1+r.IntN(1+r.IntN(40)), cells-first)
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(first * cellSize), Len: int64(n * cellSize)}
		if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &lock); err != nil {
			fmt.Println("error lock", err)
			return 1
		}
		fmt.Println("begin", first, n)
		b := make([]byte, n*cellSize)
		if m, err := unix.Pread(fd, b, lock.Start); err != nil || m < len(b) {
			fmt.Println("error read", m, err)
			return 1
		}
		for i := range n {
			if err := increase(b[i*cellSize:][:cellSize]); err != nil {
				fmt.Println("broken", first+i, err)
				return 2
			}
		}
		if m, err := unix.Pwrite(fd, b, lock.Start); err != nil || m < len(b) {
			fmt.Println("error write", m, err)
			return 1
		}
		fmt.Println("end", first, n)
		lock.Type = unix.F_UNLCK
		if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lock); err != nil {
			fmt.Println("error unlock", err)
			return 1
		}
	}
	return 0
}

func increase(cell []byte) error {
	v := binary.LittleEndian.Uint64(cell)
	for i := 0; i < len(cell); i += 8 {
		if w := binary.LittleEndian.Uint64(cell[i:]); w != v {
			return fmt.Errorf("%d and %d in one cell", v, w)
		}
		binary.LittleEndian.PutUint64(cell[i:], v+1)
	}
	return nil
}

// cellModel counts.
type cellModel struct {
	mu    sync.Mutex
	done  [cells]uint64
	maybe [cells]uint64 // begun, and never said to be done
}

// run runs a process to its end, whatever that is, and counts what it did.
func (m *cellModel) run(t *testing.T, cmd *exec.Cmd, mayFail bool, progress *atomic.Int64) {
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return
	}
	first, n := 0, 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "begin":
			_, _ = fmt.Sscan(rest, &first, &n)
		case "end":
			m.mu.Lock()
			for i := range n {
				m.done[first+i]++
			}
			m.mu.Unlock()
			progress.Add(1)
			n = 0
		case "broken":
			t.Errorf("%s", lines.Text())
		default:
			if !mayFail {
				t.Errorf("%s", lines.Text())
			}
		}
	}
	_ = cmd.Wait()
	m.mu.Lock()
	for i := range n {
		m.maybe[first+i]++
	}
	m.mu.Unlock()
}

// check compares a file with the model.
func (m *cellModel) check(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil || len(b) != cells*cellSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for i := range cells {
		cell := b[i*cellSize:][:cellSize]
		v := binary.LittleEndian.Uint64(cell)
		if err := increase(cell); err != nil {
			t.Errorf("cell %d: %v", i, err)
		}
		if v < m.done[i] || v > m.done[i]+m.maybe[i] {
			t.Errorf("cell %d was increased %d times, and is %d (%d more may have been)", i, m.done[i], v, m.maybe[i])
		}
	}
}

func sharedCells(t *testing.T, h *hosts) {
	a, b := h.at("cells")
	ok(t, os.WriteFile(a, make([]byte, cells*cellSize), 0o600))
	var m cellModel
	var all sync.WaitGroup
	for i, name := range []string{a, b, a, b} {
		all.Go(func() { m.run(t, process(t, "shared-cells", name, strconv.Itoa(i), "150"), false, new(atomic.Int64)) })
	}
	all.Wait()
	for _, name := range []string{a, b} {
		m.check(t, name)
	}
	h.check()
}

// sharedDeath kills one of the hosts while both write to the same file, and starts it
// again, several times.
func sharedDeath(t *testing.T, h *hosts) {
	a, b := h.at("cells")
	ok(t, os.WriteFile(a, make([]byte, cells*cellSize), 0o600))
	var m cellModel
	var survivors sync.WaitGroup
	for i := range 2 {
		survivors.Go(func() { m.run(t, process(t, "shared-cells", b, strconv.Itoa(100+i), "400"), false, new(atomic.Int64)) })
	}
	r := rand.New(rand.NewPCG(3, 3))
	unsure := 0
	for round := range 6 {
		var victims sync.WaitGroup
		var progress atomic.Int64
		for i := range 2 {
			victims.Go(func() { m.run(t, process(t, "shared-cells", a, strconv.Itoa(10*round+i), "10000"), true, &progress) })
		}
		// Long enough for some to be done, and the mount to have begun in all respects.
		waitFor(t, func() bool { return progress.Load() > 20 })
		sleepRandom(r)
		h.one.kill()
		victims.Wait()
		h.one.start()
	}
	survivors.Wait()
	for i := range cells {
		unsure += int(m.maybe[i])
	}
	t.Logf("%d increases of cells were under way when their host was killed", unsure)
	for _, name := range []string{a, b} {
		m.check(t, name)
	}
	h.check()
}
