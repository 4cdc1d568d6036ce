// Package integration tests kmsfs as a whole: on real mounts, and against its documents.
//
//	imports_test.go   the import table of docs/ARCHITECTURE.md
//	format_test.go    the figures of docs/FORMAT.md
package integration
