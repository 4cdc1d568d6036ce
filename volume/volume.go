package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// Volume is an open volume. Its methods, and those of its nodes, are safe for
// concurrent use.
type Volume struct {
	id         crypto.ID
	config     atomic.Pointer[Config] // see conf
	mode       KeyMode                // never changes
	configName string                 // that it was opened by
	readOnly   bool
	shared     *sharing // nil unless others may have it open, too
	strict     bool
	// relaxed: a power cut may have torn unsynced writes, so that seals that
	// do not match are reported and accepted.
	relaxed bool
	// settled: a check has made good what may be torn; see accepts.
	settled  atomic.Bool
	settling settling
	checking bool // fsck: it has the volume for itself, and says itself what does not match
	// tight: the store is full, and the reserve given up, while writing begins or
	// ends; unreserved: it is not whole. Both are the mount's, then redo.mu's.
	tight, unreserved, saidUnreserved bool

	backing     Backing
	random      io.Reader
	log         *slog.Logger
	providers   *kmsprovider.Registry
	kmsDeadline time.Duration
	keyTTL      time.Duration
	uptime      func() time.Duration
	cache       atomic.Pointer[Cache] // of plaintext, outside of the volume
	ctx         context.Context       // ends when the volume is closed
	cancel      context.CancelFunc
	tasks       sync.WaitGroup // that run until then
	closing     sync.Once
	closed      error // what Close returned

	*volumeKeys // nil while the volume is locked; only who is inside the gate may look
	custody     custody
	rootID      crypto.ID
	fingerprint [32]byte

	root        *Node
	rootDesc    *descriptor
	nodes       nodeTable
	descriptors descriptorSet
	pinned      nodeSet
	badXattrs   sync.Map // messages of damaged attribute names that were logged
	debts       debts
	late        lateChanges
	naming      namesLock

	keys     *keyCache
	setbacks setbacks
	ahead    *ahead
	sidecars *sidecarStore
	pool     *keyPool
	reaper   *reaper

	follow  follower
	meta    int // descriptor of .kmsfs
	links   int // descriptor of .kmsfs/links; -1 where it is missing and only read
	redoDir int // descriptor of .kmsfs/redo
	redo    *redoFile
	// holdMode arms a slot that puts a mode back; nil but while replay runs.
	holdMode  func(*change) error
	unsettled unsettledIntents
	session   *session
	hosts     *hostStore
	host      *HostState
}

// Open unwraps the volume key and makes the volume in dir ready for use. One
// process may have a volume open for writing. What an interrupted one left
// half-done is finished first. The caller closes it.
func Open(ctx context.Context, dir string, o Options) (*Volume, error) {
	if o.Shared && (o.ReadOnly || o.Strict) {
		return nil, errors.New("open volume: a shared mount is neither read-only nor strict")
	}
	v, err := openKeys(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	if err := v.start(o); err != nil {
		v.abort()
		return nil, err
	}
	if v.keyTTL > 0 {
		v.tasks.Go(v.watchKeys)
		v.tasks.Go(v.watchVolumeKey)
	}
	return v, nil
}

// openKeys is Open without a session: nothing of it keeps others from writing,
// so only configuration and sidecars may be used. The caller releases it.
func openKeys(ctx context.Context, dir string, o Options) (_ *Volume, err error) {
	v, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			v.abort()
		}
	}()
	if err := v.openTree(dir); err != nil {
		return nil, err
	}
	if o.Shared {
		if err := v.newSharing(); err != nil {
			return nil, err
		}
	}
	if err := v.unlock(ctx); err != nil {
		return nil, err
	}
	if err := v.admit(dir, o); err != nil {
		return nil, err
	}
	return v, nil
}

// prepare is a volume of which nothing is open.
func prepare(ctx context.Context, o Options) (*Volume, error) {
	v := &Volume{
		configName: configName,
		readOnly:   o.ReadOnly, strict: o.Strict, backing: o.Backing, random: o.Random, log: o.Log,
		providers: o.Providers, kmsDeadline: o.KMSDeadline, keyTTL: o.KeyTTL, uptime: o.Uptime, meta: -1, links: -1, redoDir: -1,
	}
	if v.backing == nil {
		v.backing = System{}
	}
	v.backing = patient{v.backing}
	if o.backupConfig {
		v.configName = configBackup
	}
	if v.random == nil {
		v.random = rand.Reader
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if v.uptime == nil {
		v.uptime = bootTime
	}
	if v.kmsDeadline == 0 {
		v.kmsDeadline = defaultKMSDeadline
	}
	limit, err := raiseDescriptorLimit()
	if err != nil {
		return nil, err
	}
	if o.MaxDescriptors > 0 {
		limit = o.MaxDescriptors
	}
	v.ctx, v.cancel = context.WithCancel(context.WithoutCancel(ctx))
	v.custody.gate.empty = make(chan struct{}, 1)
	v.nodes.m = make(map[nodeKey]weak.Pointer[Node])
	v.descriptors = descriptorSet{backing: v.backing, limit: limit}
	return v, nil
}

// openTree opens the backing directory and .kmsfs, and reads the configuration.
func (v *Volume) openTree(dir string) error {
	fd, err := openBacking(dir)
	if err != nil {
		return err
	}
	v.rootDesc = &descriptor{fd: fd, slot: -1}
	if v.meta, err = openMeta(v.backing, fd); err != nil {
		return fmt.Errorf("open volume %s: %w", dir, err)
	}
	stamp, _ := v.configStamp() // before it is read: a later one is seen as such
	config, err := readConfigNamed(v.backing, v.meta, v.configName)
	if err != nil {
		return fmt.Errorf("open volume %s: %w", dir, err)
	}
	v.config.Store(config)
	v.follow.seen = stamp
	v.id, v.mode = config.ID, config.KeyMode
	var st unix.Statx_t
	if err := v.backing.Statx(fd, "", &st); err != nil {
		return fmt.Errorf("open backing directory %s: %w", dir, err)
	}
	v.root = &Node{vol: v, key: keyOf(&st), mode: unix.S_IFDIR, desc: v.rootDesc}
	v.rootDesc.node = v.root
	v.nodes.m[v.root.key] = weak.Make(v.root)

	open := func(name string) (int, error) {
		fd, err := v.backing.Openat(v.meta, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == unix.ENOENT && !v.readOnly {
			// A sync tool that drops empty directories left it out.
			if err = v.backing.Mkdirat(v.meta, name, 0o700); err == nil {
				err = v.backing.Fsync(v.meta) // nobody syncs it later
			}
			if err == nil {
				fd, err = v.backing.Openat(v.meta, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			}
		}
		if err == unix.ENOENT && name != "keys" {
			return -1, nil // it would be empty
		}
		if err != nil {
			return -1, fmt.Errorf("open %s: %w", filepath.Join(dir, metaDir, name), err)
		}
		return fd, nil
	}
	keys, err := open("keys")
	if err != nil {
		return err
	}
	v.sidecars = &sidecarStore{backing: v.backing, dir: keys}
	if v.links, err = open("links"); err != nil {
		return err
	}
	v.redoDir, err = open("redo")
	return err
}

// unlock unwraps the volume key and derives what hangs on it.
func (v *Volume) unlock(ctx context.Context) error {
	began := v.uptime()
	kms, cancel := context.WithTimeout(ctx, v.kmsDeadline)
	defer cancel()
	vk, err := unlockVolumeKey(kms, v.conf(), v.providers, v.log)
	if err != nil {
		return err
	}
	v.custody.checked = began
	v.volumeKeys = deriveVolumeKeys(vk, v.id)
	v.rootID, v.fingerprint = crypto.RootDirectoryID(vk), crypto.Fingerprint(vk)
	v.keys = newKeyCache(func(ctx context.Context, id crypto.ID) (*fileKeys, error) {
		// Whoever waits for it may have gone; the volume key must not.
		if err := v.custody.gate.enter(writingBack); err != nil {
			return nil, err
		}
		defer v.custody.gate.leave()
		return v.unwrapFile(ctx, id)
	})
	if v.mode == ModeFile {
		v.ahead = newAhead(v)
	}
	return nil
}

// admit asks host state whether this is the volume that it should be.
func (v *Volume) admit(dir string, o Options) (err error) {
	if v.hosts, err = openHostStore(o.StateDir); err != nil {
		return err
	}
	firstSeen := false
	admit := func() (err error) {
		v.host, firstSeen, err = v.hosts.admit(dir, v.id, v.fingerprint, v.conf().keyIDs(),
			AdmitOptions{Demand: o.Fingerprint, TrustNew: o.TrustNew, Generation: v.conf().Generation, ReadOnly: o.ReadOnly})
		return err
	}
	if o.ReadOnly {
		err = admit()
	} else {
		err = v.withRoom(admit)
	}
	if err == nil && v.host.Generation > v.conf().Generation {
		v.log.Warn("the volume's configuration is older than one that this host has seen: a copy from before its keys were changed, or put back by somebody",
			"generation", v.conf().Generation, "seen", v.host.Generation)
	}
	if firstSeen {
		v.log.Info("this host sees the volume for the first time and keeps its fingerprint", "volume", v.id, "fingerprint", v.host.Fingerprint)
	}
	return err
}

// start opens the volume for writing: it keeps others out, finishes what was
// interrupted, and gets ready to create files.
func (v *Volume) start(o Options) error {
	if v.readOnly {
		return v.checkNoWriter()
	}
	if err := v.beginWriting(o); err != nil {
		return err
	}
	v.reaper = &reaper{
		settle: v.syncAll,
		copied: v.copiesOf,
		remove: v.sidecars.remove,
		failed: func(id crypto.ID, err error) {
			v.log.Warn("sidecar left behind", "sidecar", sidecarPath(id), "error", err)
		},
	}
	// A little more than a call has, whose own error says more.
	v.pool = newKeyPool(v.ctx, v.kmsDeadline+100*time.Millisecond, v.newDataKey, func(k newFileKey) {
		k.wipe()
		_ = v.sidecars.remove(k.id)
		v.debts.forget(sidecarDebt(k.id))
	})
	go v.watchConfig()
	if v.shared != nil {
		return nil // what is left of others is settled with the first change, and the reserve is theirs, too
	}
	if !v.settleIntents() && v.giveReserve() {
		v.settleIntents()
	}
	v.takeReserve()
	return nil
}

// conf is the configuration that the volume goes by: authenticated once Open is
// done with the volume key, and never changed in place. A mount may come to
// follow a newer one, so a call that looks twice takes it once.
func (v *Volume) conf() *Config { return v.config.Load() }

// Root is the volume's root directory.
func (v *Volume) Root() *Node { return v.root }

// ID is the volume's ID.
func (v *Volume) ID() crypto.ID { return v.id }

// Fingerprint identifies the volume key, in hex.
func (v *Volume) Fingerprint() string {
	return fmt.Sprintf("%x", v.fingerprint)
}

// ReadOnly tells whether the volume was opened for reading only.
func (v *Volume) ReadOnly() bool { return v.readOnly }
