// Package model compares a file system with a model of it in memory: the same
// random operations are done on both, and every answer must agree. Any file
// system that can be reached by paths can be the target: a volume without a
// mount, a mount, a plain directory.
//
//	model.go        Target, what is tested; Run, which draws operations and compares
//	entries.go      making, removing, linking and renaming entries
//	content.go      writing, truncating, reserving, punching, seeking and reading
//	attributes.go   modes, owners and times
//	xattr.go        extended attributes
//	handle.go       open files whose names change or go, or that never had one
//	directory.go    Directory: a Target that is reached through the kernel
//	store.go        what the file system below a target can do
package model
