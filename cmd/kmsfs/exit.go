package main

import (
	"context"
	"errors"
	"fmt"

	"kmsfs/envelope"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/kmsprovider/local/audit"
	"kmsfs/snapshot"
	"kmsfs/snapshot/bucket"
	"kmsfs/volume"
)

// Exit codes. Scripts rely on them.
const (
	exitOK          = 0
	exitOther       = 1
	exitUsage       = 2
	exitNoVolume    = 6
	exitMountpoint  = 10
	exitPassphrase  = 12
	exitDenied      = 20
	exitKeyDisabled = 21
	exitThrottled   = 22
	exitUnreachable = 23
	exitFingerprint = 24
	exitIntegrity   = 25
	exitErrorsLeft  = 26
	exitRepaired    = 27
)

// Causes that this package itself finds.
var (
	errUsage      = errors.New("usage")
	errNoVolume   = errors.New("no volume")
	errMountpoint = errors.New("mount point")
	errErrorsLeft = errors.New("errors are left")
	errRepaired   = errors.New("repaired")
)

// exitCode is the one table from errors to exit codes. Where an error has
// several causes, as when each of a volume's keys failed in its own way, the
// first one here counts.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var coded interface{ exitCode() int }
	if errors.As(err, &coded) {
		return coded.exitCode()
	}
	for _, row := range []struct {
		cause error
		code  int
	}{
		{errUsage, exitUsage},
		{volume.ErrKeyChange, exitUsage},
		{errMountpoint, exitMountpoint},
		{errErrorsLeft, exitErrorsLeft},
		{errRepaired, exitRepaired},
		{errNoVolume, exitNoVolume},
		{volume.ErrNotVolume, exitNoVolume},
		{volume.ErrFingerprint, exitFingerprint},
		{volume.ErrOlder, exitFingerprint},
		{volume.ErrIntegrity, exitIntegrity},
		{local.ErrWrongPassphrase, exitPassphrase},
		{kmsprovider.ErrAccessDenied, exitDenied},
		{kmsprovider.ErrKeyDisabled, exitKeyDisabled},
		{kmsprovider.ErrKeyNotFound, exitKeyDisabled}, // deleted, for all that can be known
		{kmsprovider.ErrThrottled, exitThrottled},
		{kmsprovider.ErrUnavailable, exitUnreachable},
		{context.DeadlineExceeded, exitUnreachable},
		{local.ErrDamaged, exitIntegrity},
		{audit.ErrTampered, exitIntegrity},
		{audit.ErrForeign, exitIntegrity},
		{kmsprovider.ErrIncorrectKey, exitIntegrity},
		{kmsprovider.ErrInvalidCiphertext, exitIntegrity},
		{kmsprovider.ErrInvalidInput, exitUsage},
		{snapshot.ErrRollback, exitFingerprint},
		{snapshot.ErrOtherVolume, exitFingerprint},
		{snapshot.ErrManifest, exitIntegrity},
		{snapshot.ErrDamaged, exitIntegrity},
		{snapshot.ErrUnread, exitIntegrity},
		{snapshot.ErrNoState, exitNoVolume},
		{bucket.ErrNoBucket, exitNoVolume},
		{bucket.ErrAccessDenied, exitDenied},
		{bucket.ErrExpiredCredentials, exitDenied},
		{bucket.ErrThrottled, exitThrottled},
		{bucket.ErrUnavailable, exitUnreachable},
		{bucket.ErrInvalid, exitUsage},
		{envelope.ErrMalformed, exitIntegrity},
		{envelope.ErrNotAuthentic, exitIntegrity},
		{envelope.ErrSignature, exitIntegrity},
		{envelope.ErrCommitmentPolicy, exitIntegrity}, // this and the next: a message that is not what was demanded
		{envelope.ErrContext, exitIntegrity},
		{envelope.ErrTooManyKeys, exitIntegrity},
		{envelope.ErrSigned, exitIntegrity},
		{envelope.ErrTooLarge, exitIntegrity},
		{envelope.ErrNoKey, exitDenied}, // none that is here is one of the message's
	} {
		if errors.Is(err, row.cause) {
			return row.code
		}
	}
	return exitOther
}

func (e *daemonError) exitCode() int  { return e.code }
func (e *commandError) exitCode() int { return e.code }
func (e *treeError) exitCode() int    { return e.code }

// causeError is an error that matches cause without showing it.
type causeError struct {
	err   error
	cause error
}

func (e *causeError) Error() string   { return e.err.Error() }
func (e *causeError) Unwrap() []error { return []error{e.err, e.cause} }

func usagef(format string, args ...any) error {
	return &causeError{fmt.Errorf(format, args...), errUsage}
}

func mountpointf(format string, args ...any) error {
	return &causeError{fmt.Errorf(format, args...), errMountpoint}
}

func noVolumef(format string, args ...any) error {
	return &causeError{fmt.Errorf(format, args...), errNoVolume}
}
