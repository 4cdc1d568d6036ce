package main

import "context"

// workload is something that programs do.
type workload struct {
	name, what string
	kind       kind // of the subjects that can do it
	// prepare fills the mount before it is mounted anew for run; it is done once
	// for a store. Nil: every run starts with an empty volume.
	prepare func(ctx context.Context, in input, at mount) error
	// run is what is measured.
	run func(ctx context.Context, in input, at mount) error
}

var workloads = []workload{
	untar, tarc,
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
}
