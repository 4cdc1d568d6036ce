package main

import "context"

// workload is something that programs do.
type workload struct {
	name, what string
	kind       kind // of the subjects that can do it
	// on is what the mount has before it is mounted anew for run. Nil: every run
	// starts with an empty volume.
	on *preparation
	// run is what is measured.
	run func(ctx context.Context, in input, at mount) error
}

// preparation fills a mount. What it made is there for all workloads of the same
// preparation and for all rounds, unless a run uses it up.
type preparation struct {
	name   string
	fill   func(ctx context.Context, in input, at mount) error
	usedUp bool
}

var workloads = []workload{
	seqWrite, seqRead, randRead, randReadFour, overwrite, syncWrite,
	create, untar, find, tarc, git, remove, sqlite, list,
	encryption("encrypt-signed", signedSuite), decryption("decrypt-signed", signedSuite),
	encryption("encrypt", unsignedSuite), decryption("decrypt", unsignedSuite),
}

// kind parts workloads on file systems from those of commands.
type kind string

const (
	mounts   kind = "mount"
	commands kind = "command"
)

// input is what workloads work with. It lies on tmpfs and is in memory.
type input struct {
	tar   string // archive of the tree
	tree  treeSize
	plain string // a file to encrypt
	size  int64  // of that, in bytes
	stage string // directory for what a run puts beside the mount
	scale float64
}

// scaled is n as the scale of this measurement has it, and at least 1.
func (in input) scaled(n int) int { return max(1, int(float64(n)*in.scale)) }
