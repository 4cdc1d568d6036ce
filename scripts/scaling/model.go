package main

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// fleet is a volume of so many files.
type fleet struct {
	files       float64
	bytes       float64 // of each
	directories float64
}

// fleets are the two of docs/SCALING.md.
var fleets = []fleet{
	{files: 1e6, bytes: 100e3, directories: 5e4},
	{files: 1e9, bytes: 100e3, directories: 5e7},
}

// row is a line of a table: what, and the value for each fleet.
type row struct {
	what  string
	value func(f fleet) string
}

func tables(w io.Writer, r rates) {
	table(w, "One volume", []row{
		{"to create all, 4 KiB each", func(f fleet) string { return took(f.files / r.Create) }},
		{"fsck, 4 KiB each", func(f fleet) string { return took(f.files / r.Fsck) }},
		{"… memory", func(f fleet) string { return memory(f.files * r.FsckBytes) }},
		{"sidecars in each of 256 directories", func(f fleet) string { return count(f.files / 256) }},
	})
	table(w, "KMS, key mode `file`", []row{
		{"to create all: calls", func(f fleet) string { return count(f.files) }},
		{"… cost", func(f fleet) string { return dollars(f.files / 10_000 * kmsPer10k) }},
		{"… time that a quota of 10,000 a second allows", func(f fleet) string { return took(f.files / kmsQuota) }},
		{"… of 100,000 a second", func(f fleet) string { return took(f.files / kmsQuotaTop) }},
		{"to read all, cold: cost", func(f fleet) string { return dollars(f.files / 10_000 * kmsPer10k) }},
		{"to rewrap all: calls", func(f fleet) string { return count(f.files * r.RewrapCalls) }},
		{"… cost", func(f fleet) string { return dollars(f.files * r.RewrapCalls / 10_000 * kmsPer10k) }},
		{"… time that a quota of 10,000 a second allows", func(f fleet) string { return took(f.files * r.RewrapCalls / kmsQuota) }},
		{"… time of this machine with a KMS that takes 10 ms", func(f fleet) string {
			return took(f.files * max(1/r.Rewrap, r.RewrapCalls*kmsLatency/r.RewrapMost))
		}},
		{"… memory", func(f fleet) string { return memory(f.files * r.RewrapBytes) }},
	})
	table(w, "S3, any tool", []row{
		{"objects: files, sidecars, directories", func(f fleet) string { return count(objects(f)) }},
		{"GB stored", func(f fleet) string { return count(stored(f) / 1e9) }},
		{"… cost a month", func(f fleet) string { return dollars(stored(f) / 1e9 * storePerGB) }},
		{"first copy: cost of requests", func(f fleet) string { return dollars(objects(f) / 1000 * putPer1k) }},
		{"… time, 32 at a time, 30 ms each", func(f fleet) string { return took(objects(f) / onTheWay(r, 32)) }},
		{"… time at 1 Gbit/s for the bytes", func(f fleet) string { return took(stored(f) / 125e6) }},
		{"a copy when nothing changed: LIST requests", func(f fleet) string { return count(objects(f) / listed) }},
		{"… cost", func(f fleet) string { return dollars(objects(f) / listed / 1000 * putPer1k) }},
		{"… time for the lists, one after another", func(f fleet) string { return took(objects(f) / listed * (s3Latency + listed/r.List)) }},
		{"all of it back: cost of requests", func(f fleet) string { return dollars(objects(f) / 1000 * getPer1k) }},
	})
	table(w, "Push, from what it is made of", []row{
		{"to look at the header of every file", func(f fleet) string { return took(f.files / r.Scan) }},
		{"first push: cost of requests, one object for each file", func(f fleet) string { return dollars(f.files / 1000 * putPer1k) }},
		{"… time, 32 at a time, 30 ms each", func(f fleet) string { return took(f.files / onTheWay(r, 32)) }},
		{"… time that the client takes on this machine", func(f fleet) string { return took(f.files / r.Put) }},
		{"1 in 1,000 changed: cost of requests", func(f fleet) string { return dollars(f.files / 1000 / 1000 * putPer1k) }},
		{"… time for the objects", func(f fleet) string { return took(f.files / 1000 / onTheWay(r, 32)) }},
	})
	said(w, r)
}

// said is what was measured.
func said(w io.Writer, r rates) {
	fmt.Fprint(w, "| rate | measured |\n|---|---|\n")
	for _, line := range []struct {
		what string
		rate float64
		unit string
	}{
		{"files of 4 KiB created and written, without FUSE", r.Create, "a second"},
		{"headers of data files read", r.Scan, "a second"},
		{"files of 4 KiB checked by fsck", r.Fsck, "a second"},
		{"… memory for each file", r.FsckBytes, "bytes"},
		{"sidecars rewrapped", r.Rewrap, "a second"},
		{"… memory for each", r.RewrapBytes, "bytes"},
		{"objects of 4 KiB put, 32 at a time", r.Put, "a second"},
		{"keys listed", r.List, "a second"},
		{"a large object put", r.PutMB, "MB a second"},
		{"a large object read, 8 ranges at a time", r.GetMB, "MB a second"},
	} {
		fmt.Fprintf(w, "| %s | %s %s |\n", line.what, count(line.rate), line.unit)
	}
	fmt.Fprintf(w, "| calls to the KMS for each sidecar rewrapped | %.1f, %.0f under way |\n\n", r.RewrapCalls, r.RewrapMost)
}

// objects is what a copy of the backing directory has.
func objects(f fleet) float64 { return 2*f.files + f.directories }

// stored is the bytes of a copy: blocks are 40 bytes longer than their 4 KiB.
func stored(f fleet) float64 {
	const header, sidecar, record = 144, 276, 112
	return f.files*(f.bytes*(4136.0/4096)+header+sidecar) + f.directories*record
}

// onTheWay is how many small objects a second so many at a time make.
func onTheWay(r rates, jobs float64) float64 { return min(jobs/s3Latency, r.Put, s3PutQuota) }

func table(w io.Writer, title string, rows []row) {
	fmt.Fprintf(w, "| %s |", title)
	for _, f := range fleets {
		fmt.Fprintf(w, " %s files |", count(f.files))
	}
	fmt.Fprint(w, "\n|---|")
	for range fleets {
		fmt.Fprint(w, "---|")
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		fmt.Fprintf(w, "| %s |", r.what)
		for _, f := range fleets {
			fmt.Fprintf(w, " %s |", r.value(f))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// count is a number of two digits, with commas.
func count(n float64) string {
	if n < 1 {
		return strconv.FormatFloat(n, 'g', 2, 64)
	}
	digits := strconv.FormatFloat(n, 'f', 0, 64)
	out := ""
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			out += ","
		}
		if i >= 3 {
			d = '0'
		}
		out += string(d)
	}
	return out
}

func dollars(n float64) string {
	if n < 10 {
		return fmt.Sprintf("$%.2f", n)
	}
	return "$" + count(n)
}

func memory(bytes float64) string {
	if bytes < 1e9 {
		return count(bytes/1e6) + " MB"
	}
	return count(bytes/1e9) + " GB"
}

// took is a time in the unit that one would say.
func took(seconds float64) string {
	d := time.Duration(min(seconds, 9e9) * float64(time.Second))
	switch {
	case seconds < 100:
		return fmt.Sprintf("%.1f s", seconds)
	case d < 100*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 72*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
