package main

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"kmsfs/volume"
)

// readUnused reads what can be said of a volume that no mount has open for
// writing. A mount that is gone, but whose process has yet to finish, is waited
// for: umount(8) does not, and who mounts again right after it must not fail.
func readUnused(ctx context.Context, backing string, shared bool, log *slog.Logger) (volume.Info, error) {
	const pause, blindLooks = 10 * time.Millisecond, 10
	blind, said := 0, false
	for start := time.Now(); ; {
		info, err := volume.ReadInfo(backing)
		if err != nil {
			return info, err
		}
		i := slices.IndexFunc(info.Sessions, func(s volume.SessionInfo) bool { return !shared || !s.Shared })
		if i < 0 {
			return info, nil
		}
		s := info.Sessions[i]
		gone, err := leaving(s)
		if err != nil { // its process ends just now, or is none that we can see
			blind++
		}
		if err == nil && !gone || blind > blindLooks || time.Since(start) > settleTime {
			return info, s.InUse()
		}
		if !said && time.Since(start) > time.Second {
			said = true
			log.Info("waiting for the last mount to finish", "process", s.PID)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return info, ctx.Err()
		}
	}
}

// leaving tells whether a session's mount is gone where its process lives. One
// that was detached while in use looks the same.
func leaving(s volume.SessionInfo) (bool, error) {
	if host, err := os.Hostname(); err != nil || host != s.Host {
		return false, err
	}
	m, ok, err := findMountOf(strconv.Itoa(s.PID), s.Mountpoint)
	return !ok || m.fsType != fsType, err
}
