// Package volume is an encrypted volume on a backing directory, without FUSE:
// configuration, names, keys, file contents, seals and crash safety. Everything
// that a mount, a checker or a copier does to a volume goes through it, so that
// most of it is tested without a kernel in between.
//
// # Map
//
//	volume.go close.go   Volume: what is open, and Open and Close
//	options.go      how a volume is opened
//	stats.go        what can be said of an open one
//	config*.go      volume.json: codec, MAC, atomic replacement
//	init.go info.go making a volume, and what can be said of one without a key
//	hoststate.go admit.go   what this host remembers of a volume (trust anchor)
//	session.go writing.go   the one mount that writes
//	follow.go       going by a new volume.json while mounted
//	volumekey.go    the volume key: making and unwrapping it
//	fallback.go     several wrapping keys: time for each, and the causes when all fail
//	custody.go      giving it up and getting it back: Lock, Unlock, revocation
//	gate.go         what every call that needs keys passes
//	backing*.go     Backing: the seam for every call on the backing directory
//	patient.go      calls that signals interrupted, made again
//	plain.go        opening files of our own, and nothing that was put in their place
//	errors.go integrity.go   what callers can tell apart
//	node.go nodeset.go   Node: an inode, and the table that keeps each one single
//	descriptor.go   the bounded set of open backing descriptors
//	path.go         what is above a node, and how it is told
//	beneath.go      going through a backing directory, however deep
//	directory.go    directory IDs and records
//	name.go         plain names to backing names, long and broken ones
//	lookup.go list.go offsets.go       finding and listing entries
//	create.go tmpfile.go mkdir.go link.go symlink.go remove.go rename.go   changing the tree
//	lift.go         doing what an owner gave up the permission for
//	attr.go         stat, chmod, chown, times
//	xattr.go        extended attributes, encrypted; POSIX ACLs, which are not
//	file.go         the state of an open data file: record, keys, tags
//	filechange.go   its changes: armed in a slot, made, taken back where they fail
//	seal.go         loading it: what a backing file must agree with
//	stray.go        names of a file that are not the file's: planted hard links
//	read.go write.go truncate.go fallocate.go seek.go   contents
//	oldblocks.go tags.go buffer.go   what a change must know of the blocks before it
//	settle.go       a write that the store refused half-way
//	sync.go debts.go   fsync, and what must be durable before it returns
//	filekey.go      unwrapping and making data keys
//	keycache.go     the keys of files in use
//	expiry.go       the end of their time to live
//	sidecar.go      the store of wrapped data keys
//	pool.go         data keys made ahead for files that do not exist yet
//	rewrap.go       Rewrap: other wrapping keys for the same data keys
//	rewrapkeys.go   which keys volume.json is to name
//	rewrappass.go rewrapentry.go   the sidecars, one pass after the other
//	reencrypt.go reencryptfile.go reencryptjournal.go   new data keys: files written anew
//	meter.go        calls to KMSs counted and held back
//	ahead.go stream.go   data keys unwrapped ahead of who reads file after file
//	access.go       records and names of a volume for who copies it
//	live.go         files and names held while a mount is copied
//	fsck.go finding.go   Fsck: checking everything, and mending what can be mended
//	fsckwalk.go fsckentry.go fsckdir.go   looking: the tree, its entries, directories
//	fsckfile.go fsckblocks.go fsckkeys.go fscklost.go   files, their blocks and keys;
//	                those whose headers do not tell their IDs
//	fsckmend.go fscktail.go fsckplace.go fsckdircopy.go lostfound.go   mending: records,
//	                last blocks, places and copies of files, copies of directories;
//	                setting aside
//	fsckprogress.go how far it is
//	fsckopen.go fsckstores.go   volume.json and .kmsfs
//	fscksettle.go   the check of a volume in use after a power cut
//	walk.go         in which order such programs read
//	pace.go         how many calls to a KMS to have under way
//	reap.go         removal of sidecars that no file needs any more
//	log.go          blocks logged before they are overwritten (strict)
//	redo.go replay.go   slots that make a change of several places atomic
//	                under kill -9, and what the next mount does with them
//	intent.go unfinished.go   the same for operations on names: what they are
//	                about to do, and how one that was cut short is settled
//	shared.go       several mounts of one volume at a time
//	sharedsession.go  how they begin and end
//	sharedlock.go   locks of backing files, and rereading under them
//	sharedfile.go   files of shared mounts: opening, appending, the last to use one
//	sharedchange.go changes of content that the next one can finish
//	sharednames.go  changes of names, one mount at a time
//	sharedlocks.go  locks of programs
//	reserve.go      space kept for a mount on a full disk
//	late.go         changes that a failing store left half made
//
// # Invariants
//
//   - Nothing read from the backing directory is believed before it is
//     authenticated; what fails is an ErrIntegrity, for that entry alone.
//   - A Node is unique for an inode while anybody holds it. Its file state,
//     where there is any, is the only one, and equals the record on disk
//     outside of a critical section of file.write.
//   - A change of more than one place of a file is armed in a redo slot first, an
//     operation on names that takes more than one step is an intent first. A slot
//     is given back when all is done or undone, not before.
//   - Keys are looked at only inside the gate, and wiped when nobody is inside;
//     those of a file when the last call that acquired them is done. Before keys
//     go, whatever caches plaintext (Cache) has brought back what is to be written
//     and dropped the rest.
//   - No path is ever followed: every call names one entry below an open
//     directory descriptor, with O_NOFOLLOW or AT_SYMLINK_NOFOLLOW; or its "..",
//     opened with O_PATH alone, which has to be the directory that it was opened from.
//
// # Locks
//
// In the order in which they may be taken:
//
//	custody.mu         one of Lock, Unlock and revalidation at a time. Held across
//	                   calls to the KMS, and while the kernel writes back: the
//	                   calls of a file system only try it, and never wait.
//	(the gate)         no lock: entering never waits
//	naming             shared by operations on names; exclusive for who copies the
//	                   names of a mount, for a minute at most
//	sharing.names      shared mounts: one change of names at a time, of all mounts
//	intent             an intent is drawn before all locks that follow, slots included;
//	                   nobody holds two
//	redo slot          a slot is drawn before any lock of a file, and given back after
//	sharedFile.gate    shared mounts: readers of a file or one writer, with the lock of
//	                   the backing file; in a load, Node.mu is held before that lock, of
//	                   a descriptor that nobody else has
//	file.write         one writer of a file's content or record at a time
//	file.content       readers shared; exclusive while the change reaches the disk
//	Node.mu            places, descriptor and file state of a node. Upwards only:
//	                   a holder may take its parent's, never a child's. Held while
//	                   the backing file is opened, never across a KMS call.
//	ahead.mu           what is foretold; a holder may look into the key cache
//	everything else    leaf locks: node table, descriptor set, key cache, pool, queues
//
// No other lock is held across a call to a KMS: the key cache lets later callers
// for the same file wait on a channel instead. Cache is called with custody.mu at
// most, from goroutines that serve no request.
package volume
