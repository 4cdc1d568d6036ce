// Package snapshot copies the backing directory of a volume into a bucket and back:
// Push, Pull and Verify. It knows nothing of FUSE, and sees no plaintext of contents;
// with the volume key it reads records, names and manifests.
//
// # What is promised
//
//   - A copy is its manifests (docs/FORMAT.md). All that a manifest refers to is in
//     the bucket before it is, and stays until it is gone. Making it, on condition
//     that there is none of its generation, is the one step that a reader sees.
//   - Objects are written once. What a push sends is under the push's own ID, so two
//     pushes never write or remove the same object; the conditional write of the
//     manifest decides which of them comes first, and the other goes out from it.
//   - A state refers to nothing but what its push sent and what the state before
//     refers to. So what a state that goes has, and the next one has not, is not in
//     any later one: removing needs no look at all of them.
//   - Push and Pull can end anywhere. What this host remembers of them (host.go)
//     saves work, and nothing depends on it.
//   - A data file is copied as it was at one moment, also of a volume that is
//     mounted and written to (send.go says how), and names as they were at one
//     moment (describe.go).
//   - Pull gives nothing its name that it has not verified, and removes nothing
//     before all is there.
//
// # Memory
//
// Manifests are read and written as streams. For each file a Push has about 200
// bytes (what the state before has of it), a Pull 20 and a Verify none; and the names
// of the directories that it is in.
//
// # Files
//
//	keys.go        keys of objects
//	entry.go       what a manifest says: entries, files, bundles
//	encode.go decode.go   the same as bytes
//	seal.go        manifests sealed in chunks
//	states.go      which states there are; reading a manifest
//	names.go       what kmsfs keeps for itself in a backing directory
//	dirstack.go walk.go   walks through backing directories, however deep
//	inode.go       attributes of backing inodes
//	source.go      a data file as it is read
//	small.go buffer.go   small objects; buffers
//	host.go        what this host remembers of a copy
//	push.go        Push, and where it goes out from
//	known.go       what the state before has
//	send.go        data files
//	bundle.go      small things put together
//	describe.go    the manifest of what is there
//	commit.go      making it the newest
//	prune.go       removing states, and what dead pushes left
//	pull.go        Pull, and which state it takes
//	selection.go   a part of a state
//	unpushed.go    what a Pull would take away
//	restore.go fetch.go   making what a state has
//	trim.go        removing what it has not
//	crew.go        several jobs at a time
//	verify.go      Verify
//	verifybucket.go verifylocal.go   the bucket's side, and the volume's
//	paths.go       paths in the volume, for people
//	errors.go      what callers can tell apart
package snapshot
