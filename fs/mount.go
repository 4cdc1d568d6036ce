package fs

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/volume"
)

// Options says how to mount a volume.
type Options struct {
	Mountpoint string
	// AllowOther lets other users in; the kernel checks their permissions.
	AllowOther bool
	// FsName is what mount(8) and df(1) show as the source.
	FsName string
	// KeepOpen answers OPEN and OPENDIR instead of telling the kernel to leave them out.
	KeepOpen bool
	// NoWriteback makes every write reach the volume before it returns.
	NoWriteback bool
	// Shared is for a volume that others have open, too (volume.Options.Shared): the
	// kernel caches nothing, and passes locks on. KeepOpen and NoWriteback go with it.
	Shared bool
	// NoXattr leaves out extended attributes: EOPNOTSUPP for programs, and one
	// request less before the first write to each file.
	NoXattr bool
	// ACL makes the kernel enforce POSIX ACLs; with AllowOther it always does,
	// where there are attributes.
	ACL bool
	// LowLatency is LatencyDevice, or "": that is told to keep processors from deep
	// sleep while requests flow. It costs power.
	LowLatency string
	// KernelOptions are passed on to mount(2): nosuid, nodev, noexec, noatime …
	KernelOptions []string
	Log           *slog.Logger // nil discards
}

// Mount is a volume that is mounted and served.
type Mount struct {
	volume      *volume.Volume
	server      *fuse.Server
	mountpoint  string
	log         *slog.Logger
	failures    failureLog
	ctx         context.Context
	attrTimeout time.Duration
	noXattr     bool
	acl         bool
	writeback   bool // the kernel keeps written pages for a while
	shared      bool
	counts      Counts
	known       knownInodes
	latency     *lowLatency // nil unless it is asked for
	ballast     []byte
	root        *node
	ended       chan struct{} // closed when the mount is gone

	keepDirs bool     // answer OPENDIR
	opening  sync.Map // *dirHandle of an OPENDIR under way, by its cancel channel; *sharedHandle of an OPEN
	dirs     sync.Map // *dirHandle by number
	files    sync.Map // *sharedHandle by number
	unopened unopened
	lookers  lookers

	foresight foresight
}

// cacheTimeout is how long the kernel may believe entries and attributes. One
// mount at a time changes a volume, so nothing changes behind its back.
const cacheTimeout = 10 * time.Minute

// Serve mounts the volume; when it returns, the mount answers. The volume stays
// open until after Wait, and is the caller's to close.
func Serve(v *volume.Volume, o Options) (*Mount, error) {
	m := &Mount{
		volume: v, mountpoint: o.Mountpoint, log: o.Log,
		ctx: context.Background(), attrTimeout: cacheTimeout,
		noXattr: o.NoXattr, acl: !o.NoXattr && (o.ACL || o.AllowOther),
		writeback: !o.NoWriteback && !o.Shared && !v.ReadOnly(), shared: o.Shared,
		keepDirs: o.KeepOpen || o.Shared || !v.HasLastingOffsets(), ended: make(chan struct{}), ballast: newBallast(),
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if o.LowLatency != "" {
		var err error
		if m.latency, err = openLatency(o.LowLatency, latencyQuiet, m.log); err != nil {
			return nil, fmt.Errorf("mount %s: %w", o.Mountpoint, err)
		}
	}
	served := false
	defer func() {
		if !served && m.latency != nil {
			m.latency.close()
		}
	}()
	// The caller's umask counts, which the kernel or rawFS.masked applies.
	unix.Umask(0)

	if m.shared {
		m.attrTimeout = 0
	}
	timeout := m.attrTimeout
	root := &node{m: m, v: v.Root()}
	m.root = root
	raw := fusefs.NewNodeFS(root, &fusefs.Options{
		EntryTimeout:    &timeout,
		AttrTimeout:     &timeout,
		NegativeTimeout: &timeout,
		NullPermissions: true, // or mode 0000 would be shown as 0644
		RootStableAttr:  &fusefs.StableAttr{Ino: v.Root().Ino(), Gen: v.Root().Generation()},
	})
	server, err := fuse.NewServer(&rawFS{RawFileSystem: raw, m: m, keepOpen: o.KeepOpen || o.Shared}, o.Mountpoint, m.mountOptions(o))
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", o.Mountpoint, err)
	}
	m.server, served = server, true
	v.SetCache(m)
	go func() {
		server.Serve()
		if m.latency != nil {
			m.latency.close()
		}
		m.foresight.close()
		close(m.ended)
	}()
	if err := server.WaitMount(); err != nil {
		_ = server.Unmount()
		return nil, fmt.Errorf("mount %s: %w", o.Mountpoint, err)
	}
	if os.Geteuid() == 0 {
		if err := m.raiseReadAhead(); err != nil {
			m.log.Info("sequential reads stay at 128 KiB a request", "cause", err)
		}
	}
	return m, nil
}

func (m *Mount) mountOptions(o Options) *fuse.MountOptions {
	opts := &fuse.MountOptions{
		AllowOther:               o.AllowOther,
		FsName:                   o.FsName,
		Name:                     "kmsfs",
		Options:                  o.KernelOptions,
		DirectMount:              os.Geteuid() == 0, // else fusermount3
		MaxWrite:                 requestSize,
		MaxBackground:            64,
		ExplicitDataCacheControl: true, // no AUTO_INVAL: only we change the data
		EnableSymlinkCaching:     true,
		DisableSplice:            true,
		DisableXAttrs:            m.noXattr,
		EnableAcl:                m.acl,
		// A file handle would be stale once the kernel has forgotten the inode.
		ExtraCapabilities:    fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_NO_EXPORT_SUPPORT,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH, // it would hand out ciphertext
		Logger:               log.New(bridgeLog{m.log}, "", 0),
	}
	if m.acl {
		opts.ExtraCapabilities |= fuse.CAP_DONT_MASK | fuse.CAP_SETXATTR_EXT
	}
	if m.shared {
		m.shareOptions(opts)
	}
	if m.writeback {
		opts.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
	}
	// OPEN is never sent, so nobody but the kernel checks permissions; only
	// uid 0, whom they do not bind, can do without.
	if o.AllowOther || os.Geteuid() != 0 {
		opts.Options = append(opts.Options, "default_permissions")
	}
	if m.volume.ReadOnly() {
		opts.Options = append(opts.Options, "ro")
	}
	if opts.DirectMount {
		opts.DirectMountFlags, opts.Options = MountFlags(opts.Options)
	}
	return opts
}

// MountFlags splits mount options into the flags and the strings of mount(2),
// which fusermount3 does for ordinary users. nosuid and nodev hold unless suid
// and dev are among the options.
func MountFlags(options []string) (uintptr, []string) {
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	set := map[string]uintptr{
		"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
		"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
		"strictatime": unix.MS_STRICTATIME, "sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC,
	}
	clear := map[string]uintptr{
		"rw": unix.MS_RDONLY, "suid": unix.MS_NOSUID, "dev": unix.MS_NODEV, "exec": unix.MS_NOEXEC,
		"atime": unix.MS_NOATIME, "diratime": unix.MS_NODIRATIME, "async": unix.MS_SYNCHRONOUS,
	}
	var rest []string
	for _, o := range options {
		if f, ok := set[o]; ok {
			flags |= f
		} else if f, ok := clear[o]; ok {
			flags &^= f
		} else {
			rest = append(rest, o)
		}
	}
	if flags == 0 {
		flags = unix.MS_MGC_VAL // go-fuse takes 0 for its own default
	}
	return flags, rest
}

// Unmount ends the mount. While it is in use it is only detached: no path leads
// to it any more, and it serves until its last user leaves. Wait returns then.
func (m *Mount) Unmount() (detached bool, err error) {
	if err := m.server.Unmount(); err == nil {
		return false, nil
	}
	if os.Geteuid() == 0 {
		err = unix.Unmount(m.mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	} else {
		err = exec.Command("fusermount3", "-u", "-z", "--", m.mountpoint).Run()
	}
	if errors.Is(err, syscall.EINVAL) {
		return false, nil // somebody else unmounted it
	}
	return err == nil, err
}

// Wait returns when the mount is gone: unmounted, and left by all its users.
func (m *Mount) Wait() { <-m.ended }

// Counts is what the kernel has asked since the mount began.
func (m *Mount) Counts() *Counts { return &m.counts }

// bridgeLog passes go-fuse's own messages on.
type bridgeLog struct{ log *slog.Logger }

func (b bridgeLog) Write(p []byte) (int, error) {
	b.log.Warn("fuse", "message", string(p))
	return len(p), nil
}
