package main

import (
	"context"
)

// subject is a file system to measure, or a command.
type subject struct {
	name, what string
	kind       kind
	// against is the subject that it is compared with; the first one if empty.
	against string
	// store names what is on the backing directory: subjects of the same store
	// can read what another one has written, so it is prepared once.
	store string
	// onRequest keeps it out of the measurement unless it is named.
	onRequest bool

	// make prepares an empty backing directory.
	make func(ctx context.Context, p place) error
	// mount shows it at the mount point, in a process of its own. A command has
	// what it needs then.
	mount func(ctx context.Context, p place) (mount, error)
}

// mount is a subject that is mounted.
type mount interface {
	// dir is where programs work.
	dir() string
	// unmount ends it, so that what is mounted next starts cold, and says what it cost.
	unmount() (usage, error)
}

// usage is what serving a mount took.
type usage struct {
	CPU   float64        `json:"cpu_seconds"` // of the daemon from mount to unmount, or the command; user and system
	Peak  int64          `json:"peak_kib"`    // of its resident memory
	Calls map[string]int `json:"kms_calls,omitempty"`
	// Most calls to the KMS that were under way at once.
	Concurrent int `json:"kms_concurrent,omitempty"`
	// How long file operations waited for keys, added up.
	Waited float64 `json:"kms_waited_seconds,omitempty"`
}

// allSubjects are all that can be measured here.
func (s *settings) allSubjects() []subject {
	all := []subject{
		kmsfsSubject("kmsfs-file", "file", 0),
		kmsfsSubject("kmsfs-file-slow", "file", s.delay),
		kmsfsSubject("kmsfs-volume", "volume", 0),
		kmsfsSubject("kmsfs-volume-slow", "volume", s.delay),
		native(),
	}
	for _, p := range peers(s.loopback, s.gocryptfs) {
		all = append(all, p.subject())
	}
	if s.kmsfs != "" {
		all = append(all, commandSubject("kmsfs-command", s.kmsfs, s.kmsfs, 64<<10))
	}
	if s.kmsfs != "" && s.official != "" {
		all = append(all,
			commandSubject("official", s.official, s.kmsfs, 4<<10),
			commandSubject("official-64k", s.official, s.kmsfs, 64<<10))
	}
	return all
}

const nativeStore = "native"

// native is the backing file system itself.
func native() subject {
	return subject{
		name: "native", what: "the backing directory itself, unencrypted", kind: mounts, store: nativeStore,
		make:  func(context.Context, place) error { return nil },
		mount: func(_ context.Context, p place) (mount, error) { return nativeMount(p.backing), nil },
	}
}

type nativeMount string

func (m nativeMount) dir() string             { return string(m) }
func (m nativeMount) unmount() (usage, error) { return usage{}, nil }
