package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// openForFsck opens a volume, if need be by the previous version of volume.json,
// and tells what it found on the way.
func openForFsck(ctx context.Context, dir string, o Options) (*Volume, []*Finding, error) {
	left, err := sessionLeftovers(dir, o)
	if err != nil {
		return nil, nil, err
	}
	v, err := Open(ctx, dir, o)
	if err == nil {
		return v, left, nil
	}
	cause := err
	if !errors.Is(err, ErrIntegrity) && !errors.Is(err, ErrNotVolume) {
		return nil, nil, err
	}
	f := &Finding{Kind: FindingConfig, Backing: metaDir + "/" + configName, Block: -1, Problem: cause.Error()}
	if !o.ReadOnly {
		note, err := restoreConfig(ctx, dir, o)
		if err != nil {
			return nil, nil, fmt.Errorf("%w; its previous version does not help: %w", cause, err)
		}
		f.repaired("%s", note)
	}
	o.backupConfig = o.ReadOnly
	if v, err = Open(ctx, dir, o); err != nil {
		return nil, nil, fmt.Errorf("%w; its previous version does not help: %w", cause, err)
	}
	return v, append(left, f), nil
}

// sessionLeftovers tells what mounts left that ended without saying so. Opening
// the volume for writing finishes and removes it.
func sessionLeftovers(dir string, o Options) ([]*Finding, error) {
	k := o.Backing
	if k == nil {
		k = System{}
	}
	root, err := openBacking(dir)
	if err != nil {
		return nil, err
	}
	defer k.Close(root)
	live, err := liveSessions(k, root)
	if err != nil {
		return nil, err
	}
	if len(live) > 0 {
		return nil, live[0].inUse()
	}
	meta, err := openMeta(k, root)
	if err != nil {
		return nil, err
	}
	defer k.Close(meta)
	var out []*Finding
	for _, sub := range []string{sessionsDir, "redo"} {
		fd, err := k.Openat(meta, sub, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open %s/%s: %w", metaDir, sub, err)
		}
		entries, err := listDescriptor(k, fd)
		k.Close(fd)
		if err != nil {
			return nil, fmt.Errorf("list %s/%s: %w", metaDir, sub, err)
		}
		for _, e := range entries {
			if !isOfSession(e) {
				continue // see checkSessions
			}
			f := &Finding{
				Kind: FindingLeftover, Backing: metaDir + "/" + sub + "/" + e.name, Block: -1, Harmless: true,
				Problem: "of a mount that was killed; the next one that writes finishes its changes, if it was of this boot",
			}
			if !o.ReadOnly {
				f.repaired("the changes are finished, and it is removed")
			}
			out = append(out, f)
		}
	}
	return out, nil
}

// isOfSession tells whether an entry of .kmsfs/sessions or redo may be a mount's.
func isOfSession(e dirent) bool {
	_, err := crypto.ParseID(e.name)
	return err == nil && (e.kind == unix.S_IFREG || e.kind == 0)
}

// restoreConfig puts the previous version of volume.json in the place of a
// damaged one. The volume key authenticates it. It may name keys that have been
// given up since: where this host has seen a newer one, only the keys stay that
// that named, and without an active one among them it is ErrOlder, unless
// TrustNew accepts all.
func restoreConfig(ctx context.Context, dir string, o Options) (note string, err error) {
	trust := o.TrustNew
	o.ReadOnly, o.backupConfig, o.TrustNew = true, true, false
	v, err := openKeys(ctx, dir, o)
	if err != nil {
		return "", err
	}
	defer v.release()
	if err := v.checkNoWriter(); err != nil {
		return "", err
	}
	next := *v.conf()
	if seen := v.host.Generation; seen > next.Generation {
		next.Generation = seen + 1
		if !trust {
			next.Keys = slices.DeleteFunc(slices.Clone(next.Keys), func(k ConfigKey) bool { return !slices.Contains(v.host.KeyIDs, k.KeyID) })
		}
		if len(next.activeKeys()) == 0 {
			return "", fmt.Errorf("%s is of generation %d, this host has seen %d, and no key is active in both: %w", configBackup, v.conf().Generation, seen, ErrOlder)
		}
	}
	b := v.conf().bytes()
	if next.Generation != v.conf().Generation {
		if b, err = next.marshal(v.vk); err != nil {
			return "", err
		}
	}
	if err := retry(func() error { return unix.Flock(v.meta, unix.LOCK_EX) }); err != nil {
		return "", fmt.Errorf("lock %s: %w", metaDir, err)
	}
	v.readOnly = false // for lost+found
	where, err := v.setAside(v.meta, configName, metaDir+"/"+configName)
	if err != nil && err != unix.ENOENT {
		return "", err
	}
	if err := replaceConfig(v.backing, v.meta, configName, b); err != nil {
		return "", err
	}
	note = fmt.Sprintf("its previous version is back, of generation %d", next.Generation)
	if missing := len(v.conf().Keys) - len(next.Keys); missing > 0 {
		note += fmt.Sprintf(", without %d of its keys, which were given up since", missing)
	}
	if where != "" {
		note += "; the damaged one is set aside in " + where
	}
	return note, nil
}
