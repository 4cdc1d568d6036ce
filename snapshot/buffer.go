package snapshot

import "sync"

// copySize is how much of a file is read at a time, in bytes.
const copySize = 256 << 10

// buffers are for ciphertext, which is no secret.
var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}
