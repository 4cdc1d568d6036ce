// Command kmsfs mounts encrypted directories whose keys are held by a KMS.
//
// Every subcommand is a method of app, in a file of its own, and works with the
// streams and the environment that it is given; only main.go knows the
// process's own, and only main exits.
//
// # Map
//
//	main.go          the process: streams, signals, exit
//	app.go           app: what all subcommands share; the command tree
//	ui.go            messages and hints
//	exit.go          the one table of exit codes
//	log.go           log records on stderr, then syslog
//	init.go mount.go unmount.go info.go status.go lock.go version.go kms.go      the subcommands
//	rewrap.go        changing a volume's keys
//	reencrypt.go     new data keys for files
//	fsck.go          checking a volume and repairing it
//	push.go pull.go verify.go   copies of a volume in a bucket
//	copies.go        what they share: the bucket, and the volume beside its mount
//	copying.go       what a mount does for who copies it, and asking it to
//	encrypt.go decrypt.go    the subcommands that make and open envelopes
//	envelope.go      what they share: from flags to the work
//	envelopeflags.go their common flags
//	envelopeargs.go  the official command's spelling of them
//	envelopekeys.go  the keys that flags name, as a keyring
//	envelopefile.go  one message, from what is read to what is written
//	envelopeoutput.go   a file that is there when it is whole
//	envelopetree.go  all files of a directory
//	envelopemetadata.go the JSON line about a message
//	envelopehints.go what to do about a message that does not open
//	progress.go      how far something is that takes long
//	kmsverbs.go      the verbs of kms, in one table
//	kmsflags.go      an operation's input as flags
//	kmsvalues.go     the notations of their values
//	kmsprint.go      an operation's output as the AWS CLI prints it
//	kmspasswd.go     a new passphrase
//	kmsaudit.go      the event log
//	kmsserve.go      serving the local KMS
//	helper.go        the command as mount(8)'s helper, mount.kmsfs
//	mountoptions.go  -o
//	remount.go       -o remount
//	mountpoint.go    what a mount point must be
//	mountinfo.go     /proc/self/mountinfo
//	request.go       a mount to make, as parent and daemon agree on it
//	background.go    the parent's side of a background mount
//	daemon.go        the daemon's side
//	link.go          the messages between the two
//	serve.go         a mount from opening the volume to closing it
//	leaving.go       waiting for the process of a mount that is gone
//	presence.go      how unmount sees that a mount's process is done
//	attend.go        what a mount answers over its control socket
//	ask.go           finding that socket, and asking
//	profile.go       profiles of the process of a mount
//	providers.go     the key providers; the local one's keystore
//	passphrase.go    where the keystore's passphrase comes from
//	home.go          the home directory, also where HOME is not set
//	terminal.go      asking for it
//	harden.go        no core dumps, no debugger, no swapping
//	privileges.go    what a daemon of root gives up
//
// # Background mounts
//
// The command starts itself again as a daemon with one end of a socket pair.
// The daemon does all the work and says over the pair when the mount serves, or
// why it does not; it asks for the passphrase over it too, since only the parent
// has the terminal and the user's paths. The parent's exit code is the daemon's.
package main
