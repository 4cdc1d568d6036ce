package main

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestMountOptionsAreRead(t *testing.T) {
	for _, tc := range []struct {
		values []string
		want   mountOptions
	}{
		{nil, mountOptions{}},
		{[]string{""}, mountOptions{}},
		{[]string{",,"}, mountOptions{}},
		{[]string{"ro"}, mountOptions{readOnly: true}},
		{[]string{"ro,rw"}, mountOptions{}},
		{[]string{"rw", "ro"}, mountOptions{readOnly: true}},
		{[]string{"allow_other,open", "writeback=off,nonempty"}, mountOptions{allowOther: true, keepOpen: true, noWriteback: true, nonEmpty: true}},
		{[]string{"strict"}, mountOptions{strict: true}},
		{[]string{"latency=low"}, mountOptions{lowLatency: true}},
		{[]string{"nosuid,suid,noatime"}, mountOptions{kernel: []string{"nosuid", "suid", "noatime"}}},
		{[]string{"keystore=/a=b,passphrase-file=/p"}, mountOptions{keystore: "/a=b", passphrase: "/p"}},
		{[]string{"fsname=data,fingerprint=ab"}, mountOptions{fsName: "data", fingerprint: "ab"}},
		{[]string{"defaults,nofail,_netdev,user,user=joe,users,auto,noauto,x-systemd.automount,x-gvfs-name=a,X-mount.mkdir,comment=x"}, mountOptions{}},
	} {
		got, err := parseMountOptions(tc.values, false)
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("-o %q: %+v, %v, want %+v", tc.values, got, err, tc.want)
		}
	}
}

func TestUnknownMountOptionsAreNamed(t *testing.T) {
	for _, option := range []string{"bogus", "Ro", "ro=1", "writeback=on", "writeback", "nosuid=1", "defaults=1", "uid=5", "strict=1", "latency", "latency=high", "=x", " ro"} {
		_, err := parseMountOptions([]string{"ro," + option}, false)
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), `"`+option+`"`) {
			t.Errorf("-o %q: %v", option, err)
		}
		if _, err := parseMountOptions([]string{option}, true); err != nil {
			t.Errorf("-s -o %q: %v", option, err)
		}
	}
}

func TestMountOptionsWithoutTheirValueAreRefused(t *testing.T) {
	for _, option := range []string{"keystore", "keystore=", "passphrase-file=", "fingerprint=", "fsname"} {
		if _, err := parseMountOptions([]string{option}, true); !errors.Is(err, errUsage) {
			t.Errorf("-o %q: %v", option, err)
		}
	}
}
