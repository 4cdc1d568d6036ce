// Package buckettest is the contract that every bucket.Bucket is tested against.
//
//	buckettest.go    Run, and what its checks share
//	objects.go       objects, put and read
//	conditions.go    conditions, lists, deletions
package buckettest
