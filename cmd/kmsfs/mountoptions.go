package main

import (
	"slices"
	"strings"
	"time"
)

// mountOptions is what -o says.
type mountOptions struct {
	readOnly    bool
	allowOther  bool
	shared      bool
	keepOpen    bool
	noWriteback bool
	noXattr     bool
	strict      bool
	acl         bool
	lowLatency  bool
	nonEmpty    bool
	remount     bool
	fsName      string
	fingerprint string
	idle        time.Duration
	kmsDeadline time.Duration
	keyTTL      *time.Duration // nil if it is not said
	keystore    string
	ageIdentity string   // file
	passphrase  string   // file
	kernel      []string // for mount(2)
}

var (
	// kernelOptions go to mount(2) as they are; later ones win over earlier ones.
	kernelOptions = []string{
		"suid", "nosuid", "dev", "nodev", "exec", "noexec", "atime", "noatime", "diratime", "nodiratime",
		"relatime", "strictatime", "sync", "async", "dirsync", "default_permissions",
	}
	// ignoredOptions are for mount(8), systemd or fstab's other readers.
	ignoredOptions = []string{
		"defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "nousers", "owner", "group",
	}
)

// parseMountOptions reads the values of -o, in their order. A sloppy one, which
// is mount(8)'s word, passes over what it does not know.
func parseMountOptions(values []string, sloppy bool) (mountOptions, error) {
	var o mountOptions
	for _, list := range values {
		for option := range strings.SplitSeq(list, ",") {
			if option == "" {
				continue
			}
			if err := o.set(option, sloppy); err != nil {
				return mountOptions{}, err
			}
		}
	}
	return o, nil
}

func (o *mountOptions) set(option string, sloppy bool) error {
	name, value, hasValue := strings.Cut(option, "=")
	switch option {
	case "ro":
		o.readOnly = true
		return nil
	case "rw":
		o.readOnly = false
		return nil
	case "allow_other":
		o.allowOther = true
		return nil
	case "shared":
		o.shared = true
		return nil
	case "open":
		o.keepOpen = true
		return nil
	case "writeback=off":
		o.noWriteback = true
		return nil
	case "noxattr":
		o.noXattr = true
		return nil
	case "strict":
		o.strict = true
		return nil
	case "acl":
		o.acl = true
		return nil
	case "latency=low":
		o.lowLatency = true
		return nil
	case "nonempty":
		o.nonEmpty = true
		return nil
	case "remount":
		o.remount = true
		return nil
	}
	switch name {
	case "keystore", "passphrase-file", "age-identity", "fingerprint", "fsname":
		if value == "" {
			return usagef("mount option %q: nothing follows %s=", option, name)
		}
		*map[string]*string{
			"keystore": &o.keystore, "passphrase-file": &o.passphrase, "age-identity": &o.ageIdentity, "fingerprint": &o.fingerprint, "fsname": &o.fsName,
		}[name] = value
		return nil
	case "idle", "kms-deadline":
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return usagef("mount option %q: want a duration such as 30s or 10m", option)
		}
		*map[string]*time.Duration{"idle": &o.idle, "kms-deadline": &o.kmsDeadline}[name] = d
		return nil
	case "key-ttl":
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return usagef("mount option %q: want a duration such as 10m or 1h, or 0 for no limit", option)
		}
		o.keyTTL = &d
		return nil
	case "user", // mount(8) says who mounted
		"user_id", "group_id", "max_read": // and repeats the kernel's words for a mount
		return nil
	}
	switch {
	case !hasValue && slices.Contains(kernelOptions, option):
		o.kernel = append(o.kernel, option)
	case !hasValue && slices.Contains(ignoredOptions, option),
		strings.HasPrefix(name, "x-"), strings.HasPrefix(name, "X-"), name == "comment":
	case !sloppy:
		return withHint(usagef("unknown mount option %q", option), "see kmsfs mount --help")
	}
	return nil
}
