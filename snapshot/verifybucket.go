package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"

	"kmsfs/snapshot/bucket"
)

// wrongObject is an object of the right length, maybe, that holds something else.
type wrongObject struct {
	key  string
	path string
	file *File // nil for a bundle
	sum  [32]byte
	size int64 // that it has
	want int64
}

// objects looks at all objects that the state refers to, several at a time: at what
// the store says of them, or with Full at what is in them.
func (v *verify) objects(ctx context.Context, f *os.File) error {
	c := newCrew(ctx, v.o.Jobs)
	total := int64(v.d.Files) + int64(len(v.d.Bundles))
	look := func(w wrongObject, sum [32]byte, composite string) {
		c.do(func(ctx context.Context) error {
			err := v.object(ctx, w, sum, composite)
			v.mu.Lock()
			defer v.mu.Unlock()
			v.done++
			v.report.Objects++
			if v.o.Progress != nil {
				v.o.Progress(v.done, total)
			}
			return err
		})
	}
	for i := range v.d.Bundles {
		b := &v.d.Bundles[i]
		look(wrongObject{key: b.Key(), want: int64(b.Size)}, b.Sum, "")
	}
	p := &pathTeller{access: v.access}
	err := each(v.access, f, v.d.Generation, func(x *Entry) error {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		path := p.next(x)
		if x.Kind == KindFile {
			look(wrongObject{key: x.File.Key(), path: path, file: x.File, want: x.File.ObjectSize()}, x.File.Sum, x.File.Checksum)
		}
		return nil
	})
	if werr := c.wait(); werr != nil {
		return werr
	}
	if err != nil {
		return err
	}
	return v.explain(ctx, f)
}

// object looks at one object.
func (v *verify) object(ctx context.Context, w wrongObject, sum [32]byte, parts string) error {
	info, err := v.bucket.Head(ctx, w.key)
	if errors.Is(err, bucket.ErrNotFound) {
		v.problem(Problem{Kind: ProblemMissing, Key: w.key, Paths: paths(w.path), Detail: "there is no such object"})
		return nil
	}
	if err != nil {
		return err
	}
	got, known := sum, false
	switch {
	case v.o.Full:
		if got, info.Size, err = v.read(ctx, w.key); err != nil {
			return err
		}
		known = true
	case info.Checksum == "":
	case composite(info.Checksum) != "":
		if known = parts != ""; known && parts != info.Checksum {
			got = [32]byte{}
		}
	default:
		b, err := base64.StdEncoding.DecodeString(info.Checksum)
		if err == nil && len(b) == len(got) {
			got, known = [32]byte(b), true
		}
	}
	if got != sum || info.Size != w.want {
		w.sum, w.size = got, info.Size
		v.mu.Lock()
		v.wrong = append(v.wrong, w)
		v.mu.Unlock()
	} else if !known {
		v.mu.Lock()
		v.report.Unproven++
		v.mu.Unlock()
	}
	return nil
}

// read reads an object.
func (v *verify) read(ctx context.Context, key string) (sum [32]byte, size int64, err error) {
	err = retryFetch(ctx, func() error {
		body, _, err := v.bucket.Get(ctx, key, 0, -1)
		if err != nil {
			return err
		}
		defer body.Close()
		h := sha256.New()
		b := buffers.Get().(*[copySize]byte)
		defer buffers.Put(b)
		size, err = io.CopyBuffer(h, onlyReader{body}, b[:])
		sum = [32]byte(h.Sum(nil))
		return err
	})
	return sum, size, err
}

func paths(p string) []string {
	if p == "" {
		return nil
	}
	return []string{p}
}

// explain finds out what is in the objects that hold something else: what belongs to
// another file, or an older version.
func (v *verify) explain(ctx context.Context, f *os.File) error {
	if len(v.wrong) == 0 {
		return nil
	}
	bySum := make(map[[32]byte][]int)
	for i := range v.wrong {
		if w := &v.wrong[i]; w.sum != [32]byte{} {
			bySum[w.sum] = append(bySum[w.sum], i)
		}
	}
	told := make([]*Problem, len(v.wrong))
	tell := func(f *os.File, generation uint64) error {
		p := &pathTeller{access: v.access}
		return each(v.access, f, generation, func(x *Entry) error {
			path := p.next(x)
			if x.Kind != KindFile {
				return nil
			}
			for _, i := range bySum[x.File.Sum] {
				w := &v.wrong[i]
				if told[i] != nil || w.file != nil && w.file.Header == x.File.Header {
					continue
				}
				if w.file != nil && w.file.ID == x.File.ID {
					told[i] = &Problem{Kind: ProblemRollback, Detail: fmt.Sprintf("it holds the content of generation %d, and should that of %d", x.File.Generation, w.file.Generation)}
				} else {
					told[i] = &Problem{Kind: ProblemSwapped, Detail: fmt.Sprintf("it holds what belongs to %s", path)}
				}
			}
			return nil
		})
	}
	if err := tell(f, v.d.Generation); err != nil {
		return err
	}
	whole, _, err := states(ctx, v.bucket)
	if err != nil {
		return err
	}
	for _, g := range whole {
		if g == v.d.Generation || len(bySum) == 0 {
			continue
		}
		other, _, err := fetchManifest(ctx, v.access, v.bucket, g)
		if errors.Is(err, ErrManifest) || errors.Is(err, ErrNoState) {
			continue
		}
		if err != nil {
			return err
		}
		err = tell(other, g)
		other.Close()
		if err != nil {
			return err
		}
	}
	for i := range v.wrong {
		w, p := &v.wrong[i], told[i]
		switch {
		case p != nil:
		case w.size != w.want:
			p = &Problem{Kind: ProblemTruncated, Detail: fmt.Sprintf("it has %d bytes, and should have %d", w.size, w.want)}
		default:
			p = &Problem{Kind: ProblemChanged, Detail: "it holds something else"}
		}
		p.Key, p.Paths = w.key, paths(w.path)
		if w.file == nil {
			p.Detail += "; it has the keys of files"
		}
		v.problem(*p)
	}
	return nil
}
