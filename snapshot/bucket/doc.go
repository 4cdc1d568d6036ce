// Package bucket is the objects of an S3 bucket below a prefix.
//
// Credentials, profiles, proxies, regions and endpoints (AWS_ENDPOINT_URL_S3,
// AWS_ENDPOINT_URL) are found by the SDK's default chain. Under an endpoint of
// one's own, buckets are named in paths and not in host names, as emulators and
// most other stores want it.
//
// # What is promised
//
//   - Nothing partial is taken for whole. What is sent has a SHA-256 that the
//     store compares, each part of a large object its own; what is read is
//     counted, and where the whole of an object is read whose checksum the store
//     knows, that is compared too. A lost connection is taken up where it was
//     lost, with If-Match, so that all of a body is of one version.
//   - What may pass (throttling, 5xx, lost connections) is tried again, by the
//     SDK's standard mode, or the adaptive one where AWS_RETRY_MODE says so:
//     AWS_MAX_ATTEMPTS times, or 10, which takes up to two minutes. What is final
//     (denied, no bucket, expired) is asked once. A connection on which nothing
//     moves for a minute is lost.
//   - A Put that was killed leaves no object. The parts that it sent are used
//     again by the next Put of the key, or removed by Sweep.
//   - An error is an *Error, names bucket and key, and matches a sentinel.
//
// # Conditions
//
// IfAbsent and IfMatch are decided by the store, at once with the write. An
// answer that was lost leaves open whether the store wrote before it refused the
// second attempt: then an object that has the checksum of what was put counts as
// put. Who puts a lock or a pointer must make its content unlike all others'.
// A store that does not know conditions overwrites: CheckConditions finds out.
// AWS, moto and the Versity S3 Gateway know both.
//
// # Files
//
//	bucket.go        Bucket, the interface, and what it takes and gives
//	open.go          Open: from a URL to a Bucket
//	client.go        the SDK's client: configuration, region, retries
//	attempts.go      what became of the attempts of one call
//	transport.go     limits of HTTP: connections that stall, bytes a second
//	errors.go        the sentinels, and Error, which names bucket and key
//	judge.go         from the SDK's errors to the sentinels
//	get.go           Head, and Get with the body that takes up lost connections
//	put.go           Put, of small objects and large ones
//	multipart.go     large objects, by the SDK's transfer manager
//	unfinished.go    multipart uploads that did not end: found, resumed, swept
//	checksum.go      parts and checksums
//	conditions.go    CheckConditions
//	list.go          List and Delete
package bucket
