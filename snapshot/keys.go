package snapshot

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"kmsfs/crypto"
)

// Keys of a copy's objects, below its prefix:
//
//	volume.json                         as in the volume; to ask the KMS by
//	manifests/GENERATION                a state; 20 decimal digits
//	manifests/GENERATION.pruned         it is being removed, and is none any more
//	pushes/PUSH-ID                      a push that is under way, or was killed
//	objects/PUSH-ID/FILE-ID-GENERATION-HEADER   a data file as it was then
//	objects/PUSH-ID/small-HASH          many small things
//
// All but volume.json and pushes/ are written once and never changed. What a push
// sends is under its own ID, so nobody else ever writes or removes it meanwhile.
const (
	configKey       = "volume.json"
	manifestPrefix  = "manifests/"
	prunedSuffix    = ".pruned"
	pushPrefix      = "pushes/"
	objectPrefix    = "objects/"
	smallPrefix     = "small-"
	generationWidth = 20
)

func manifestKey(generation uint64) string {
	return fmt.Sprintf("%s%0*d", manifestPrefix, generationWidth, generation)
}

// parseManifestKey tells which state a key is of, and whether it says that this
// one is being removed.
func parseManifestKey(key string) (generation uint64, pruned, ok bool) {
	s, ok := strings.CutPrefix(key, manifestPrefix)
	if !ok {
		return 0, false, false
	}
	s, pruned = strings.CutSuffix(s, prunedSuffix)
	generation, err := strconv.ParseUint(s, 10, 64)
	return generation, pruned, err == nil && len(s) == generationWidth && generation > 0
}

func pushKey(push crypto.ID) string { return pushPrefix + push.String() }

func objectsOf(push crypto.ID) string { return objectPrefix + push.String() + "/" }

func smallKey(push crypto.ID, sum [32]byte) string {
	return objectsOf(push) + smallPrefix + hex.EncodeToString(sum[:16])
}
