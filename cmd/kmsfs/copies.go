package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"kmsfs/control"
	"kmsfs/snapshot"
	"kmsfs/snapshot/bucket"
	"kmsfs/volume"
)

// copyFlags are the flags that push, pull and verify share.
type copyFlags struct {
	jobs      int
	bandwidth string
	json      bool
}

func (f *copyFlags) register(flags *pflag.FlagSet) {
	flags.IntVar(&f.jobs, "jobs", 0, "work on `N` objects at a time (default by the number of processors)")
	flags.StringVar(&f.bandwidth, "bandwidth", "", "send and receive at most `RATE` bytes a second, such as 500K or 10M (default no limit)")
	flags.BoolVar(&f.json, "json", false, "print the result as one JSON document")
}

// open finds the bucket of a URL, and what this host calls it.
func (f *copyFlags) open(ctx context.Context, url, sseKey string) (bucket.Bucket, string, error) {
	if f.jobs < 0 {
		return nil, "", usagef("--jobs %d: want a number of objects", f.jobs)
	}
	rate, err := parseBandwidth(f.bandwidth)
	if err != nil {
		return nil, "", err
	}
	b, err := bucket.Open(ctx, url, bucket.Options{SSEKMSKey: sseKey, BytesPerSecond: rate})
	return b, strings.TrimRight(url, "/"), err
}

// parseBandwidth reads a number of bytes a second, with K, M or G for powers of 1024.
func parseBandwidth(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits, factor := s, 1.0
	for i, unit := range "KMG" {
		for _, suffix := range []string{string(unit), string(unit) + "iB"} {
			if d, ok := strings.CutSuffix(strings.TrimSuffix(s, "/s"), suffix); ok {
				digits, factor = d, float64(int64(1)<<(10*(i+1)))
			}
		}
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(n*factor >= 1 && n*factor < 1e15) {
		return 0, usagef("--bandwidth %q: want bytes a second, such as 500K or 10M", s)
	}
	return int64(n * factor), nil
}

// openForCopy opens a volume for who copies its backing directory: as a mount would
// where nobody has it mounted, which keeps others out; else beside the mount, which is
// live then. The caller calls end.
func (a *app) openForCopy(ctx context.Context, dir string, o volume.Options, jobs int) (access *volume.Access, live *mountCopier, end func() error, err error) {
	v, err := volume.Open(ctx, dir, o)
	if errors.Is(err, unix.EROFS) {
		o.ReadOnly = true
		v, err = volume.Open(ctx, dir, o)
	}
	if err == nil {
		access = v.Access()
		return access, nil, func() error { access.Close(); return v.Close() }, nil
	}
	var inUse *volume.InUseError
	if !errors.As(err, &inUse) {
		return nil, nil, nil, err
	}
	socket, s, serr := a.mountOf(ctx, dir)
	if serr != nil {
		return nil, nil, nil, errors.Join(err, serr)
	}
	if access, err = volume.OpenAccess(ctx, dir, o); err != nil {
		return nil, nil, nil, err
	}
	live = newMountCopier(socket, s, jobs)
	return access, live, func() error { live.close(); access.Close(); return nil }, nil
}

// mountOf finds the control socket of the one mount that has the volume in dir open
// for writing.
func (a *app) mountOf(ctx context.Context, dir string) (string, *mountStatus, error) {
	info, err := volume.ReadInfo(dir)
	if err != nil {
		return "", nil, err
	}
	if len(info.Sessions) > 1 {
		return "", nil, errors.New("several mounts write to it: unmount all but one")
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", nil, fmt.Errorf("stat %s: %w", dir, err)
	}
	name := control.Name(info.ID.String(), st.Dev, st.Ino)
	mounts, err := listMounts("self")
	if err != nil {
		return "", nil, err
	}
	for _, socket := range a.controlSockets() {
		if filepath.Base(socket) != name {
			continue
		}
		s, err := askStatus(ctx, socket, mounts)
		if err == nil && s != nil && !s.ReadOnly {
			return socket, s, nil
		}
	}
	return "", nil, errors.New("the mount is of another user or host, or does not answer, so it cannot be copied meanwhile")
}

// copyHint says what to do about errors of copies.
func copyHint(err error) string {
	switch {
	case errors.Is(err, snapshot.ErrRollback):
		return "somebody may have put an older copy back, or removed what is newer; if you know why, say --allow-rollback"
	case errors.Is(err, snapshot.ErrUnpushed):
		return "push them first; or give them up with --discard"
	case errors.Is(err, snapshot.ErrUnread):
		return "see what is the matter: kmsfs fsck BACKING"
	case errors.Is(err, snapshot.ErrLost), errors.Is(err, bucket.ErrUnavailable), errors.Is(err, bucket.ErrThrottled):
		return "call it again: it goes on where it stopped"
	case errors.Is(err, bucket.ErrExpiredCredentials):
		return "renew them, and call it again: it goes on where it stopped"
	case errors.Is(err, snapshot.ErrOtherVolume):
		return "each volume has a bucket or prefix of its own"
	}
	return ""
}
