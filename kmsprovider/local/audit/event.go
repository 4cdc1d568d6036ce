package audit

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// Event is one call. The fields are CloudTrail's, in its order and with its
// names; the last three are the chain's. Append fills in what is empty of
// EventVersion, EventTime, EventSource, EventID, EventType and EventCategory,
// and sets ManagementEvent and the chain's. No field may hold a plaintext or a key.
type Event struct {
	EventVersion        string         `json:"eventVersion"` // "1.11"
	UserIdentity        UserIdentity   `json:"userIdentity"`
	EventTime           string         `json:"eventTime"`   // 2026-01-31T12:00:00Z
	EventSource         string         `json:"eventSource"` // "kms.amazonaws.com"
	EventName           string         `json:"eventName"`   // "Decrypt"
	AWSRegion           string         `json:"awsRegion"`
	SourceIPAddress     string         `json:"sourceIPAddress"`
	UserAgent           string         `json:"userAgent"`
	ErrorCode           string         `json:"errorCode,omitempty"`
	ErrorMessage        string         `json:"errorMessage,omitempty"`
	RequestParameters   map[string]any `json:"requestParameters"` // null where there are none
	ResponseElements    map[string]any `json:"responseElements"`
	AdditionalEventData map[string]any `json:"additionalEventData,omitempty"`
	RequestID           string         `json:"requestID"`
	EventID             string         `json:"eventID"`
	// ReadOnly: it changed no key. As in CloudTrail, Decrypt and its like are.
	ReadOnly           bool       `json:"readOnly"`
	Resources          []Resource `json:"resources,omitempty"`
	EventType          string     `json:"eventType"` // "AwsApiCall"
	ManagementEvent    bool       `json:"managementEvent"`
	RecipientAccountID string     `json:"recipientAccountId"`
	// ServiceEventDetails is a *Repair in the events that the log itself writes.
	ServiceEventDetails *Repair `json:"serviceEventDetails,omitempty"`
	EventCategory       string  `json:"eventCategory"` // "Management"

	Sequence    uint64 `json:"sequence"`      // from 1
	PreviousMAC string `json:"previousMac"`   // of the line before; zeros in the first
	MAC         string `json:"mac,omitempty"` // of this line
}

// UserIdentity is who called.
type UserIdentity struct {
	Type        string `json:"type"` // "Root" or "IAMUser"
	PrincipalID string `json:"principalId,omitempty"`
	ARN         string `json:"arn"`
	AccountID   string `json:"accountId"`
	AccessKeyID string `json:"accessKeyId,omitempty"`
	UserName    string `json:"userName,omitempty"`
}

// Resource is a key that the call was about.
type Resource struct {
	AccountID string `json:"accountId,omitempty"`
	Type      string `json:"type"` // "AWS::KMS::Key"
	ARN       string `json:"ARN"`
}

// Repair is what an event RepairAuditLog says: what the log found wrong with
// itself when it went on after a crash.
type Repair struct {
	// RemovedBytes is the length of a torn line that was removed from the end,
	// and RemovedSHA256 its hash.
	RemovedBytes  int64  `json:"removedBytes,omitempty"`
	RemovedSHA256 string `json:"removedSha256,omitempty"`
	// KeptBytes is the length of what stands at the end and is not of this
	// log, more than one torn line. It was left there.
	KeptBytes int64 `json:"keptBytes,omitempty"`
	// LostFrom and LostTo are the sequence numbers of events that the head has
	// and the log has not.
	LostFrom uint64 `json:"lostFrom,omitempty"`
	LostTo   uint64 `json:"lostTo,omitempty"`
	// Unsynced: the machine was started anew since, and the lost events had not
	// been synced: a power cut explains it.
	Unsynced bool `json:"unsynced,omitempty"`
	// HeadMissing: the head was not there, or not of this log.
	HeadMissing bool `json:"headMissing,omitempty"`
}

// repairName is the eventName of the log's own events.
const repairName = "RepairAuditLog"

// complete fills in what the caller left empty.
func (e *Event) complete(now time.Time) {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&e.EventVersion, "1.11"},
		{&e.EventTime, now.UTC().Format(time.RFC3339)},
		{&e.EventSource, "kms.amazonaws.com"},
		{&e.EventType, "AwsApiCall"},
		{&e.EventCategory, "Management"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	e.ManagementEvent = true // as all of KMS's are in CloudTrail
	if e.EventID == "" {
		e.EventID = newID()
	}
}

// newID draws a version 4 UUID, RFC 9562. It need not be secret.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}
