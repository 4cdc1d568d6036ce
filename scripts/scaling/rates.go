package main

// What AWS asks and allows, in us-east-1, in 2026.
const (
	kmsPer10k   = 0.03  // $ for 10,000 requests
	putPer1k    = 0.005 // $ for 1,000 PUT, COPY, POST and LIST
	getPer1k    = 0.0004
	storePerGB  = 0.023 // $ a month, S3 Standard
	listed      = 1000  // keys in one answer
	kmsQuota    = 10_000.0
	kmsQuotaTop = 100_000.0
	s3PutQuota  = 3_500.0 // a second, for each prefix; S3 splits prefixes by itself, in time
	s3Latency   = 0.03    // seconds to the first byte of a small object, typically
	kmsLatency  = 0.01    // seconds of one call from within the region
	partBytes   = 8 << 20
)

// rates are what one machine does. Those of docs/SCALING.md are measured by the
// benchmarks of this package.
type rates struct {
	Create      float64 // files a second: a create and a write of 4 KiB, without FUSE
	Scan        float64 // headers of data files a second: open, read, close
	Fsck        float64 // files of 4 KiB a second that fsck checks
	Rewrap      float64 // sidecars a second with a KMS that answers at once
	RewrapCalls float64 // calls to the KMS for each sidecar
	RewrapMost  float64 // calls to the KMS under way at once
	Put         float64 // objects of 4 KiB a second, 32 at a time, to a store on the same machine
	PutMB       float64 // MB a second of a large object, likewise
	GetMB       float64
	List        float64 // keys a second
	FsckBytes   float64 // of memory for each file
	RewrapBytes float64
}

// measured are the rates of docs/SCALING.md.
var measured = rates{
	Create: 7437, Scan: 68951, Fsck: 5251, Rewrap: 5206, RewrapCalls: 2, RewrapMost: 16,
	Put: 1949, PutMB: 187.3, GetMB: 303.5, List: 25452, FsckBytes: 1513, RewrapBytes: 263,
}
