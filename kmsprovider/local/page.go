package local

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxLimit is the largest Limit that AWS KMS takes in a request.
const maxLimit = 1000

// page returns the part of all that a request asks for with Limit, nil for
// the usual number, and Marker, and the NextMarker; it is empty on the last
// page. A marker is the place and the ID of the last entry that was returned, so
// entries that come or go meanwhile repeat or hide no other one, unless that
// very entry is among those that go.
func page[T any](all []T, limit *int, usual int, marker string, id func(T) string) (some []T, next string, err error) {
	n := usual
	if limit != nil {
		if n = *limit; n < 1 || n > maxLimit {
			return nil, "", invalid("limit", "Member must have value between 1 and %d", maxLimit)
		}
	}
	from := 0
	if marker != "" {
		if from, err = findMarker(all, marker, id); err != nil {
			return nil, "", err
		}
	}
	to := min(from+n, len(all))
	some = slices.Concat([]T{}, all[from:to]) // an empty list is [] in JSON
	if to < len(all) {
		next = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d:%s", to-1, id(all[to-1])))
	}
	return some, next, nil
}

// findMarker returns the index after the entry that marker names.
func findMarker[T any](all []T, marker string, id func(T) string) (int, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(marker)
	place, last, found := strings.Cut(string(raw), ":")
	at, bad := strconv.Atoi(place)
	if err != nil || bad != nil || !found || at < 0 {
		return 0, refuse("InvalidMarkerException", "Could not deserialize marker").of(errBadMarker)
	}
	if i := slices.IndexFunc(all, func(t T) bool { return id(t) == last }); i >= 0 {
		return i + 1, nil
	}
	return min(at, len(all)), nil
}
