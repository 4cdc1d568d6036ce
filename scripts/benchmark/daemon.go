package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	kmsfs "kmsfs/fs"
	"kmsfs/kmsprovider/local"
	"kmsfs/kmsprovider/slow"
	"kmsfs/volume"
)

const (
	daemonVerb = "daemon"
	daemonEnv  = "KMSFS_BENCH_DAEMON" // for the tests, whose program is not this one
	ready      = "ready"
)

// daemon mounts a volume as kmsfs mount does, says so, serves it until ctx ends
// and prints its usage of the KMS.
func daemon(ctx context.Context, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet(daemonVerb, flag.ContinueOnError)
	delay := f.Duration("delay", 0, "what a KMS call takes")
	state := f.String("state", "", "directory of keystore and host state")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 2 {
		return errors.New("want BACKING MOUNTPOINT")
	}
	store, err := local.Open(ctx, keystoreOptions(*state))
	if err != nil {
		return err
	}
	defer store.Close()
	kms := slow.New(store, *delay)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	v, err := volume.Open(ctx, f.Arg(0), volume.Options{
		Providers: registry(kms), StateDir: *state, Mountpoint: f.Arg(1), Log: log,
	})
	if err != nil {
		return err
	}
	m, err := kmsfs.Serve(v, kmsfs.Options{Mountpoint: f.Arg(1), FsName: f.Arg(0), Log: log})
	if err != nil {
		return errors.Join(err, v.Close())
	}
	fmt.Fprintln(stdout, ready)
	<-ctx.Done()
	detached, err := m.Unmount()
	if detached {
		err = errors.New("the mount was in use")
	}
	m.Wait()
	if err := errors.Join(err, v.Close()); err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(usage{Calls: kms.Calls(), Concurrent: kms.Peak(), Waited: v.Stats().Waited.Seconds()})
}
