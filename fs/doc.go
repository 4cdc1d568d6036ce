// Package fs shows a volume as a FUSE file system: it turns what the kernel asks
// into calls on volume.Node, and nothing of ciphertext is known here.
//
// # Map
//
//	mount.go    Mount: kernel options, the server, unmounting
//	readahead.go  how much the kernel asks for when a file is read in order
//	node.go     the node tree: lookup and attributes
//	entries.go  what changes a directory
//	data.go     read, write, fsync
//	dir.go      reading directories
//	unopened.go  without opening them
//	looking.go  which of their entries come with attributes
//	foresight.go  opening files before they are read
//	xattr.go    extended attributes; ACLs, where they are enforced
//	raw.go      what the node API hides: OPEN, FLUSH and write flags
//	rawxattr.go the same of attributes: setgid, and umask against default ACLs
//	groups.go   the groups of who asks
//	errno.go    the one map from errors to errno
//	count.go    requests by kind
//	latency.go  keeping processors awake while requests flow
//	collector.go  making Go's collector run seldom
//	known.go    the inodes that the kernel knows, and making it drop what it caches
//	idle.go     unmounting when nobody uses the mount
//	failures.go what goes to the log
//	shared.go   mounts that share a volume: open files, locks
//
// # Requests
//
// A round trip to user space costs more than encrypting a block, so the kernel
// is told not to ask: OPEN and FLUSH are answered ENOSYS once and never come
// again, entries and attributes are cached for minutes, written pages are kept
// and sent later in large requests. That is right because the volume lets one
// mount write at a time. A node owns its backing descriptor and its keys; there
// are no handles. A volume that is shared has its own rules (shared.go).
//
// Without OPEN nobody but the kernel checks permissions, so default_permissions
// is set, unless only uid 0 can reach the mount.
package fs
