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
	"sync"
	"time"

	kmsfs "kmsfs/fs"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
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
	kms := &meter{Provider: store, delay: *delay, calls: make(map[string]int)}
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
	return json.NewEncoder(stdout).Encode(kms.usage())
}

// meter is a KMS that takes a given time more for every call, and counts calls.
type meter struct {
	kmsprovider.Provider
	delay time.Duration

	mu          sync.Mutex
	calls       map[string]int
	under, peak int
}

func (k *meter) usage() usage {
	k.mu.Lock()
	defer k.mu.Unlock()
	return usage{Calls: k.calls, Concurrent: k.peak}
}

// begin counts a call and waits; the caller calls what it returns at the end.
func (k *meter) begin(ctx context.Context, op string) (end func(), err error) {
	k.mu.Lock()
	k.calls[op]++
	k.under++
	k.peak = max(k.peak, k.under)
	k.mu.Unlock()
	if k.delay > 0 {
		select {
		case <-time.After(k.delay):
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return func() {
		k.mu.Lock()
		k.under--
		k.mu.Unlock()
	}, err
}

func (k *meter) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) ([]byte, []byte, error) {
	end, err := k.begin(ctx, "GenerateDataKey")
	defer end()
	if err != nil {
		return nil, nil, err
	}
	return k.Provider.GenerateDataKey(ctx, keyID, ec)
}

func (k *meter) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	end, err := k.begin(ctx, "Decrypt")
	defer end()
	if err != nil {
		return nil, err
	}
	return k.Provider.Decrypt(ctx, keyID, wrapped, ec)
}

func (k *meter) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	end, err := k.begin(ctx, "Encrypt")
	defer end()
	if err != nil {
		return nil, err
	}
	return k.Provider.Encrypt(ctx, keyID, plaintext, ec)
}
