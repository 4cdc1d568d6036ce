package main

import (
	"os/user"
	"strconv"
)

// home is the user's home directory, or "" if none is known. HOME may be
// missing: mount(8) takes it away from ordinary users, and at boot nobody has
// set it yet.
func (a *app) home() string {
	if dir := a.getenv("HOME"); dir != "" {
		return dir
	}
	u, err := user.LookupId(strconv.Itoa(a.euid))
	if err != nil {
		return ""
	}
	return u.HomeDir
}
