package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"kmsfs/envelope"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/kmsprovider/local/audit"
	"kmsfs/volume"
)

func TestEachCauseHasItsExitCode(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{&volume.InUseError{}, 1},
		{local.ErrNoKeystore, 1},
		{local.ErrVersion, 1},
		{volume.ErrExists, 1},
		{usagef("wrong"), 2},
		{kmsprovider.ErrInvalidInput, 2},
		{noVolumef("missing"), 6},
		{volume.ErrNotVolume, 6},
		{mountpointf("full"), 10},
		{&causeError{errors.New("2 errors"), errErrorsLeft}, 26},
		{&causeError{errors.New("2 errors"), errRepaired}, 27},
		{local.ErrWrongPassphrase, 12},
		{kmsprovider.ErrAccessDenied, 20},
		{kmsprovider.ErrKeyDisabled, 21},
		{kmsprovider.ErrKeyNotFound, 21},
		{kmsprovider.ErrThrottled, 22},
		{kmsprovider.ErrUnavailable, 23},
		{context.DeadlineExceeded, 23},
		{volume.ErrFingerprint, 24},
		{volume.ErrIntegrity, 25},
		{&volume.IntegrityError{Err: errors.New("torn")}, 25},
		{local.ErrDamaged, 25},
		{kmsprovider.ErrIncorrectKey, 25},
		{kmsprovider.ErrInvalidCiphertext, 25},
		{audit.ErrTampered, 25},
		{audit.ErrForeign, 25},
		{envelope.ErrMalformed, 25},
		{envelope.ErrNotAuthentic, 25},
		{envelope.ErrSignature, 25},
		{envelope.ErrCommitmentPolicy, 25},
		{envelope.ErrContext, 25},
		{envelope.ErrTooManyKeys, 25},
		{envelope.ErrSigned, 25},
		{envelope.ErrTooLarge, 25},
		{envelope.ErrNoKey, 20},
		{encryptionRefused(envelope.ErrContext), 2},
		{encryptionRefused(envelope.ErrCommitmentPolicy), 2},
		{encryptionRefused(envelope.ErrTooManyKeys), 2},
		{encryptionRefused(envelope.ErrTooLarge), 2},
		{errKept, 1},
		{&treeError{code: 23}, 23},
		{&commandError{7}, 7},
		{&daemonError{code: 21, text: "told by the daemon"}, 21},
	} {
		if got := exitCode(tc.err); got != tc.code {
			t.Errorf("exit code of %v is %d, want %d", tc.err, got, tc.code)
		}
		if tc.err == nil {
			continue
		}
		wrapped := withHint(fmt.Errorf("do something: %w", tc.err), "do something else")
		if got := exitCode(wrapped); got != tc.code {
			t.Errorf("exit code of %v, wrapped, is %d, want %d", tc.err, got, tc.code)
		}
	}
}

func TestTheFirstCauseOfTheTableCounts(t *testing.T) {
	noKey := fmt.Errorf("%w: %w", envelope.ErrNoKey, errors.Join(kmsprovider.ErrIncorrectKey, kmsprovider.ErrThrottled))
	if got := exitCode(noKey); got != exitThrottled {
		t.Errorf("one key throttled and one wrong: exit code %d, want %d", got, exitThrottled)
	}
	err := errors.Join(kmsprovider.ErrUnavailable, kmsprovider.ErrKeyDisabled)
	if got := exitCode(err); got != exitKeyDisabled {
		t.Errorf("one key unreachable and one disabled: exit code %d, want %d", got, exitKeyDisabled)
	}
	err = fmt.Errorf("%w: %w", kmsprovider.ErrUnavailable, local.ErrDamaged)
	if got := exitCode(err); got != exitUnreachable {
		t.Errorf("keystore damaged while in use: exit code %d, want %d", got, exitUnreachable)
	}
}
