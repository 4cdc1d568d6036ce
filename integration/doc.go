// Package integration tests kmsfs as a whole: on real mounts, and against its documents.
//
//	mount_test.go         volumes mounted by the test's own process, for the others
//	daemon_test.go        volumes mounted by the command, for the others
//	users_test.go         running a test again as an ordinary user; running programs
//	process_test.go       this test program in other roles, in processes of its own
//	tree_test.go          a real tree goes in and comes back; what the backing tree shows of it
//	model_test.go         random operations, compared with the model in folder model
//	semantics_test.go     what docs/SEMANTICS.md says of files
//	names_test.go         names, symlink targets, special files, statfs
//	times_test.go         times, and what moves them
//	permissions_test.go   owners, permissions, suid, setgid and sticky directories
//	xattr_test.go         attributes, ACLs and capabilities, compared with a local file system
//	privileges_test.go    what a daemon of root has given up, and must still be able to do
//	readdir_test.go       directories that change while they are read
//	listing_test.go       which entries of a listing come with attributes
//	foresight_test.go     files that are opened before they are read
//	sharing_test.go       mappings and direct access, between processes
//	locks_test.go         locks, between processes
//	shared_test.go sharedload_test.go sharedapps_test.go   what docs/SHARED.md says of several mounts of one volume
//	sharedhosts_test.go   two daemons as two hosts, for them
//	gluster_test.go       a GlusterFS volume that they have as two hosts, likewise
//	interrupt_test.go     signals while an operation waits for the KMS
//	concurrency_test.go   readers, writers and truncaters of one file; unlinked files
//	posix_test.go         go-fuse's posixtest, with each way to mount
//	ways_test.go          the ways to mount that they run with
//	apps_test.go copy_test.go postgres_test.go   programs that people run
//	mount8_test.go        mount(8), fstab and umount(8)
//	push_test.go          push, pull and verify of mounts and S3 servers, killed and written to meanwhile
//	kill_test.go killload_test.go   kill -9 of the daemon, and what is written meanwhile
//	requests_test.go      FUSE requests per operation
//	calls_test.go         calls to the KMS, likewise
//	awskeys_test.go       keys from moto and from the served local KMS; calls counted
//	awspolicy_test.go     the policy of docs/AWS.md
//	outage_test.go        a KMS that is slow, throttles, fails, hangs or refuses
//	sync_test.go synclive_test.go syncpassed_test.go   copies in S3 by any tool (docs/S3.md)
//	imports_test.go       the import table of docs/ARCHITECTURE.md
//	format_test.go        the figures of docs/FORMAT.md
//	regressions_test.go   bugs by which others lost data (docs/REGRESSIONS.md), those of FUSE
//	semantics_doc_test.go   the tests that docs/SEMANTICS.md and docs/REGRESSIONS.md name
package integration
