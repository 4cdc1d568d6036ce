package local

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"kmsfs/kmsprovider/local/audit"
)

// Every call of Do, but one that its context ended, is an event of the audit
// log, FILE.audit beside the keystore unless Options say otherwise. What an event
// cannot be written for does not happen: the result of a call is handed out, and
// a change is made, after its event stands in the log.

// inProcess is the source of a call that came over no network; CloudTrail has
// the name of a service there too.
const inProcess = "kmsfs"

// auditLog opens the log at its first use: what only opens a keystore makes no
// file.
func (k *Keystore) auditLog() (*audit.Log, error) {
	k.auditing.Lock()
	defer k.auditing.Unlock()
	if k.log != nil {
		return k.log, nil
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return nil, errClosed
	}
	log, err := audit.Open(k.AuditPath(), k.sealer.audit, audit.Options{OwnerOf: k.real, Now: k.now})
	if err != nil {
		return nil, err
	}
	k.log = log
	return log, nil
}

// AuditPath is the audit log's file.
func (k *Keystore) AuditPath() string {
	if k.auditPath != "" {
		return k.auditPath
	}
	return AuditPath(k.real)
}

// AuditPath is where the audit log of a keystore file is, unless Options say
// otherwise.
func AuditPath(keystore string) string { return keystore + ".audit" }

// VerifyAudit checks the whole audit log: see audit.Verify.
func (k *Keystore) VerifyAudit() (audit.Report, error) {
	k.mu.RLock()
	if k.closed {
		k.mu.RUnlock()
		return audit.Report{}, errClosed
	}
	key := k.sealer.audit.Clone()
	k.mu.RUnlock()
	defer key.Wipe()
	return audit.Verify(k.AuditPath(), key)
}

// append writes an event; one without a request ID gets one.
func (k *Keystore) append(e audit.Event) error {
	if e.RequestID == "" {
		id, err := newKeyUUID(rand.Reader)
		if err != nil {
			return err
		}
		e.RequestID = id.String()
	}
	log, err := k.auditLog()
	if err == nil {
		err = log.Append(e)
	}
	if err != nil {
		return asError(context.Background(), fmt.Errorf("write audit log %s: %w", k.AuditPath(), err))
	}
	return nil
}

// record writes the event of the call, which failed if err is not nil.
func (c *call) record(ctx context.Context, err error) error {
	if err != nil && (ctx.Err() != nil && errors.Is(err, ctx.Err()) || errors.Is(err, errClosed)) {
		return nil
	}
	e := audit.Event{
		EventTime:          c.now.Format(time.RFC3339),
		EventName:          c.op.name,
		AWSRegion:          region,
		UserIdentity:       c.identity(),
		SourceIPAddress:    cmp.Or(c.caller.SourceIP, inProcess),
		UserAgent:          c.caller.UserAgent,
		RequestParameters:  members(c.in),
		RequestID:          c.caller.RequestID,
		ReadOnly:           !c.op.changes,
		RecipientAccountID: c.k.account,
	}
	for _, n := range c.needs {
		if n.key != nil {
			e.Resources = append(e.Resources, audit.Resource{AccountID: c.k.account, Type: "AWS::KMS::Key", ARN: n.key.arn})
		}
	}
	var refused *Error
	switch {
	case errors.As(err, &refused):
		e.ErrorCode, e.ErrorMessage = strings.TrimSuffix(refused.Code, "Exception"), refused.Message
	case c.op.changes:
		e.ResponseElements = members(c.out)
	}
	return c.k.append(e)
}

func (c *call) identity() audit.UserIdentity {
	u := audit.UserIdentity{Type: "Root", ARN: c.caller.ARN, AccountID: c.k.account, AccessKeyID: c.caller.AccessKeyID}
	if !c.isRoot() {
		u.Type = "IAMUser"
		u.UserName, _ = strings.CutPrefix(c.caller.ARN, userARN(c.k.account, ""))
	}
	return u
}

// recordService writes what the KMS did by itself.
func (k *Keystore) recordService(now time.Time, done []serviceEvent) error {
	for _, d := range done {
		err := k.append(audit.Event{
			EventTime:          now.Format(time.RFC3339),
			EventName:          d.name,
			EventType:          "AwsServiceEvent",
			AWSRegion:          region,
			UserIdentity:       audit.UserIdentity{Type: "AWSService", AccountID: k.account},
			SourceIPAddress:    inProcess,
			UserAgent:          inProcess,
			Resources:          []audit.Resource{{AccountID: k.account, Type: "AWS::KMS::Key", ARN: d.keyARN}},
			RecipientAccountID: k.account,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// members are the fields of an input or output as CloudTrail shows them: by
// their JSON names with the first letter lower. What may be secret is left out:
// every field of bytes, whatever it is, and those with the tag audit:"-".
func members(v any) map[string]any {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return nil
	}
	s := p.Elem()
	var m map[string]any
	for i := range s.NumField() {
		f := s.Type().Field(i)
		if f.Tag.Get("audit") == "-" || f.Type == reflect.TypeFor[[]byte]() || s.Field(i).IsZero() {
			continue
		}
		if m == nil {
			m = make(map[string]any)
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		first, size := utf8.DecodeRuneInString(name)
		m[string(unicode.ToLower(first))+name[size:]] = s.Field(i).Interface()
	}
	return m
}
