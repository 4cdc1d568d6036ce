package volume

import (
	"io"
	"log/slog"
	"time"

	"kmsfs/kmsprovider"
)

// Options says how to open a volume. Providers is required.
type Options struct {
	Providers *kmsprovider.Registry
	StateDir  string // what this host remembers of volumes; see DefaultStateDir
	ReadOnly  bool
	// Shared lets others open the volume, too, who say the same: on this host or on
	// others that see the same directory. It goes neither with ReadOnly nor with Strict.
	Shared bool
	// Strict has every block logged durably before it is overwritten, so that a
	// power cut leaves it old or new.
	Strict bool
	// Mountpoint is shown to those who try to open the volume meanwhile.
	Mountpoint string
	// Fingerprint, if not empty, is the one that the volume must have.
	Fingerprint string
	// TrustNew accepts a changed fingerprint, or another volume at a known path.
	TrustNew bool
	// KeyTTL is how long an unwrapped key lives at most; 0 is no limit.
	KeyTTL time.Duration
	// KMSDeadline is how long a file operation waits for the KMS; 0 means 30 s.
	KMSDeadline time.Duration

	Log     *slog.Logger // nil discards
	Random  io.Reader    // nil means crypto/rand
	Now     func() time.Time
	Backing Backing // nil means System; tests put themselves in between
	// Uptime is the clock of a key's life; nil means one that goes on while the
	// machine sleeps.
	Uptime func() time.Duration
	// MaxDescriptors bounds the open backing descriptors; 0 means half of the limit.
	MaxDescriptors int

	backupConfig bool // go by the previous version of volume.json
}

func (o *Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}
