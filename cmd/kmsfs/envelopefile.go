package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/term"

	"kmsfs/envelope"
)

// codec is encryption or decryption of one message, with all that the flags say.
type codec func(ctx context.Context, dst io.Writer, src io.Reader, s stream) (*envelope.Header, error)

// stream is what differs from message to message.
type stream struct {
	provisional bool              // dst is thrown away unless all goes well
	workers     int               // 0: as many as there are processors
	progress    func(bytes int64) // nil: as of the only message
}

// envelopeRun is one call of encrypt or decrypt.
type envelopeRun struct {
	*app
	mode        string // as metadata has it
	codec       codec
	suffix      string
	noOverwrite bool
	umask       fs.FileMode
	metadata    *metadataFile
	progress    *progress
}

// job is one message to make or to open.
type job struct {
	in, out string // paths, or standardStream
	stream
}

// verb is mode as people say it.
func (r *envelopeRun) verb() string {
	if r.mode == "encrypt" {
		return "encrypt"
	}
	return "decrypt"
}

// one works on one message.
func (r *envelopeRun) one(ctx context.Context, j job) error {
	src, err := unlessDone(ctx, func() (*source, error) { return r.openInput(j.in) })
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := unlessDone(ctx, func() (*sink, error) { return r.openOutput(j.out, src.info) })
	if err != nil {
		return err
	}
	j.provisional = dst.file != nil
	if j.progress == nil {
		j.progress = r.showProgress(src)
	}
	_, err = unlessDone(ctx, func() (struct{}, error) {
		h, err := r.codec(ctx, dst, src, j.stream)
		if err == nil {
			err = dst.finish()
		}
		return struct{}{}, errors.Join(err, r.record(j, h, err))
	})
	dst.discard()
	return r.explain(err, j, dst)
}

// showProgress shows how far the only message is.
func (r *envelopeRun) showProgress(src *source) func(int64) {
	var total int64 // 0: not known
	if src.info != nil {
		total = src.info.Size()
	}
	return func(done int64) { r.progress.update(done, total) }
}

// unlessDone returns what f returns, or that ctx has ended: reading, writing and
// opening a pipe may block for ever, and an interrupt does not wait for it.
func unlessDone[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// record writes the metadata of a message that was done, or was left because of
// its context.
func (r *envelopeRun) record(j job, h *envelope.Header, err error) error {
	var skipped *contextMismatch
	if h == nil || err != nil && !errors.As(err, &skipped) {
		return nil
	}
	return r.metadata.write(newMetadata(r.mode, j, h, skipped))
}

// explain says which message an error is about, and that what has been written
// already is worth nothing.
func (r *envelopeRun) explain(err error, j job, dst *sink) error {
	if err == nil {
		return nil
	}
	name := j.in
	if name == standardStream {
		name = "standard input"
	}
	err = fmt.Errorf("%s: %w", name, err)
	switch {
	case dst.file != nil || dst.written.Load() == 0:
		return err
	case r.verb() == "encrypt":
		return fmt.Errorf("%w\nwhat was written is not a whole message: throw it away", err)
	}
	return fmt.Errorf("%w\nDO NOT USE THE OUTPUT: the %d bytes that were written are not known to be what was encrypted; throw them away", err, dst.written.Load())
}

// source is what is read.
type source struct {
	io.Reader
	info  fs.FileInfo // nil unless it is a file
	close func() error
}

// Close is io.Closer's.
func (s *source) Close() error { return s.close() }

// openInput opens what is to be read.
func (r *envelopeRun) openInput(path string) (*source, error) {
	src := &source{Reader: r.stdin, close: func() error { return nil }}
	f, isFile := r.stdin.(*os.File)
	if path != standardStream {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("open input: %w", err)
		}
		isFile, src.Reader, src.close = true, f, f.Close
	}
	if !isFile {
		return src, nil
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		src.close()
		return nil, fmt.Errorf("open input: %w", err)
	case info.Mode().IsRegular():
		src.info = info
	}
	return src, nil
}

// sink is what is written to: a file to be, or a stream.
type sink struct {
	io.Writer
	file    *outputFile // nil: a stream
	close   func() error
	written atomic.Int64
}

// Write is io.Writer's.
func (s *sink) Write(b []byte) (int, error) {
	n, err := s.Writer.Write(b)
	s.written.Add(int64(n))
	return n, err
}

// finish ends the output of a message that is whole.
func (s *sink) finish() error {
	if s.file != nil {
		return s.file.commit()
	}
	return s.close()
}

// discard removes what is not finished.
func (s *sink) discard() {
	if s.file != nil {
		s.file.discard()
	}
}

// openOutput opens what is to be written: a file that is to appear at path when
// it is whole, or what is there if it is no file. A file has the permissions of
// the input, if that is one, within those that the umask leaves.
func (r *envelopeRun) openOutput(path string, in fs.FileInfo) (*sink, error) {
	if path == standardStream {
		return &sink{Writer: r.stdout, close: func() error { return nil }}, nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			return nil, fmt.Errorf("create output: %s is a symbolic link to nothing", path)
		}
	case err != nil:
		return nil, fmt.Errorf("create output: %w", err)
	case info.IsDir():
		return nil, usagef("output %s is a directory", path)
	case !info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("open output: %w", err)
		}
		return &sink{Writer: f, close: f.Close}, nil
	case in != nil && os.SameFile(in, info):
		return nil, usagef("input and output are the same file, %s", path)
	default: // what a link leads to is replaced, and not the link
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, fmt.Errorf("create output: %w", err)
		}
	}
	mode := fs.FileMode(0o666)
	if in != nil {
		mode = in.Mode().Perm()
	}
	f, err := createOutput(path, outputOptions{mode: mode &^ r.umask, noOverwrite: r.noOverwrite})
	if err != nil {
		return nil, err
	}
	return &sink{Writer: f, file: f}, nil
}

// refuseTerminal keeps ciphertext off the screen.
func (r *envelopeRun) refuseTerminal(out string) error {
	f, ok := r.stdout.(*os.File)
	if out != standardStream || r.verb() != "encrypt" || !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return withHint(usagef("encrypt: a message is binary data, and standard output is a terminal"), "name a file with --output, or pipe it on")
}
