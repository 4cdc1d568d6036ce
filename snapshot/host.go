package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/snapshot/bucket"
	"kmsfs/volume"
)

// host is what this host keeps beside its state of the volume, so that a push does
// not have to ask the bucket: nothing of it is needed. Whoever has it open is the
// only push or pull of the volume on this host.
type host struct {
	access *volume.Access
	lock   *os.File
	hostFile
}

// hostFile is VOLUME-ID.copy.
type hostFile struct {
	Place string    `json:"place"` // of the copy that all below is about
	Push  crypto.ID `json:"push"`  // under way; zeros if none
	// Committing is the generation that it was about to become; 0 before.
	Committing uint64 `json:"committing"`
	// Generation and ETag are those of the newest manifest, when this host pushed it
	// or read it; VOLUME-ID.manifest is the same, byte for byte.
	Generation uint64 `json:"generation"`
	ETag       string `json:"etag"`
}

func dirOf(path string) string { return filepath.Dir(path) }

// openHost keeps other pushes and pulls of this host out, or is ErrBusy. What is
// known of another place counts for nothing.
func openHost(a *volume.Access, place string) (*host, error) {
	f, err := os.OpenFile(a.StateFile("copy"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		err = ErrBusy
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	h := &host{access: a, lock: f}
	h.load(place)
	return h, nil
}

// load reads what is known of a place, without the lock where there is none.
func (h *host) load(place string) {
	b, err := os.ReadFile(h.access.StateFile("copy"))
	if err != nil || json.Unmarshal(b, &h.hostFile) != nil || h.Place != place {
		h.hostFile = hostFile{Place: place}
	}
}

func (h *host) close() { h.lock.Close() }

// save keeps it. It is not made durable: nothing of it is needed.
func (h *host) save() error {
	b, err := json.Marshal(h.hostFile)
	if err != nil {
		return err
	}
	if err := h.lock.Truncate(0); err != nil {
		return err
	}
	_, err = h.lock.WriteAt(append(b, '\n'), 0)
	return err
}

// manifest is the manifest that this host has of a generation, if its ETag is that
// in the bucket; nil if it has none.
func (h *host) manifest(generation uint64, info bucket.Info) *os.File {
	if h.Generation != generation || h.ETag == "" || h.ETag != info.ETag {
		return nil
	}
	f, err := os.Open(h.access.StateFile("manifest"))
	if err != nil {
		return nil
	}
	return f
}

// last is the manifest that this host has, with its generation, or nil.
func (h *host) last() (*os.File, uint64) {
	if h.Generation == 0 {
		return nil, 0
	}
	f, err := os.Open(h.access.StateFile("manifest"))
	if err != nil {
		return nil, 0
	}
	if _, err := checkManifest(h.access, f, h.Generation); err != nil {
		f.Close()
		return nil, 0
	}
	return f, h.Generation
}

// keep makes f, a manifest, the one that this host has.
func (h *host) keep(f *os.File, generation uint64, info bucket.Info) error {
	h.Generation, h.ETag = 0, ""
	if err := h.save(); err != nil {
		return err
	}
	path := h.access.StateFile("manifest")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		_, err = io.Copy(to, io.NewSectionReader(f, 0, st.Size()))
	}
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	h.Generation, h.ETag = generation, info.ETag
	return h.save()
}
