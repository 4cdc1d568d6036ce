// Command testsum turns the output of `go test -json`, on its standard input, into what a person wants to read: a line
// for each package, the output of the tests that failed, the reasons of those that were skipped, and counts.
//
// A test with subtests counts as its subtests; a fuzz test counts as one, however many seeds it has. A package that does
// not build, or whose process dies, counts as one failed test.
//
// The line of totals, `N passed, N failed, N skipped`, goes to the file named by -total, or to the end of the output. The
// exit code is 1 if anything failed or nothing ran.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	totalFile := flag.String("total", "", "`file` for the line of totals")
	flag.Parse()
	ok, err := run(os.Stdin, os.Stdout, *totalFile)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run tells whether all is well with the tests.
func run(in io.Reader, out io.Writer, totalFile string) (ok bool, err error) {
	s := newSummary(out)
	r := bufio.NewReaderSize(in, 1<<16)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			s.line(line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, fmt.Errorf("read test events: %w", err)
		}
	}
	total := s.finish()
	line := fmt.Sprintf("%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	if totalFile == "" {
		_, err = io.WriteString(out, line)
	} else {
		err = os.WriteFile(totalFile, []byte(line), 0o644)
	}
	if err != nil {
		return false, fmt.Errorf("write totals: %w", err)
	}
	return total.failed == 0 && total.passed > 0, nil
}
