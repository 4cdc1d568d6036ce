// Package integration tests kmsfs as a whole: on real mounts, and against its documents.
//
//	mount_test.go         volumes mounted by the test's own process, for the others
//	tree_test.go          a real tree goes in and comes back; what the backing tree shows of it
//	model_test.go         random operations, compared with the model in folder model
//	concurrency_test.go   readers, writers and truncaters of one file; unlinked files
//	requests_test.go      FUSE requests per operation
//	calls_test.go         calls to the KMS, likewise
//	xattr_test.go         attributes, ACLs and capabilities, compared with a local file system
//	imports_test.go       the import table of docs/ARCHITECTURE.md
//	format_test.go        the figures of docs/FORMAT.md
package integration
