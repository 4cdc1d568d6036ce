package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
)

const (
	page     = 4 << 10
	mebibyte = 1 << 20
	// Of the large file, and how many pages of it are read or written at random, at scale 1.
	bigMiB   = 1024
	bigReads = 20000
	bigPages = 50000
)

var (
	bigFile = &preparation{name: "bigfile", fill: writeBig}

	seqWrite = workload{
		name: "seqwrite", what: "a new file of 1 GiB written in calls of 1 MiB, and synced", kind: mounts,
		run: writeBig,
	}
	seqRead = workload{
		name: "seqread", what: "it read in calls of 1 MiB, cold", kind: mounts, on: bigFile,
		run: readBig,
	}
	randRead = workload{
		name: "randread", what: "20,000 of its pages of 4 KiB read at random, cold", kind: mounts, on: bigFile,
		run: func(ctx context.Context, in input, at mount) error { return readPages(ctx, in, at, 1) },
	}
	randReadFour = workload{
		name: "randread-4", what: "the same by four readers, 20,000 pages each", kind: mounts, on: bigFile,
		run: func(ctx context.Context, in input, at mount) error { return readPages(ctx, in, at, 4) },
	}
	overwrite = workload{
		name: "overwrite", what: "50,000 of its pages overwritten at random, and synced", kind: mounts, on: bigFile,
		run: overwritePages,
	}
)

func bigPath(at mount) string { return filepath.Join(at.dir(), "big") }

func writeBig(ctx context.Context, in input, at mount) error {
	f, err := os.Create(bigPath(at))
	if err != nil {
		return err
	}
	b := make([]byte, mebibyte)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	for range in.scaled(bigMiB) {
		if _, err = f.Write(b); err != nil || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(err, ctx.Err(), f.Sync(), f.Close())
}

func readBig(ctx context.Context, in input, at mount) error {
	f, err := os.Open(bigPath(at))
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, mebibyte)
	for range in.scaled(bigMiB) {
		if _, err := io.ReadFull(f, b); err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	return nil
}

// readPages has readers read pages at random, each from a descriptor and a
// sequence of its own.
func readPages(ctx context.Context, in input, at mount, readers int) error {
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			errs[i] = atRandom(ctx, in, at, os.O_RDONLY, in.scaled(bigReads), uint64(i), (*os.File).ReadAt)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func overwritePages(ctx context.Context, in input, at mount) error {
	return atRandom(ctx, in, at, os.O_WRONLY, in.scaled(bigPages), 0, (*os.File).WriteAt)
}

// atRandom does something to n pages of the large file.
func atRandom(ctx context.Context, in input, at mount, flags, n int, seed uint64, do func(*os.File, []byte, int64) (int, error)) error {
	f, err := os.OpenFile(bigPath(at), flags, 0)
	if err != nil {
		return err
	}
	pages := int64(in.scaled(bigMiB)) * mebibyte / page
	random := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, page)
	for range n {
		if _, err = do(f, b, random.Int64N(pages)*page); err != nil || ctx.Err() != nil {
			break
		}
	}
	if flags != os.O_RDONLY {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, ctx.Err(), f.Close()); err != nil {
		return fmt.Errorf("go through pages: %w", err)
	}
	return nil
}
