package policy

import (
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// parseNumber reads a decimal number such as -1.5, of 40 digits at most and
// without an exponent, so that comparing is exact and cheap.
func parseNumber(s string) (*big.Rat, bool) {
	whole, fraction, dot := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	if len(s) > 40 || !digits(whole) || dot && !digits(fraction) {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// dateLayouts are the forms of ISO 8601 that W3C's note on dates has. A year
// alone could not be told from seconds.
var dateLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", time.DateOnly, "2006-01"}

// parseDate reads a date, or seconds since 1970.
func parseDate(s string) (time.Time, bool) {
	if digits(s) && len(s) <= 12 {
		n, err := strconv.ParseInt(s, 10, 64)
		return time.Unix(n, 0), err == nil
	}
	for _, layout := range dateLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// parseNetwork reads an address or a network in CIDR notation.
func parseNetwork(s string) (netip.Prefix, bool) {
	if address, ok := parseAddress(s); ok {
		return netip.PrefixFrom(address, address.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}

func parseAddress(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil && a.Zone() == ""
}
