package volume

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// sidecarStore is .kmsfs/keys: one file of wrapped data keys for each file ID.
// A sidecar is made once; only rewrap replaces it.
type sidecarStore struct {
	backing Backing
	dir     int // descriptor of .kmsfs/keys

	mu      sync.Mutex
	shelves [256]int // descriptors of keys/<xx>, plus one; 0 if not open
}

// sidecarError says that a sidecar is missing, damaged or not the file's: the
// file's fault, where other errors are the KMS's or the backing store's.
type sidecarError struct {
	name string // below BACKING
	err  error
}

// unreadSidecarError says that the backing store does not give a sidecar.
type unreadSidecarError struct {
	name string
	err  error
}

func (e *unreadSidecarError) Error() string { return fmt.Sprintf("read sidecar %s: %v", e.name, e.err) }
func (e *unreadSidecarError) Unwrap() error { return e.err }

var errSidecarMissing = errors.New("it is missing")

func (e *sidecarError) Error() string { return fmt.Sprintf("sidecar %s: %v", e.name, e.err) }
func (e *sidecarError) Unwrap() error { return e.err }

func sidecarPath(id crypto.ID) string {
	name := id.String()
	return metaDir + "/keys/" + name[:2] + "/" + name
}

// shelf returns the descriptor of the directory that id's sidecar is in.
func (s *sidecarStore) shelf(id crypto.ID, create bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fd := s.shelves[id[0]]; fd != 0 {
		return fd - 1, nil
	}
	name := hex.EncodeToString(id[:1])
	if create {
		if err := s.backing.Mkdirat(s.dir, name, 0o700); err != nil && err != unix.EEXIST {
			return -1, err
		}
	}
	fd, err := s.backing.Openat(s.dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	s.shelves[id[0]] = fd + 1
	return fd, nil
}

// write stores a new sidecar. It is not durable before sync.
func (s *sidecarStore) write(sc *crypto.Sidecar) error {
	b, err := sc.Marshal()
	if err != nil {
		return fmt.Errorf("write sidecar: %w", err)
	}
	dir, err := s.shelf(sc.File, true)
	if err == nil {
		err = writeNew(s.backing, dir, sc.File.String(), 0o600, b)
	}
	if err != nil {
		return fmt.Errorf("write sidecar %s: %w", sidecarPath(sc.File), err)
	}
	return nil
}

// replace puts sc in the place of its file's sidecar, whole: at every moment
// there is the old one or the new one. The content is durable then, the name is
// after syncShelf. One that is gone is unix.ENOENT, and stays so. What is killed
// in between leaves a temporary, which list tells.
func (s *sidecarStore) replace(sc *crypto.Sidecar) error {
	b, err := sc.Marshal()
	if err != nil {
		return fmt.Errorf("write sidecar: %w", err)
	}
	dir, err := s.shelf(sc.File, false)
	if err != nil {
		return err
	}
	k, name := s.backing, sc.File.String()
	if err := writeTemporary(k, dir, name, b); err != nil {
		return fmt.Errorf("write sidecar %s: %w", sidecarPath(sc.File), err)
	}
	// A plain rename would bring back what a live mount removes meanwhile.
	err = k.Renameat2(dir, name+tmpSuffix, dir, name, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL { // a store without it
		var st unix.Statx_t
		if err = k.Statx(dir, name, &st); err == nil {
			return k.Renameat2(dir, name+tmpSuffix, dir, name, 0)
		}
	}
	if uerr := k.Unlinkat(dir, name+tmpSuffix, 0); err == nil && uerr != unix.ENOENT {
		err = uerr
	}
	return err
}

// syncShelf makes the names in the directory of the sidecar id durable.
func (s *sidecarStore) syncShelf(id crypto.ID) error {
	dir, err := s.shelf(id, false)
	if err == nil {
		err = s.backing.Fsync(dir)
	}
	return err
}

// list returns the file IDs of all sidecars. With clean it removes the
// temporaries that an interrupted replace left; only who keeps other replacers
// out may do so. What kmsfs does not write there is passed over.
func (s *sidecarStore) list(clean bool) ([]crypto.ID, error) {
	shelves, err := listDescriptor(s.backing, s.dir)
	if err != nil {
		return nil, fmt.Errorf("list sidecars: %w", err)
	}
	var ids []crypto.ID
	for _, e := range shelves {
		first, err := hex.DecodeString(e.name)
		if err != nil || len(first) != 1 || hex.EncodeToString(first) != e.name {
			continue
		}
		dir, err := s.shelf(crypto.ID{first[0]}, false)
		if isNoDirectory(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list sidecars: open %s: %w", e.name, err)
		}
		entries, err := listDescriptor(s.backing, dir)
		if err != nil {
			return nil, fmt.Errorf("list sidecars: %w", err)
		}
		for _, e := range entries {
			name, temporary := strings.CutSuffix(e.name, tmpSuffix)
			id, err := crypto.ParseID(name)
			switch {
			case err != nil || id[0] != first[0]:
			case !temporary:
				ids = append(ids, id)
			case clean:
				if err := s.backing.Unlinkat(dir, e.name, 0); err != nil && err != unix.ENOENT {
					return nil, fmt.Errorf("remove temporary sidecar: %w", err)
				}
			}
		}
	}
	return ids, nil
}

// read loads the sidecar of a file ID and checks what can be checked without
// its key: nothing in it is authenticated yet.
func (s *sidecarStore) read(volume, id crypto.ID) (*crypto.Sidecar, error) {
	dir, err := s.shelf(id, false)
	var b []byte
	if err == nil {
		b, err = readSmall(s.backing, dir, id.String(), crypto.MaxSidecarSize)
	}
	switch {
	case err == unix.ENOENT:
		return nil, &sidecarError{sidecarPath(id), errSidecarMissing}
	case err == unix.ENOTDIR, err == unix.ELOOP, errors.Is(err, errNotPlain), errors.Is(err, errTooLong):
		return nil, &sidecarError{sidecarPath(id), fmt.Errorf("it is none: %w", err)}
	}
	if err != nil {
		return nil, &unreadSidecarError{sidecarPath(id), err}
	}
	sc, err := crypto.ParseSidecar(b)
	if err != nil {
		return nil, &sidecarError{sidecarPath(id), err}
	}
	if sc.Volume != volume || sc.File != id {
		return nil, &sidecarError{sidecarPath(id), errors.New("it belongs to another file or volume")}
	}
	return sc, nil
}

// sync makes a sidecar, and its name, durable.
func (s *sidecarStore) sync(id crypto.ID) error {
	dir, err := s.shelf(id, false)
	if err != nil {
		return err
	}
	fd, err := openPlain(s.backing, dir, id.String(), unix.O_RDONLY)
	if err != nil {
		return err
	}
	err = s.backing.Fsync(fd)
	s.backing.Close(fd)
	if err != nil {
		return err
	}
	if err := s.backing.Fsync(dir); err != nil {
		return err
	}
	return s.backing.Fsync(s.dir)
}

// remove deletes a sidecar; one that is gone already is no error.
func (s *sidecarStore) remove(id crypto.ID) error {
	dir, err := s.shelf(id, false)
	if err == nil {
		err = s.backing.Unlinkat(dir, id.String(), 0)
	}
	if err == unix.ENOENT {
		return nil
	}
	return err
}

func (s *sidecarStore) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, fd := range s.shelves {
		if fd != 0 {
			s.backing.Close(fd - 1)
			s.shelves[i] = 0
		}
	}
	s.backing.Close(s.dir)
}
