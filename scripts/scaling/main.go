package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

func main() {
	bench := flag.Bool("bench", false, "read the rates from the output of this package's benchmarks on stdin")
	flag.Parse()
	r := measured
	if *bench {
		r = readRates(os.Stdin)
		fmt.Printf("%+v\n\n", r)
	}
	tables(os.Stdout, r)
}

// readRates finds the metrics that the benchmarks report: a number and a name.
func readRates(in io.Reader) (r rates) {
	at := map[string]*float64{
		"creates/s": &r.Create, "headers/s": &r.Scan, "fsck-files/s": &r.Fsck, "rewraps/s": &r.Rewrap, "calls/rewrap": &r.RewrapCalls,
		"calls-at-once": &r.RewrapMost, "puts/s": &r.Put, "put-MB/s": &r.PutMB, "get-MB/s": &r.GetMB, "keys/s": &r.List,
		"fsck-bytes/file": &r.FsckBytes, "rewrap-bytes/file": &r.RewrapBytes,
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		for i := 1; i < len(fields); i++ {
			if rate := at[fields[i]]; rate != nil {
				*rate, _ = strconv.ParseFloat(fields[i-1], 64)
			}
		}
	}
	return r
}
