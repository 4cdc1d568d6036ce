package volume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// armedChange is a change as a killed mount leaves it: its slot, and the file
// before and after it.
type armedChange struct {
	slot          []byte // header and payload
	before, after []byte // the backing file
	old, new      []byte // what is read of it
}

// quick is a store that makes nothing durable: no test here outlives the system.
type quick struct{ System }

func (quick) Fsync(int) error     { return nil }
func (quick) Fdatasync(int) error { return nil }
func (quick) Syncfs(int) error    { return nil }

// Fallocate has no room for the reserve, which would be made for each input.
func (k quick) Fallocate(fd int, mode uint32, off, length int64) error {
	if length == reserveSize {
		return unix.ENOSPC
	}
	return k.System.Fallocate(fd, mode, off, length)
}

// armedChanges makes changes of n and keeps what is in the slot while each is made.
func armedChanges(t testing.TB, b *bench, v *Volume, k *tap, n *Node, dos ...func() error) (all []armedChange) {
	t.Helper()
	path, slots := b.backingFile(n), filepath.Join(b.dir, metaDir, "redo", v.session.id.String())
	for _, do := range dos {
		c := armedChange{before: readPath(t, path), old: readAll(t, n)}
		var mu sync.Mutex // sidecars are written ahead meanwhile
		k.turn(func(call call, do func(int) error) error {
			if call.op == "pwrite" {
				mu.Lock()
				if slot := readPath(t, slots)[:slotSize]; c.slot == nil && [4]byte(slot) != [4]byte{} {
					c.slot = slot
				}
				mu.Unlock()
			}
			return do(call.bytes)
		})
		err := do()
		k.turn(func(call call, do func(int) error) error { return do(call.bytes) })
		if err != nil {
			t.Fatal(err)
		}
		c.after, c.new = readPath(t, path), readAll(t, n)
		all = append(all, c)
	}
	return all
}

// FuzzReplay changes some bytes of a slot that a killed mount left. Whatever they
// are, a header that was changed is not believed, and the file is old or new;
// where it is not, reading says so, but not after a power cut, of which a logged
// slot must be whole.
func FuzzReplay(f *testing.F) {
	b := newBench(f, ModeVolume)
	k := &tap{Backing: quick{}, through: func(c call, do func(int) error) error { return do(c.bytes) }}
	v := b.open(func(o *Options) { o.Backing, o.Strict = k, true })
	n := createFile(f, v.Root(), "file", pattern(2*crypto.BlockSize+100, 1))
	ctx := f.Context()
	changes := armedChanges(f, b, v, k, n,
		func() error { _, err := n.WriteAt(ctx, pattern(5000, 2), 10); return err },
		func() error { return n.Truncate(ctx, crypto.BlockSize+7) },
		func() error { _, err := n.WriteAt(ctx, pattern(2*crypto.BlockSize, 3), 2*crypto.BlockSize); return err },
		func() error { _, err := v.Root().Link(n, "other name"); return err }, // the record alone
	)
	if err := v.Root().Unlink("other name"); err != nil {
		f.Fatal(err)
	}
	path := b.backingFile(n)
	session := crypto.ID{0xfe} // of the mount that was killed
	slots := filepath.Join(b.dir, metaDir, "redo", session.String())
	key := v.vk.Derive(crypto.LabelRedo)
	for i := range changes {
		h := changes[i].slot[:slotHeader]
		copy(h[24:], signed(h, session, key)[24:])
		copy(h, signed(h, session, key))
	}
	try := func(t testing.TB, which uint8, at uint32, with []byte, logged bool) (done int, changed bool) {
		t.Helper()
		c := changes[int(which)%len(changes)]
		s := bytes.Clone(c.slot)
		changed = false
		for i, x := range with {
			if p := int(at) + i; p < len(s) {
				changed = changed || s[p] != x
				s[p] = x
			}
		}
		if err := errors.Join(os.WriteFile(slots, s, 0o600), os.WriteFile(path, c.before, 0o600)); err != nil {
			t.Fatal(err)
		}
		n.Forget()
		done, open, err := v.replay(session, logged)
		if err != nil || len(open) > 0 {
			t.Fatalf("replay: %v, %v", open, err)
		}
		now := readPath(t, path)
		if done == 0 && !bytes.Equal(now, c.before) {
			t.Fatal("no change was made, and the file was changed")
		}
		got, err := tryReadAll(n)
		switch {
		case err == nil && bytes.Equal(got, c.old), err == nil && bytes.Equal(got, c.new) && done == 1:
		case errors.Is(err, ErrIntegrity) && done == 1 && !logged && changed:
		default:
			t.Fatalf("%d made; read %d bytes, %v", done, len(got), err)
		}
		return done, changed
	}
	for i := range changes {
		which := uint8(i)
		header := binary.LittleEndian.Uint32(changes[i].slot[48:])
		for _, logged := range []bool{false, true} {
			made := 1
			if logged && header&slotLogged == 0 {
				made = 0
			}
			if done, _ := try(f, which, 0, nil, logged); done != made {
				f.Fatalf("change %d, after a power cut %v: made %d, want %d", i, logged, done, made)
			}
			f.Add(which, uint32(slotHeader+crypto.RecordOffset), []byte("record"), logged)
			f.Add(which, uint32(slotHeader+crypto.HeaderSize), []byte("block"), logged)
			f.Add(which, uint32(slotPathAt), []byte("../../x"), logged)
			f.Add(which, uint32(slotHeader+slotPadAt), []byte("padding"), logged)
		}
	}
	if !slices.ContainsFunc(changes, func(c armedChange) bool { return !bytes.Equal(c.before, c.after) }) {
		f.Fatal("no change changes anything")
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, with []byte, logged bool) {
		if done, changed := try(t, which, at, with, logged); done > 0 && changed && at < slotHeader {
			// The HMAC does not cover what lies behind the path, nor the state.
			h := changes[int(which)%len(changes)].slot
			if text := slotPathAt + binary.LittleEndian.Uint32(h[4:]); at >= 4 && at < text {
				t.Fatal("a header was believed that was changed")
			}
		}
	})
}
