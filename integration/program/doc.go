// Package program is for those who run the kmsfs command in a process: tests,
// and benchmarks.
//
//	program.go     Path builds it, Main is for a test program that uses that
//	highwater.go   Run says how much memory a process needed
package program
