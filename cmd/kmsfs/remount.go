package main

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	kmsfs "kmsfs/fs"
	"kmsfs/volume"
)

// remount gives a mount the flags of o, as mount(8) asks its helper to with
// -o remount: read-only or not, suid, noatime … What the options say to kmsfs
// itself is passed over, since mount(8) repeats those of the mount; it stays as
// it was.
func (a *app) remount(backing, mountpoint string, f mountFlags, o mountOptions) error {
	real, err := resolveMountpoint(mountpoint)
	if err != nil {
		return mountpointf("mount point %s: %w", mountpoint, err)
	}
	m, ok, err := findMount(real)
	if err != nil {
		return err
	}
	if !ok || m.fsType != fsType {
		return mountpointf("%s is not a kmsfs mount", real)
	}
	options := o.kernel
	if f.readOnly || o.readOnly {
		options = append(options, "ro")
	} else if err := opensForWriting(backing, real); err != nil {
		return err
	}
	if f.fake {
		return nil
	}
	flags, _ := kmsfs.MountFlags(options)
	if err := unix.Mount("", real, "", unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("remount %s: %w", real, err)
	}
	return nil
}

// opensForWriting is an error if the mount does not have the volume open for
// writing: the kernel would let writers in, and the volume refuse them.
func opensForWriting(backing, mountpoint string) error {
	backing, err := findBacking(backing)
	if err != nil {
		return err
	}
	info, err := volume.ReadInfo(backing)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(info.Sessions, func(s volume.SessionInfo) bool { return s.Mountpoint == mountpoint }) {
		return withHint(fmt.Errorf("%s was mounted read-only, and stays so", mountpoint),
			"unmount it, and mount it for writing: kmsfs unmount %s", mountpoint)
	}
	return nil
}
