package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/fs"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/volume"
)

// witness passes on what a provider does, and tells of the keys that it gave out.
// It inverts them at once: it must not be the one who keeps them in memory.
type witness struct {
	kmsprovider.Provider
	tell func(inverted []byte)
}

func (w witness) note(key []byte) {
	if len(key) > 0 {
		inverted := make([]byte, len(key))
		for i, b := range key {
			inverted[i] = ^b
		}
		w.tell(inverted)
	}
}

func (w witness) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) (plaintext, wrapped []byte, err error) {
	plaintext, wrapped, err = w.Provider.GenerateDataKey(ctx, keyID, ec)
	w.note(plaintext)
	return plaintext, wrapped, err
}

func (w witness) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	plaintext, err := w.Provider.Decrypt(ctx, keyID, wrapped, ec)
	w.note(plaintext)
	return plaintext, err
}

// Close closes the keystore.
func (w witness) Close() error { return w.Provider.(io.Closer).Close() }

func init() {
	// hold KEYSTORE BACKING DIR STATE: mounts, uses some files, and prints the keys
	// that it was given, inverted. For each line of input it does the next thing:
	// lock, unlock, unmount.
	processes["hold"] = func(args []string) int {
		if err := hold(args[0], args[1], args[2], args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
}

func hold(keystore, backing, dir, state string) error {
	ctx := context.Background()
	keys := kmsprovider.NewRegistry()
	defer keys.Close()
	keys.Register("local", func(ctx context.Context) (kmsprovider.Provider, error) {
		return local.Open(ctx, local.Options{Path: keystore, Passphrase: func() ([]byte, error) { return []byte("correct horse"), nil }})
	})
	keys.WrapWith(func(p kmsprovider.Provider) kmsprovider.Provider {
		return witness{p, func(inverted []byte) { fmt.Println("key", hex.EncodeToString(inverted)) }}
	})
	v, err := volume.Open(ctx, backing, volume.Options{Providers: keys, StateDir: state})
	if err != nil {
		return err
	}
	defer v.Close()
	m, err := fs.Serve(v, fs.Options{Mountpoint: dir})
	if err != nil {
		return err
	}
	defer m.Wait()
	defer m.Unmount()
	for i := range 8 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), bytes.Repeat([]byte{byte(i)}, 9000), 0o600); err != nil {
			return err
		}
	}
	if err := os.Symlink("target", filepath.Join(dir, "link")); err != nil {
		return err
	}
	fmt.Println("done")
	in := bufio.NewScanner(os.Stdin)
	for _, next := range []func() error{v.Lock, func() error { return v.Unlock(ctx) }} {
		if !in.Scan() {
			return io.ErrUnexpectedEOF
		}
		if err := next(); err != nil {
			return err
		}
		fmt.Println("done")
	}
	in.Scan()
	return nil
}

func TestNoKeyIsInMemoryAfterALock(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	cmd := process(t, "hold", m.keystore, m.Backing, m.Dir, m.state)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, &errs)
			_ = detach(m.Dir)
		}
	})
	answers := bufio.NewScanner(out)
	var keys [][]byte
	done := func() {
		t.Helper()
		for answers.Scan() {
			text, isKey := strings.CutPrefix(answers.Text(), "key ")
			if !isKey {
				return
			}
			key, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			for i := range key {
				key[i] = ^key[i]
			}
			keys = append(keys, key)
		}
		t.Fatalf("it ended:\n%s", &errs)
	}
	next := func() {
		t.Helper()
		if _, err := fmt.Fprintln(in); err != nil {
			t.Fatal(err)
		}
		done()
	}
	done()
	if len(keys) < 9 {
		t.Fatalf("%d keys were given out, want those of the volume and of 8 files", len(keys))
	}
	// The volume key is the first; data keys are wiped as soon as they are used.
	if found := findInMemory(t, cmd.Process.Pid, keys[:1]); found == 0 {
		t.Error("the volume key is not found while it is in use: the search is no good")
	}
	next() // lock
	if found := findInMemory(t, cmd.Process.Pid, keys); found != 0 {
		t.Errorf("%d of %d keys are in memory after the lock", found, len(keys))
	}
	next() // unlock
}

// findInMemory tells how many of the keys a process has in memory: as they are,
// as the words of an AES key schedule, or as HMAC pads them.
func findInMemory(t *testing.T, pid int, keys [][]byte) int {
	t.Helper()
	type spelling struct {
		key   int
		form  string
		bytes []byte
	}
	byStart := make([][]spelling, 1<<16) // by their first two bytes
	for i, key := range keys {
		for form, spelled := range map[string][]byte{
			"as it is": key, "as words": swapWords(key), "as an inner pad": xored(key, 0x36), "as an outer pad": xored(key, 0x5c),
		} {
			start := int(spelled[0])<<8 | int(spelled[1])
			byStart[start] = append(byStart[start], spelling{i, form, spelled})
		}
	}
	found := make(map[int]bool)
	mem := readMemory(t, pid)
	for i := range len(mem) - 1 {
		for _, s := range byStart[int(mem[i])<<8|int(mem[i+1])] {
			if !found[s.key] && bytes.HasPrefix(mem[i:], s.bytes) {
				found[s.key] = true
				t.Logf("key %d is in memory, %s", s.key, s.form)
			}
		}
	}
	return len(found)
}

// readMemory reads all that a process may write to.
func readMemory(t *testing.T, pid int) []byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []byte
	chunk, zeros := make([]byte, 1<<16), make([]byte, 1<<16)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		if to-from > 1<<30 {
			continue // the race detector's own
		}
		for at := from; at < to; at += int64(len(chunk)) {
			n, _ := f.ReadAt(chunk[:min(int64(len(chunk)), to-at)], at)
			if !bytes.Equal(chunk[:n], zeros[:n]) {
				out = append(out, chunk[:n]...)
			}
		}
	}
	if len(out) < 1<<20 {
		t.Fatalf("only %d bytes of memory can be read", len(out))
	}
	return out
}

func swapWords(key []byte) []byte {
	out := make([]byte, len(key))
	for i := range key {
		out[i] = key[i&^3+3-i&3]
	}
	return out
}

func xored(key []byte, pad byte) []byte {
	out := make([]byte, len(key))
	for i := range key {
		out[i] = key[i] ^ pad
	}
	return out
}
