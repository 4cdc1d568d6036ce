package volume

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// checkStores looks at what is in .kmsfs and used by nothing in the tree, after
// all of that was looked at.
func (c *fsck) checkStores(ctx context.Context) error {
	ids, links := make(map[crypto.ID]bool), make(map[string]bool)
	known, err := c.vol.lostUses(ids, links)
	if err != nil {
		return err
	}
	why := ""
	switch {
	case c.blind:
		why = "something in the volume could not be looked at, and may use it"
	case c.doubtful:
		why = "it may be that of a file whose record is damaged, and with it perhaps its ID"
	case !known:
		why = "something in lost+found may use it"
	}
	for id := range c.files {
		ids[id] = true
	}
	for link := range c.links {
		links[link] = true
	}
	if c.options.Repair {
		// What was moved before must not come back without its key.
		if err := c.vol.syncAll(); err != nil {
			return err
		}
	}
	for _, id := range c.sidecars {
		if ids[id] {
			continue
		}
		f := c.findMeta(FindingOrphan, sidecarPath(id), "no file has the key in it")
		its := why
		if its == "" && c.options.Repair {
			its = c.tooYoung(id)
		}
		c.discard(f, its, func() error { return c.vol.sidecars.remove(id) })
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := c.checkLinks(links, why); err != nil {
		return err
	}
	if err := c.checkShelves(); err != nil {
		return err
	}
	return c.checkMeta()
}

// tooYoung says why a sidecar is kept that came here of late. What a sync tool sets
// is mtime; ctime tells when it did.
func (c *fsck) tooYoung(id crypto.ID) string {
	dir, err := c.vol.sidecars.shelf(id, false)
	var st unix.Statx_t
	if err == nil {
		err = c.vol.backing.Statx(dir, id.String(), &st)
	}
	switch {
	case err != nil:
		return fmt.Sprintf("it cannot be told since when it is here: %v", err)
	case time.Since(time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec))) < c.options.Grace:
		return fmt.Sprintf("it came here less than %v ago: its file may still be on its way, if this is a copy in the making", c.options.Grace)
	}
	return ""
}

// discard removes what nobody uses, unless there is a reason not to.
func (c *fsck) discard(f *Finding, why string, remove func() error) {
	f.Harmless = true
	switch {
	case why != "":
		f.left("%s", why)
	case c.options.Repair:
		f.mended(remove(), "removed")
	}
}

// checkLinks looks for symlink targets that no symlink leads to.
func (c *fsck) checkLinks(used map[string]bool, why string) error {
	v := c.vol
	if v.links < 0 {
		return nil
	}
	entries, err := v.listBacking(v.links)
	if err != nil {
		return fmt.Errorf("list %s/links: %w", metaDir, err)
	}
	for _, e := range entries {
		if used[e.name] {
			continue
		}
		at := metaDir + "/links/" + e.name
		if _, err := crypto.ParseID(e.name); err != nil {
			c.foreign(v.links, e.name, at)
			continue
		}
		f := c.findMeta(FindingLeftover, at, "no symbolic link leads to this target")
		c.discard(f, why, func() error { return v.backing.Unlinkat(v.links, e.name, 0) })
	}
	return nil
}

// foreign notes something in .kmsfs that kmsfs did not write, and sets it aside.
func (c *fsck) foreign(dirfd int, name, at string) {
	f := c.findMeta(FindingForeign, at, "nothing that kmsfs writes there")
	f.Harmless = true
	if c.options.Repair {
		where, err := c.vol.setAside(dirfd, name, at)
		f.mended(err, "it is set aside in %s", where)
	}
}

// checkShelves looks for what is no sidecar where they are.
func (c *fsck) checkShelves() error {
	v := c.vol
	shelves, err := v.listBacking(v.sidecars.dir)
	if err != nil {
		return fmt.Errorf("list sidecars: %w", err)
	}
	for _, s := range shelves {
		at := metaDir + "/keys/" + s.name
		first, err := hex.DecodeString(s.name)
		if err != nil || len(first) != 1 || hex.EncodeToString(first) != s.name {
			c.foreign(v.sidecars.dir, s.name, at)
			continue
		}
		dir, err := v.sidecars.shelf(crypto.ID{first[0]}, false)
		if isNoDirectory(err) {
			c.foreign(v.sidecars.dir, s.name, at)
			continue
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", at, err)
		}
		entries, err := v.listBacking(dir)
		if err != nil {
			return fmt.Errorf("list %s: %w", at, err)
		}
		for _, e := range entries {
			id, err := crypto.ParseID(strings.TrimSuffix(e.name, tmpSuffix))
			switch {
			case err != nil || id[0] != first[0]:
				c.foreign(dir, e.name, at+"/"+e.name)
			case strings.HasSuffix(e.name, tmpSuffix):
				f := c.findMeta(FindingLeftover, at+"/"+e.name, "what an interrupted rewrap was writing")
				c.discard(f, "", func() error { return v.backing.Unlinkat(dir, e.name, 0) })
			}
		}
	}
	return nil
}

// checkMeta looks for what does not belong into .kmsfs itself.
func (c *fsck) checkMeta() error {
	v := c.vol
	entries, err := v.listBacking(v.meta)
	if err != nil {
		return fmt.Errorf("list %s: %w", metaDir, err)
	}
	for _, e := range entries {
		switch e.name {
		case configName, configBackup, "keys", "links":
		case lostFoundDir:
			if e.kind != unix.S_IFDIR && e.kind != 0 {
				c.foreign(v.meta, e.name, metaDir+"/"+e.name)
			}
		case "redo", sessionsDir:
			if err := c.checkSessions(e.name); err != nil {
				return err
			}
		case configName + tmpSuffix, configBackup + tmpSuffix:
			f := c.findMeta(FindingLeftover, metaDir+"/"+e.name, "what was being written when something was interrupted")
			c.discard(f, "", func() error { return v.backing.Unlinkat(v.meta, e.name, 0) })
		default:
			if !isReserve(e) {
				c.foreign(v.meta, e.name, metaDir+"/"+e.name)
			}
		}
	}
	return nil
}

// checkSessions looks for what no mount has made in .kmsfs/sessions or redo.
func (c *fsck) checkSessions(sub string) error {
	v, at := c.vol, metaDir+"/"+sub
	dir, err := v.backing.Openat(v.meta, sub, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", at, err)
	}
	defer v.backing.Close(dir)
	entries, err := v.listBacking(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", at, err)
	}
	for _, e := range entries {
		if !isOfSession(e) {
			c.foreign(dir, e.name, at+"/"+e.name)
		}
	}
	return nil
}

// checkConfigBackup looks at the previous version of volume.json, which a repair
// would need.
func (c *fsck) checkConfigBackup() {
	v := c.vol
	old, err := readConfigNamed(v.backing, v.meta, configBackup)
	switch {
	case errors.Is(err, ErrNotVolume):
		return // it was never changed
	case err == nil && old.ID != v.id:
		err = errors.New("it belongs to another volume")
	case err == nil && old.Generation > v.conf().Generation:
		err = fmt.Errorf("it is of generation %d, and %s of %d", old.Generation, configName, v.conf().Generation)
	case err == nil:
		err = old.authenticate(v.vk)
	}
	if err == nil {
		return
	}
	if isStoreError(err) {
		c.findMeta(FindingUnreadable, metaDir+"/"+configBackup, "%v", err).left("left as it is")
		return
	}
	f := c.findMeta(FindingConfigBackup, metaDir+"/"+configBackup, "%v", err)
	if !c.options.Repair {
		return
	}
	where, err := v.setAside(v.meta, configBackup, metaDir+"/"+configBackup)
	if err == nil {
		err = replaceConfig(v.backing, v.meta, configBackup, v.conf().bytes())
	}
	f.mended(err, "it is what %s is now; the damaged one is set aside in %s", configName, where)
}
