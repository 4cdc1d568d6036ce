package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

var (
	// ErrNotVolume: the directory holds no volume (.kmsfs/volume.json is missing).
	ErrNotVolume = fmt.Errorf("not a kmsfs volume: %s/%s: %w", metaDir, configName, fs.ErrNotExist)
	// ErrIntegrity: something is not what kmsfs wrote; see IntegrityError.
	ErrIntegrity = errors.New("integrity")
	// ErrFingerprint: the volume is not the one that this host knows.
	ErrFingerprint = errors.New("fingerprint changed")
	// ErrExists: the directory that a volume is to be made in is not empty.
	ErrExists = errors.New("directory is not empty")
)

// InUseError says that another mount has the volume open for writing.
type InUseError struct {
	Host       string
	PID        int
	Mountpoint string
	Since      time.Time
}

func (e *InUseError) Error() string {
	where := "by another process"
	if e.Mountpoint != "" {
		where = "at " + e.Mountpoint
	}
	if e.PID == 0 {
		return "volume is already mounted " + where
	}
	return fmt.Sprintf("volume is already mounted %s (process %d on %s, since %s)",
		where, e.PID, e.Host, e.Since.Format(time.DateTime))
}
