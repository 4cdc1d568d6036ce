package main

import "context"

// workload is something that programs do.
type workload struct {
	name, what string
	// prepare fills the mount before it is mounted anew for run; it is done once
	// for a store. Nil: every run starts with an empty volume.
	prepare func(ctx context.Context, in input, dir string) error
	// run is what is measured.
	run func(ctx context.Context, in input, dir string) error
}

var workloads = []workload{untar, tarc}

// input is what workloads work with. It lies on tmpfs and is in memory.
type input struct {
	tar   string // archive of the tree
	tree  treeSize
	stage string // directory for what a run puts beside the mount
}
