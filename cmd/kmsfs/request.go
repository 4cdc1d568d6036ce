package main

import (
	"encoding/hex"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/control"
	kmsfs "kmsfs/fs"
)

// mountRequest is a mount to make, checked and with absolute paths, so that it
// means the same in the daemon.
type mountRequest struct {
	Backing       string // without symbolic links
	Mountpoint    string // without symbolic links
	ReadOnly      bool
	AllowOther    bool
	Shared        bool
	KeepOpen      bool
	NoWriteback   bool
	NoXattr       bool
	ACL           bool
	Strict        bool
	LowLatency    bool
	TrustNew      bool
	Fingerprint   string
	FsName        string
	KernelOptions []string
	StateDir      string
	ControlDirs   []string // where the control socket may lie, the best place first
	LogLevel      slog.Level
	Idle          time.Duration // 0: never unmounted by itself
	KeyTTL        time.Duration // 0: no limit

	keySources
}

const (
	// defaultKeyTTL is short enough for a revoked key to matter, and long enough
	// for the KMS to be asked seldom: a file in use costs a call an hour.
	defaultKeyTTL = time.Hour
	minKeyTTL     = time.Second
)

// mountFlags are the flags of mount, which the helper lacks.
type mountFlags struct {
	foreground  bool
	fake        bool // the helper's: everything but the mount
	readOnly    bool
	allowOther  bool
	shared      bool
	trustNew    bool
	fingerprint string
	fsName      string
	idle        time.Duration
	keyTTL      time.Duration
	quiet       bool
	debug       bool
}

// request checks what was asked for, before anything is opened or asked.
func (a *app) request(backing, mountpoint string, f mountFlags, o mountOptions) (*mountRequest, error) {
	r := &mountRequest{
		ReadOnly:      f.readOnly || o.readOnly,
		AllowOther:    f.allowOther || o.allowOther,
		Shared:        f.shared || o.shared,
		KeepOpen:      o.keepOpen,
		NoWriteback:   o.noWriteback,
		NoXattr:       o.noXattr,
		ACL:           o.acl,
		Strict:        o.strict,
		LowLatency:    o.lowLatency,
		TrustNew:      f.trustNew,
		Fingerprint:   firstOf(f.fingerprint, o.fingerprint),
		FsName:        firstOf(f.fsName, o.fsName),
		KernelOptions: o.kernel,
		KeyTTL:        f.keyTTL,
	}
	if r.Idle = f.idle; r.Idle == 0 {
		r.Idle = o.idle
	}
	switch {
	case r.Idle < 0:
		return nil, usagef("idle time %v: want a time that passes", r.Idle)
	case r.KeyTTL != 0 && r.KeyTTL < minKeyTTL:
		return nil, usagef("key TTL %v: want at least %v, or 0 for no limit", r.KeyTTL, minKeyTTL)
	case o.noXattr && o.acl:
		return nil, usagef("mount options noxattr and acl exclude each other")
	case r.Shared && (r.ReadOnly || r.Strict):
		return nil, usagef("--shared goes neither with --ro nor with -o strict")
	case f.quiet && f.debug:
		return nil, usagef("--quiet and --debug exclude each other")
	case f.quiet:
		r.LogLevel = slog.LevelWarn
	case f.debug:
		r.LogLevel = slog.LevelDebug
	}
	if raw, err := hex.DecodeString(r.Fingerprint); err != nil || r.Fingerprint != "" && len(raw) != 32 {
		return nil, usagef("fingerprint %q: want 64 hex digits", r.Fingerprint)
	}
	a.keys.keystore = firstOf(a.keys.keystore, o.keystore)
	a.keys.ageIdentity = firstOf(a.keys.ageIdentity, o.ageIdentity)
	if a.keys.deadline == 0 {
		a.keys.deadline = o.kmsDeadline
	}
	if a.keys.passphraseFile == "" && a.keys.passphraseCommand == "" {
		a.keys.passphraseFile = o.passphrase
	}
	var err error
	if r.Mountpoint, err = checkMountpoint(mountpoint, o.nonEmpty); err != nil {
		return nil, err
	}
	if r.Backing, err = findBacking(backing); err != nil {
		return nil, err
	}
	if err := unix.Access(kmsfs.LatencyDevice, unix.W_OK); r.LowLatency && err != nil && err != unix.ENOENT {
		return nil, withHint(usagef("mount option latency=low: open %s: %w", kmsfs.LatencyDevice, err), "it is for root, unless the device is given to others")
	}
	if inside, err := isInside(r.Backing, r.Mountpoint); err != nil {
		return nil, err
	} else if inside {
		return nil, mountpointf("mount point %s is in the backing directory %s", r.Mountpoint, r.Backing)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(r.Backing, &st); err == nil && st.Flags&unix.ST_RDONLY != 0 {
		if r.Shared {
			return nil, usagef("--shared: the file system of %s is read-only", r.Backing)
		}
		r.ReadOnly = true
	}
	if r.FsName == "" {
		r.FsName = r.Backing
	}
	if r.keySources, err = a.keySources(); err != nil {
		return nil, err
	}
	r.ControlDirs = control.Directories(a.getenv, a.euid)
	r.StateDir, err = a.stateDir()
	return r, err
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
