package formatreader

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"path"
	"strings"
)

// change is an armed redo slot.
type change struct {
	file     id
	number   uint64
	flags    uint32
	size     uint64
	punch    [2]uint64 // offset, length
	path     string
	segments []segment
}

type segment struct {
	at   uint64
	data []byte
}

// intent is an armed intent.
type intent struct {
	kind, flags      uint32
	id               id
	moved, displaced uint64
	path             []string // directory and name that it comes from, and comes to
}

// readSlots finds what is armed in a session's file of slots.
func (v *volume) readSlots(session string) (changes []change, intents []intent, err error) {
	b, mode, err := v.archive.file(v.backing + "/.kmsfs/redo/" + session)
	if err != nil {
		return nil, nil, err
	}
	if mode != 0o600 {
		return nil, nil, fmt.Errorf("mode %o", mode)
	}
	const slot, page, after = 1_073_152, 4096, 17_170_432
	for i := 0; i < 16 && i*slot < len(b); i++ {
		h := b[i*slot : i*slot+slot]
		text, err := v.header(h[:page], session)
		if err != nil {
			return nil, nil, fmt.Errorf("slot %d: %w", i, err)
		}
		if text == nil {
			continue
		}
		c := change{
			file: id(h[24:40]), number: little.Uint64(h[40:]), flags: little.Uint32(h[48:]), size: little.Uint64(h[56:]),
			punch: [2]uint64{little.Uint64(h[152:]), little.Uint64(h[160:])}, path: string(text),
		}
		for s := range little.Uint32(h[52:]) {
			f := h[104+16*s:]
			from, n := little.Uint32(f[8:]), little.Uint32(f[12:])
			c.segments = append(c.segments, segment{little.Uint64(f), h[page+from : page+from+n]})
		}
		digest := make([]byte, 32)
		if c.flags&32 != 0 {
			sum := sha256.New()
			for _, s := range c.segments {
				sum.Write(s.data)
			}
			digest = sum.Sum(nil)
		}
		if !bytes.Equal(digest, h[168:200]) {
			return nil, nil, fmt.Errorf("slot %d has digest %x, want %x", i, h[168:200], digest)
		}
		changes = append(changes, c)
	}
	for i := 0; i < 32 && after+i*page < len(b); i++ {
		h := b[after+i*page : after+(i+1)*page]
		text, err := v.header(h, session)
		if err != nil {
			return nil, nil, fmt.Errorf("intent %d: %w", i, err)
		}
		if text != nil {
			in := intent{
				kind: little.Uint32(h[48:]), flags: little.Uint32(h[52:]), id: id(h[24:40]), moved: little.Uint64(h[40:]), displaced: little.Uint64(h[72:]),
				path: strings.Split(string(text), "\x00"),
			}
			if len(in.path) != 4 {
				return nil, nil, fmt.Errorf("intent %d has %d names", i, len(in.path))
			}
			intents = append(intents, in)
		}
	}
	return changes, intents, nil
}

// header checks what slots and intents have in common; nil if it is not armed.
func (v *volume) header(h []byte, session string) ([]byte, error) {
	switch little.Uint32(h) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, fmt.Errorf("state %d", little.Uint32(h))
	}
	end := 200 + little.Uint32(h[4:])
	if end > 4064 || id(h[8:24]).String() != session {
		return nil, fmt.Errorf("text up to %d, session %x", end, h[8:24])
	}
	if !bytes.Equal(mac(derive(v.key, "redo"), h[4:end]), h[4064:4096]) {
		return nil, fmt.Errorf("HMAC")
	}
	return h[200:end], nil
}

// make makes a change on a copy of its file, and gives the file.
func (v *volume) make(c change) (*inode, error) {
	n := v.archive.inodes[path.Join(v.backing, c.path)]
	if n == nil || len(n.content) < 24 || id(n.content[8:24]) != c.file || n.number != 0 && n.number != c.number {
		return nil, fmt.Errorf("file %s is not at %s", c.file, c.path)
	}
	changed := *n
	changed.content = bytes.Clone(n.content)
	for _, s := range c.segments {
		if s.at < 24 {
			return nil, fmt.Errorf("a segment at %d", s.at)
		}
		if end := s.at + uint64(len(s.data)); end > uint64(len(changed.content)) {
			changed.content = append(changed.content, make([]byte, end-uint64(len(changed.content)))...)
		}
		copy(changed.content[s.at:], s.data)
	}
	if c.flags&8 != 0 {
		clear(changed.content[c.punch[0] : c.punch[0]+c.punch[1]])
	}
	if c.flags&1 != 0 {
		changed.content = append(changed.content, make([]byte, max(0, int(c.size)-len(changed.content)))...)[:c.size]
	}
	return &changed, nil
}
