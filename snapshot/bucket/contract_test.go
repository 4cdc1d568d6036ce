package bucket_test

import (
	"strings"
	"testing"

	"kmsfs/integration/emulator"
	"kmsfs/snapshot/bucket"
	"kmsfs/snapshot/bucket/buckettest"
)

// open opens a bucket of a store, reached at url, and nothing else.
func open(t *testing.T, s *emulator.Store, url, name string, o bucket.Options) bucket.Bucket {
	t.Helper()
	for name, value := range s.Environment(url) {
		t.Setenv(name, value)
	}
	b, err := bucket.Open(t.Context(), "s3://"+name+"/some/prefix", o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStoresKeepTheContract(t *testing.T) {
	emulator.Stores(t, func(t *testing.T, s *emulator.Store) {
		buckettest.Run(t, func(t *testing.T) bucket.Bucket {
			return open(t, s, s.URL, s.CreateBucket(t), bucket.Options{})
		})
	})
}

func TestStoresThatFail(t *testing.T) {
	emulator.Stores(t, func(t *testing.T, s *emulator.Store) {
		for _, c := range []struct {
			name  string
			check func(*testing.T, *emulator.Store)
		}{
			{"what passes is tried again", whatPassesIsTriedAgain},
			{"what stays is named", whatStaysIsNamed},
			{"a lost answer is no refusal", aLostAnswerIsNoRefusal},
			{"a bucket that vanishes is named", aBucketThatVanishesIsNamed},
			{"a stalled connection is lost", aStalledConnectionIsLost},
			{"a body that breaks off is taken up", aBodyThatBreaksOffIsTakenUp},
			{"a body that ends early ends with an error", aBodyThatEndsEarlyEndsWithAnError},
			{"what is replaced meanwhile is not mixed", whatIsReplacedMeanwhileIsNotMixed},
			{"another range is not taken", anotherRangeIsNotTaken},
			{"what changes while it is sent is no object", whatChangesWhileItIsSentIsNoObject},
			{"an upload that did not end goes on", anUploadThatDidNotEndGoesOn},
			{"an upload that was given up goes on", anUploadThatWasGivenUpGoesOn},
			{"an upload that ended meanwhile is begun anew", anUploadThatEndedMeanwhileIsBegunAnew},
			{"strays are removed", straysAreRemoved},
		} {
			t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) { c.check(t, s) })
		}
	})
}
