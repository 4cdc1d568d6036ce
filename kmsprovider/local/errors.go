package local

import (
	"errors"
	"fmt"
	"io/fs"

	"kmsfs/kmsprovider"
)

// What Open and Create tell apart, with errors.Is.
var (
	// ErrNoKeystore: there is no file at the path. It is an fs.ErrNotExist.
	ErrNoKeystore = fmt.Errorf("no keystore: %w", fs.ErrNotExist)
	// ErrWrongPassphrase: the file is whole and its key does not open.
	ErrWrongPassphrase = errors.New("wrong keystore passphrase")
	// ErrDamaged: the file is not one this package wrote with its passphrase:
	// damaged, edited, or something else.
	ErrDamaged = errors.New("keystore is damaged or was tampered with")
	// ErrVersion: the file is a keystore of another version.
	ErrVersion = errors.New("unsupported keystore version")
	// ErrAliasExists: the alias names a key already.
	ErrAliasExists = errors.New("alias exists")
)

// errClosed answers every call after Close.
var errClosed = fmt.Errorf("use keystore: %w: %w", kmsprovider.ErrUnavailable, fs.ErrClosed)

// errUnknownPrincipal: no principal has that access key ID.
var errUnknownPrincipal = errors.New("no such access key")

// errBadMarker: not a NextMarker that this KMS gave.
var errBadMarker = fmt.Errorf("bad marker: %w", kmsprovider.ErrInvalidInput)

// errBadToken: a token that this KMS did not give, or gave for something else.
var errBadToken = fmt.Errorf("bad token: %w", kmsprovider.ErrInvalidInput)

// Causes behind an Error that are sentinels of no other package.
var (
	errPrincipalExists = errors.New("principal exists")
	errUnknownGrant    = errors.New("no such grant")
	errBadGrant        = errors.New("bad grant")
	errBadTag          = fmt.Errorf("bad tag: %w", kmsprovider.ErrInvalidInput)
	errBadPolicyName   = fmt.Errorf("bad policy name: %w", kmsprovider.ErrInvalidInput)
)
