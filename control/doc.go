// Package control is the socket by which a mount that runs is asked for
// something. What is asked and answered is its users' business: a message is a
// line of JSON, a connection carries one request and what belongs to it.
//
// # Invariants
//
//   - Only the user who serves the mount, and root, are listened to
//     (SO_PEERCRED); and only they are believed to be one who serves.
//   - The directory belongs to the user and to nobody else (0700); a socket that
//     a killed process left there is replaced.
//   - A line may hold a passphrase: the buffers that it passes are wiped.
//
// # Files
//
//	place.go    where sockets lie
//	server.go   Listen: the mount's side
//	conn.go     Conn: a connection, and Dial: the asking side
package control
