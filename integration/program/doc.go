// Package program builds the kmsfs command for tests that run it in a process.
//
//	program.go   Path, and Main for a test program that uses it
package program
