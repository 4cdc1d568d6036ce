package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestMountinfoIsParsed(t *testing.T) {
	const text = `22 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw
120 22 0:57 / /mnt/with\040space\134 rw,relatime shared:5 master:1 - fuse.kmsfs /srv/a\011b rw,user_id=1000,group_id=0
121 22 0:58 / /no/optional rw - tmpfs  rw
nonsense
5 6 - x
`
	want := []mountEntry{
		{device: "0:20", mountpoint: "/proc", fsType: "proc", source: "proc", uid: -1},
		{device: "0:57", mountpoint: `/mnt/with space\`, fsType: "fuse.kmsfs", source: "/srv/a\tb", uid: 1000},
		{device: "0:58", mountpoint: "/no/optional", fsType: "tmpfs", source: "", uid: -1},
	}
	got, err := parseMountinfo(strings.NewReader(text))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parsed %+v, %v\nwant %+v", got, err, want)
	}
}

func TestOctalEscapesAreUndone(t *testing.T) {
	for escaped, want := range map[string]string{
		`a\040b`: "a b", `\`: `\`, `\04`: `\04`, `\999`: `\999`, `\777x`: `\777x`, `\134040`: `\040`, "": "",
	} {
		if got := unescapeOctal(escaped); got != want {
			t.Errorf("%q became %q, want %q", escaped, got, want)
		}
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add("120 22 0:57 / /mnt\\040x rw - fuse.kmsfs src rw\n")
	f.Add("1 2 3 4 5 6 - ")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := parseMountinfo(strings.NewReader(text))
		if err == nil && len(entries) > strings.Count(text, "\n")+1 {
			t.Errorf("%d entries from %q", len(entries), text)
		}
	})
}
