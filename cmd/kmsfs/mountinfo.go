package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// fsType is what the kernel calls a kmsfs mount.
const fsType = "fuse.kmsfs"

// mountEntry is a line of /proc/self/mountinfo; see proc(5).
type mountEntry struct {
	device     string // major:minor, unique while the mount is there
	mountpoint string
	fsType     string
	source     string
	uid        int // whose FUSE mount it is; -1 where that is not said
}

// findMount returns what is mounted at path, which is absolute and without
// symbolic links; the topmost one. The file system itself is not asked: it may
// be dead.
func findMount(path string) (mountEntry, bool, error) {
	entries, err := listMounts()
	if err != nil {
		return mountEntry{}, false, err
	}
	var found mountEntry
	ok := false
	for _, e := range entries {
		if e.mountpoint == path {
			found, ok = e, true
		}
	}
	return found, ok, nil
}

// listMounts returns all that is mounted.
func listMounts() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer f.Close()
	entries, err := parseMountinfo(f)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return entries, nil
}

// parseMountinfo reads /proc/self/mountinfo; lines of another form are skipped.
func parseMountinfo(r io.Reader) ([]mountEntry, error) {
	var entries []mountEntry
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Split(after, " ")
		if !ok || len(left) < 6 || len(right) < 2 {
			continue
		}
		entries = append(entries, mountEntry{
			device: left[2], mountpoint: unescapeOctal(left[4]), fsType: right[0], source: unescapeOctal(right[1]),
			uid: mountingUser(right[2:]),
		})
	}
	return entries, lines.Err()
}

// mountingUser finds user_id, which the kernel shows of every FUSE mount, among
// the options of the file system.
func mountingUser(options []string) int {
	for option := range strings.SplitSeq(strings.Join(options, ","), ",") {
		if value, ok := strings.CutPrefix(option, "user_id="); ok {
			if uid, err := strconv.Atoi(value); err == nil {
				return uid
			}
		}
	}
	return -1
}

// unescapeOctal undoes the kernel's escapes: \040 is a space.
func unescapeOctal(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if len(after) >= 3 {
			if c, err := strconv.ParseUint(after[:3], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = after[3:]
				continue
			}
		}
		b.WriteByte('\\')
		s = after
	}
}
