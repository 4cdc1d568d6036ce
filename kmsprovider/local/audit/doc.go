// Package audit keeps the event log of the local KMS: one JSON line per call,
// in the shape of CloudTrail's events, chained so that a removed or changed
// line shows.
//
// # The log
//
// Each line carries its sequence number, the MAC of the line before it, and
// its own MAC, an HMAC-SHA-256 over all that stands before it in the line. The
// key follows from the keystore's, so only who has the passphrase can write a
// line. A second file, PATH.head, says how far the log goes: without it a line
// removed from the end would not show. Both have mode 0600.
//
// # Invariants
//
//   - When Append returns nil the line is written, whole and before the result
//     of the call is handed out. When it fails, nothing stays of it.
//   - Events that changed something (readOnly false) are synced before Append
//     returns, with all before them. The others are synced with the next of
//     those, or every 1,024 events: a power cut may take the last ones.
//   - Any number of goroutines and processes may append: each append is made
//     under flock on the head, and goes on from what the head says then.
//   - kill -9 loses no event. Between line and head, the next append finds the
//     line and goes on from it. In the middle of a line, it removes the torn rest and
//     says so in an event RepairAuditLog. That event also names events that are gone
//     although the head has them. Whole lines are never removed.
//   - An append takes a handful of system calls and reads no line, unless the
//     last one was cut short or the machine was started anew.
//   - The log is never rotated. One of another keystore is refused, not mixed.
//
// # What it proves
//
// Whoever may write both files, but has not the key, can remove both or put
// back older copies of both, as of the keystore itself. After an unclean stop of the
// machine the events not yet synced may be missing; whether the power cut or
// somebody took them cannot be told, and Verify says that they are missing.
//
// # Files
//
//	event.go    Event: CloudTrail's shape
//	log.go      Log: Open, Append, Close
//	line.go     a line: MAC and chain
//	head.go     the head file
//	recover.go  going on after a crash
//	verify.go   Verify, Report
//	read.go     Read, Follow
//	files.go    opening, locking and syncing
package audit
