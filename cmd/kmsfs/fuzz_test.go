package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func FuzzParseMountOptions(f *testing.F) {
	for seed, good := range map[string]bool{
		"ro,allow_other,idle=10m,key-ttl=0,noatime,x-systemd.y": true,
		"keystore=/k,passphrase-file=/p,fsname=a=b,nofail":      true,
		"idle=-1s": false, "nonsense": false, "keystore=": false, ",,": true,
	} {
		if _, err := parseMountOptions([]string{seed}, false); (err == nil) != good {
			f.Fatalf("%q: %v", seed, err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		o, err := parseMountOptions([]string{list}, false)
		if err != nil {
			return
		}
		if o.idle < 0 || o.kmsDeadline < 0 || o.keyTTL != nil && *o.keyTTL < 0 {
			t.Fatalf("negative times from %q: %+v", list, o)
		}
		for _, k := range o.kernel { // it goes to mount(2) as it is
			if strings.ContainsAny(k, ",=\x00") {
				t.Fatalf("kernel option %q from %q", k, list)
			}
		}
		if _, err := parseMountOptions([]string{list}, true); err != nil {
			t.Fatalf("what is strict is refused when sloppy: %v", err)
		}
	})
}

// FuzzReceiveFrame is about what comes over the socket between parent and daemon.
func FuzzReceiveFrame(f *testing.F) {
	frames := func(t testing.TB, b []byte) (n int, err error) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		go func() {
			_, _ = w.Write(b)
			w.Close()
		}()
		for {
			m, payload, err := (link{r}).receive()
			if err != nil {
				return n, err
			}
			if len(payload) > len(b) {
				t.Fatalf("a payload of %d bytes from %d", len(payload), len(b))
			}
			if m == msgRequest {
				_ = json.Unmarshal(payload, new(mountRequest))
			}
			n++
		}
	}
	for seed, want := range map[string]int{
		"r\x02\x00\x00\x00{}p\x03\x00\x00\x00abc": 2,
		"o\x00\x00\x00\x00":                       1,
		"e\xff\xff\xff\xff":                       0,
		"r\x05\x00\x00\x00{}":                     0,
		"":                                        0,
	} {
		if n, err := frames(f, []byte(seed)); n != want || err == nil {
			f.Fatalf("%d frames in %q, %v", n, seed, err)
		}
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := frames(t, b)
		if 5*n > len(b) || err == nil {
			t.Fatalf("%d frames in %d bytes, %v", n, len(b), err)
		}
	})
}
