package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"kmsfs/crypto"
)

// maxLine bounds a line in bytes, with its newline. It is CloudTrail's limit.
const maxLine = 256 << 10

// Labels of what is authenticated, one use each.
const (
	labelLine = "kmsfs v1 audit line\x00"
	labelHead = "kmsfs v1 audit head\x00"
)

type mac [sha256.Size]byte

func (m mac) String() string { return hex.EncodeToString(m[:]) }

// sum authenticates b under a label.
func sum(key *crypto.Key, label string, b []byte) mac {
	h := hmac.New(sha256.New, key.Bytes())
	h.Write([]byte(label))
	h.Write(b)
	return mac(h.Sum(nil))
}

// The end of a line: all before it is covered by the MAC in it.
const (
	beforeMAC = `,"mac":"`
	afterMAC  = "\"}\n"
	macSuffix = len(beforeMAC) + 2*sha256.Size + len(afterMAC)
)

// encodeLine returns e as a line, newline included, and its MAC.
func encodeLine(key *crypto.Key, e Event) ([]byte, mac, error) {
	e.MAC = ""
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(&e); err != nil {
		return nil, mac{}, fmt.Errorf("encode event: %w", err)
	}
	b.Truncate(b.Len() - len("}\n"))
	m := sum(key, labelLine, b.Bytes())
	b.WriteString(beforeMAC)
	b.WriteString(m.String())
	b.WriteString(afterMAC)
	if b.Len() > maxLine {
		return nil, mac{}, fmt.Errorf("encode event: %d bytes, and %d are the most", b.Len(), maxLine)
	}
	return b.Bytes(), m, nil
}

// link is what a line says of its place in the chain.
type link struct {
	sequence uint64
	previous mac
	mac      mac
	repair   *Repair // of the log's own events
	time     string
}

// decodeLine reads a line, newline included, that the key's holder wrote. ok is
// false for every other.
func decodeLine(key *crypto.Key, line []byte) (l link, ok bool) {
	cut := len(line) - macSuffix
	if cut < 0 || len(line) > maxLine {
		return link{}, false
	}
	l.mac = sum(key, labelLine, line[:cut])
	suffix := beforeMAC + l.mac.String() + afterMAC
	if !hmac.Equal(line[cut:], []byte(suffix)) {
		return link{}, false
	}
	var e struct {
		EventTime           string  `json:"eventTime"`
		EventName           string  `json:"eventName"`
		ServiceEventDetails *Repair `json:"serviceEventDetails"`
		Sequence            uint64  `json:"sequence"`
		PreviousMAC         string  `json:"previousMac"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return link{}, false
	}
	previous, err := hex.DecodeString(e.PreviousMAC)
	if err != nil || len(previous) != len(l.previous) {
		return link{}, false
	}
	l.sequence, l.previous, l.time = e.Sequence, mac(previous), e.EventTime
	if e.EventName == repairName {
		l.repair = e.ServiceEventDetails
	}
	return l, true
}
