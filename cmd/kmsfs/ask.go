package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"kmsfs/control"
)

// askTimeout is how long a mount may take to say how it is.
const askTimeout = 10 * time.Second

// kmsfsMount finds the mount at path, which a user gave.
func kmsfsMount(path string) (mountEntry, error) {
	real, err := resolveMountpoint(path)
	if errors.Is(err, fs.ErrNotExist) {
		return mountEntry{}, mountpointf("mount point %s does not exist", path)
	}
	if err != nil {
		return mountEntry{}, mountpointf("mount point %s: %w", path, err)
	}
	m, ok, err := findMount(real)
	if err != nil {
		return mountEntry{}, err
	}
	if !ok || m.fsType != fsType {
		return mountEntry{}, mountpointf("%s is not a kmsfs mount", real)
	}
	return m, nil
}

// controlSockets lists the sockets of all mounts that this user may ask.
func (a *app) controlSockets() []string {
	dirs := control.Directories(a.getenv, a.euid)
	if a.euid == 0 {
		dirs = append(dirs, control.OthersDirectories()...)
	}
	var sockets []string
	for _, dir := range dirs {
		sockets = append(sockets, control.Sockets(dir)...)
	}
	return sockets
}

// statuses asks the mounts of entries, each over the socket of the user whose
// mount it is, and returns how they are with the sockets that they answered at.
func (a *app) statuses(ctx context.Context, entries []mountEntry) map[string]*mountStatus {
	out := make(map[string]*mountStatus)
	for _, path := range a.controlSockets() {
		s, err := askStatus(ctx, path, entries)
		if err == nil && s != nil {
			out[path] = s
		}
	}
	return out
}

// findControl finds the control socket of the mount at path, with how it is.
func (a *app) findControl(ctx context.Context, path string) (socket string, s *mountStatus, err error) {
	m, err := kmsfsMount(path)
	if err != nil {
		return "", nil, err
	}
	for socket, s := range a.statuses(ctx, []mountEntry{m}) {
		return socket, s, nil
	}
	if a.euid != 0 && m.uid != a.euid {
		return "", nil, fmt.Errorf("%s is the mount of user %d: only that user and root can ask it", m.mountpoint, m.uid)
	}
	return "", nil, withHint(fmt.Errorf("the process that serves %s does not answer", m.mountpoint),
		"it may have been mounted with another XDG_RUNTIME_DIR; its log says where it listens, or why it does not")
}

// askStatus asks at a socket, and returns nil if it is of none of the mounts.
// Nobody can answer for the mount of another user.
func askStatus(ctx context.Context, path string, entries []mountEntry) (*mountStatus, error) {
	var users []int
	for _, m := range entries {
		users = append(users, m.uid)
	}
	c, err := control.Dial(ctx, path, users...)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(askTimeout))
	reply, err := converseOver(c, controlRequest{Verb: "status"})
	if err != nil {
		return nil, err
	}
	for _, m := range entries {
		if reply.Status != nil && reply.Status.Device == m.device && c.UID() == m.uid {
			return reply.Status, nil
		}
	}
	return nil, nil
}

// converseOver sends a request and returns the answer.
func converseOver(c *control.Conn, r any) (*controlReply, error) {
	if err := c.Send(r); err != nil {
		return nil, err
	}
	reply := new(controlReply)
	if err := c.Receive(reply); err != nil {
		return nil, fmt.Errorf("ask the mount: %w", err)
	}
	if reply.Failure != nil {
		return nil, reply.Failure.err()
	}
	return reply, nil
}
