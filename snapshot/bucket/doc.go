// Package bucket is the objects of an S3 bucket below a prefix.
//
// # Files
//
//	bucket.go    Bucket, the interface, and what it takes and gives
//	errors.go    the sentinels, and Error, which names bucket and key
//	open.go      Open: from a URL to a Bucket
package bucket
