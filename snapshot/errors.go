package snapshot

import "errors"

// What callers can tell apart.
var (
	// ErrManifest: a manifest is not one that was made for its place.
	ErrManifest = errors.New("the manifest does not authenticate")
	// ErrDamaged: objects or files are not what the manifest says.
	ErrDamaged = errors.New("not what the manifest says")
	// ErrRollback: the newest state is older than one that this host has seen.
	ErrRollback = errors.New("older than what this host has seen")
	// ErrNoState: there is no such state.
	ErrNoState = errors.New("no such state")
	// ErrOtherVolume: the copy is of another volume.
	ErrOtherVolume = errors.New("a copy of another volume")
	// ErrBusy: another push or pull of the volume runs on this host.
	ErrBusy = errors.New("another push or pull is under way")
	// ErrLost: another push was committed meanwhile, again and again.
	ErrLost = errors.New("other pushes were faster")
	// ErrUnread: what is in the volume could not be copied.
	ErrUnread = errors.New("could not be copied")
	// ErrUnpushed: what is in BACKING would be lost.
	ErrUnpushed = errors.New("not in the copy")
)
