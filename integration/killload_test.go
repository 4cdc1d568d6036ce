package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
)

// killOp is one operation of a writer on its file.
type killOp struct {
	kind   byte // see apply
	off, n int
	seed   byte
	sync   bool // make it safe by fsync before close, which does so, too
}

func (o killOp) String() string {
	return fmt.Sprintf("%c %d %d %d %v", o.kind, o.off, o.n, o.seed, o.sync)
}

func (o killOp) data() []byte {
	b := make([]byte, o.n)
	for i := range b {
		b[i] = byte(i)*7 + byte(i>>8)*13 + o.seed | 1 // never zero, which a hole is
	}
	return b
}

// killFile is the file of a writer: one of its two names, and the content that
// was acknowledged; nil if there is no file, which will have its first name.
type killFile struct {
	content []byte
	second  bool // it has its second name
	pending *killOp
}

func killName(writer int, second bool) string {
	name := fmt.Sprint("file ", writer)
	if second { // a name that the backing store has no room for
		return name + " " + strings.Repeat("long", 45)
	}
	return name
}

// apply is the file after an operation.
func (f killFile) apply(o *killOp) killFile {
	next := killFile{content: bytes.Clone(f.content), second: f.second}
	switch o.kind {
	case 'w': // overwrite, append, or write beyond the end
		if need := o.off + o.n; need > len(next.content) {
			next.content = append(next.content, make([]byte, need-len(next.content))...)
		}
		copy(next.content[o.off:], o.data())
	case 't': // truncate or extend
		next.content = append(next.content, make([]byte, max(0, o.off-len(next.content)))...)[:o.off]
	case 'r': // rename
		next.second = !next.second
	case 'c', 'x': // create; or write another file and rename it over this one
		next.content = append([]byte{}, o.data()...)
	case 'u': // unlink
		next = killFile{}
	}
	return next
}

func init() { processes["kill writer"] = killWriter }

// killWriter changes files of the mount that is descriptor 3 until that fails:
// its arguments are the first writer and a seed.
func killWriter(args []string) int {
	first, _ := strconv.Atoi(args[0])
	seed, _ := strconv.ParseUint(args[1], 10, 64)
	root, err := os.OpenRoot("/proc/self/fd/3")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := first; w < first+killWriters; w++ {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			f := killFile{}
			for _, second := range []bool{false, true} {
				if b, err := root.ReadFile(killName(w, second)); err == nil {
					f = killFile{content: append([]byte{}, b...), second: second}
				}
			}
			_ = root.Remove(fmt.Sprint("new ", w))
			for {
				op := f.draw(rng)
				mu.Lock()
				fmt.Printf("B %d %v\n", w, op)
				mu.Unlock()
				if err := f.do(root, w, op); err != nil {
					mu.Lock()
					fmt.Printf("E %d %q\n", w, err)
					mu.Unlock()
					return
				}
				f = f.apply(op)
				mu.Lock()
				fmt.Printf("A %d\n", w)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return 0
}

// draw is what to do next.
func (f killFile) draw(rng *rand.Rand) *killOp {
	o := &killOp{seed: byte(rng.IntN(256)), n: 1 + rng.IntN(60_000), sync: rng.IntN(2) == 0}
	if f.content == nil {
		o.kind = 'c'
		return o
	}
	switch k := rng.IntN(20); {
	case k < 5:
		o.kind, o.off = 'w', rng.IntN(len(f.content)+1)
	case k < 9: // append
		o.kind, o.off = 'w', len(f.content)
	case k < 12:
		o.kind, o.off = 't', rng.IntN(killLimit)
	case k < 16:
		o.kind = 'r'
	case k < 18:
		o.kind = 'x'
	default:
		o.kind = 'u'
	}
	if o.kind == 'w' && o.off+o.n > killLimit {
		o.kind, o.off = 't', rng.IntN(1000)
	}
	return o
}

// do carries an operation out; when it returns nil, it was acknowledged.
func (f killFile) do(root *os.Root, w int, o *killOp) error {
	name := killName(w, f.second)
	switch o.kind {
	case 'w':
		return killWrite(root, name, os.O_WRONLY, o)
	case 'c':
		return killWrite(root, name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, o)
	case 'x':
		other := fmt.Sprint("new ", w)
		if err := killWrite(root, other, os.O_WRONLY|os.O_CREATE|os.O_EXCL, o); err != nil {
			return err
		}
		return root.Rename(other, name)
	case 't':
		g, err := root.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		err = g.Truncate(int64(o.off))
		return errors.Join(err, g.Close())
	case 'r':
		return root.Rename(name, killName(w, !f.second))
	}
	return root.Remove(name)
}

func killWrite(root *os.Root, name string, flags int, o *killOp) error {
	g, err := root.OpenFile(name, flags, 0o644)
	if err != nil {
		return err
	}
	_, err = g.WriteAt(o.data(), int64(o.off))
	if err == nil && o.sync {
		err = g.Sync()
	}
	return errors.Join(err, g.Close())
}
