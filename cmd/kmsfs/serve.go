package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	kmsfs "kmsfs/fs"
	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

// serve mounts a volume and serves it until it is unmounted and closed. It
// calls ready once the mount answers. When ctx ends before that, nothing is
// mounted; afterwards SIGTERM and SIGINT unmount, and SIGHUP where a terminal's
// end is meant to.
func serve(ctx context.Context, r *mountRequest, passphrase passphraseSource, log *slog.Logger, ready func() error, hangup bool) (err error) {
	// Before there is a mount: a signal that kills would leave a dead one.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if hangup {
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)

	if err := lockMemory(); err != nil {
		log.Debug("keys may be swapped out", "error", err)
	}
	asked := &changingSource{source: passphrase}
	keys := r.registry(asked.ask, keystoreRequired, func(string, ...any) {})
	defer func() { err = errors.Join(err, keys.Close()) }()
	var meter kmsprovider.Meter
	keys.WrapWith(meter.Wrap)
	v, err := openVolume(ctx, r, keys, log)
	if err != nil {
		return err
	}
	lowLatency := ""
	if r.LowLatency {
		lowLatency = kmsfs.LatencyDevice
	}
	m, err := kmsfs.Serve(v, kmsfs.Options{
		Mountpoint: r.Mountpoint, AllowOther: r.AllowOther, FsName: r.FsName, KeepOpen: r.KeepOpen,
		NoWriteback: r.NoWriteback, Shared: r.Shared, NoXattr: r.NoXattr, ACL: r.ACL, LowLatency: lowLatency,
		KernelOptions: r.KernelOptions, Log: log,
	})
	if err != nil {
		return errors.Join(err, v.Close())
	}
	p := announce(r.Mountpoint, log)
	defer func() { p.finish(err) }()
	t := attendant{
		request: r, volume: v, mount: m, keys: keys, passphrase: asked, meter: &meter,
		since: time.Now().UTC().Truncate(time.Second), profiling: make(chan struct{}, 1), log: log,
	}
	t.attend()
	if err = ready(); err == nil {
		log.Info("mounted", "backing", r.Backing, "mountpoint", r.Mountpoint, "read_only", v.ReadOnly())
	}
	v.SettleInBackground()
	if r.Idle > 0 {
		m.UnmountWhenIdle(r.Idle)
	}
	gone := make(chan struct{})
	go leaveOnSignal(ctx, signals, gone, err != nil, func() bool { return leave(m, log) })
	m.Wait()
	close(gone)
	p.gone()
	t.close()
	log.Info("unmounted", "mountpoint", r.Mountpoint)
	if closeErr := v.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close volume %s: %w", r.Backing, closeErr))
	}
	return err
}

// openVolume opens the volume of a request.
func openVolume(ctx context.Context, r *mountRequest, keys *kmsprovider.Registry, log *slog.Logger) (*volume.Volume, error) {
	info, err := readUnused(ctx, r.Backing, r.Shared, log) // Open would say so too, after asking for a passphrase
	if err != nil {
		return nil, err
	}
	if err := openFirst(ctx, info.Keys, keys); err != nil {
		return nil, err
	}
	return volume.Open(ctx, r.Backing, volume.Options{
		Providers: keys, StateDir: r.StateDir, ReadOnly: r.ReadOnly, Shared: r.Shared, Strict: r.Strict, Mountpoint: r.Mountpoint,
		Fingerprint: r.Fingerprint, TrustNew: r.TrustNew, KMSDeadline: r.KMSDeadline, KeyTTL: r.KeyTTL, Log: log,
	})
}

// openFirst opens the provider that is going to be asked first. Opening may ask
// for a passphrase, and nobody has to type it within the deadline of a KMS call.
func openFirst(ctx context.Context, keys []volume.KeyInfo, providers *kmsprovider.Registry) error {
	_, err := providers.Provider(ctx, keys[0].Provider)
	for _, k := range keys {
		if k.Provider != keys[0].Provider {
			return nil // another provider may do
		}
	}
	return err
}

// leaveOnSignal calls leave when the mount is unwanted from the start or a
// signal comes, until leave says that it is done, or the mount is gone. The
// context ends with the first signal that the process got, and may have been
// over before there was a mount.
func leaveOnSignal(ctx context.Context, signals <-chan os.Signal, gone <-chan struct{}, unwanted bool, leave func() bool) {
	if unwanted && leave() {
		return
	}
	first := ctx.Done()
	for {
		select {
		case <-gone:
			return
		case <-first:
			first = nil
		case <-signals:
		}
		if leave() {
			return
		}
	}
}

// leave unmounts, and tells whether that is over and done with: a mount in use
// goes on for those who have it open, and is never asked for twice, since
// another one may stand in its place by then.
func leave(m *kmsfs.Mount, log *slog.Logger) bool {
	detached, err := m.Unmount()
	switch {
	case err != nil:
		log.Error("cannot unmount", "error", err)
		return false
	case detached:
		log.Warn("the mount is in use: detached, and served until its last user leaves")
	}
	return true
}
