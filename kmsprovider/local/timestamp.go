package local

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Timestamp is a date in an operation's input or output. In JSON it is AWS's:
// the seconds since the epoch as a number, with up to three decimals.
type Timestamp struct{ time.Time }

// MarshalJSON is json.Marshaler's.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	ms := t.UnixMilli()
	return strconv.AppendFloat(nil, float64(ms)/1000, 'f', -1, 64), nil
}

// UnmarshalJSON is json.Unmarshaler's. Dates beyond the year 9999 are refused.
func (t *Timestamp) UnmarshalJSON(b []byte) error {
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.IsNaN(seconds) || seconds < 0 || seconds >= maxTimestamp {
		return fmt.Errorf("parse date %.40q: want seconds since the epoch", b)
	}
	t.Time = time.UnixMilli(int64(math.Round(seconds * 1000))).UTC()
	return nil
}

const maxTimestamp = 253402300800 // the year 10000

// timestamp makes the pointer that optional dates are; nil for the zero time.
func timestamp(t time.Time) *Timestamp {
	if t.IsZero() {
		return nil
	}
	return &Timestamp{t}
}
