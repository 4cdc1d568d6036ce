package local

import (
	"encoding/hex"

	"kmsfs/kmsprovider"
)

// A ciphertext blob:
//
//	0   1   version, 1
//	1  16   UUID of the key
//	17 32   ID of the key material
//	49 24   nonce
//	73  n   ciphertext, 1 to 4096 bytes
//	    16  tag
//
// XAES-256-GCM under the key material; AAD = bytes 0–48 ‖ Context.Canonical().
const (
	blobVersion  = 1
	blobHeader   = 1 + 16 + materialIDSize
	blobOverhead = blobHeader + 24 + 16
)

// materialIDSize is that of AWS's KeyMaterialId, in bytes.
const materialIDSize = 32

type materialID [materialIDSize]byte

func (id materialID) String() string { return hex.EncodeToString(id[:]) }

// blob is a parsed ciphertext blob; its slices alias the parsed bytes.
type blob struct {
	key      keyUUID
	material materialID
	header   []byte // the part of the AAD
	sealed   []byte // nonce ‖ ciphertext ‖ tag
}

// parseBlob splits b, or returns false. It checks the shape alone.
func parseBlob(b []byte) (blob, bool) {
	if len(b) < blobOverhead+1 || len(b) > blobOverhead+kmsprovider.MaxPlaintext || b[0] != blobVersion {
		return blob{}, false
	}
	return blob{
		key:      keyUUID(b[1:17]),
		material: materialID(b[17:blobHeader]),
		header:   b[:blobHeader:blobHeader],
		sealed:   b[blobHeader:],
	}, true
}

// appendBlobHeader appends the header of a blob of that key and material.
func appendBlobHeader(dst []byte, key keyUUID, material materialID) []byte {
	dst = append(dst, blobVersion)
	dst = append(dst, key[:]...)
	return append(dst, material[:]...)
}
