package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// results are what was measured.
type results struct {
	Machine machine  `json:"machine"`
	Rounds  int      `json:"rounds"`
	Delay   string   `json:"kms_delay"`
	Tree    treeSize `json:"tree"`
	Size    int64    `json:"file_bytes"` // of the file that commands work on
	Results []result `json:"results"`
}

// machine is where it was measured.
type machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	MemoryMiB  uint64 `json:"memory_mib"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Backing    string `json:"backing"` // kind of its file system
}

// result is one workload on one subject.
type result struct {
	Workload string `json:"workload"`
	Subject  string `json:"subject"`
	command  bool
	Seconds  []float64 `json:"seconds"` // of each round
	Usage    []usage   `json:"usage"`
	Median   float64   `json:"median_seconds"`
	Min      float64   `json:"min_seconds"`
	Max      float64   `json:"max_seconds"`
	Against  string    `json:"against,omitempty"` // what it is compared with
	Ratio    float64   `json:"ratio,omitempty"`   // median over the median of that
	Rate     float64   `json:"mb_per_second,omitempty"`
}

func newResults(s settings, in input, backing string) *results {
	r := &results{Machine: thisMachine(backing), Rounds: s.rounds, Delay: s.delay.String(), Tree: in.tree, Size: in.size}
	for _, w := range s.workloads {
		able := s.able(w)
		for _, t := range able {
			against := t.against
			if against == "" && t.name != able[0].name {
				against = able[0].name
			}
			r.Results = append(r.Results, result{Workload: w.name, Subject: t.name, Against: against, command: w.kind == commands})
		}
	}
	return r
}

func (r *results) find(workload, subject string) *result {
	for i := range r.Results {
		if t := &r.Results[i]; t.Workload == workload && t.Subject == subject {
			return t
		}
	}
	return nil
}

func (r *results) add(workload, subject string, seconds float64, u usage) {
	t := r.find(workload, subject)
	t.Seconds = append(t.Seconds, seconds)
	t.Usage = append(t.Usage, u)
}

// finish computes what follows from the rounds.
func (r *results) finish() {
	for i := range r.Results {
		t := &r.Results[i]
		t.Median, t.Min, t.Max = median(t.Seconds), slices.Min(t.Seconds), slices.Max(t.Seconds)
		if t.command {
			t.Rate = float64(r.Size) / 1e6 / t.Median
		}
	}
	for i := range r.Results {
		t := &r.Results[i]
		if other := r.find(t.Workload, t.Against); other != nil {
			t.Ratio = t.Median / other.Median
		} else {
			t.Against = ""
		}
	}
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// table prints the results for people.
func (r *results) table(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d processors, %d MiB, Linux %s, %s; backing on %s\n",
		m.Processor, m.Processors, m.MemoryMiB, m.Kernel, m.Go, m.Backing)
	fmt.Fprintf(w, "%d files in %d directories, %.1f MB; a file of %d MiB; %d rounds; slow KMS: %s a call\n\n",
		r.Tree.Files, r.Tree.Dirs, float64(r.Tree.Bytes)/1e6, r.Size>>20, r.Rounds, r.Delay)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "workload\tsubject\tmedian\tmin–max\tratio\tagainst\trate\tCPU\tmemory\twaited\tKMS calls\tat once")
	for _, x := range r.Results {
		ratio := "–"
		if x.Against != "" {
			ratio = fmt.Sprintf("%.2f", x.Ratio)
		}
		rate := "–"
		if x.command {
			rate = fmt.Sprintf("%.0f MB/s", x.Rate)
		}
		last := x.Usage[len(x.Usage)-1]
		fmt.Fprintf(t, "%s\t%s\t%.2f s\t%.2f–%.2f\t%s\t%s\t%s\t%.1f s\t%d MiB\t%.2f s\t%s\t%d\n",
			x.Workload, x.Subject, x.Median, x.Min, x.Max, ratio, x.Against, rate, last.CPU, last.Peak>>10, last.Waited, calls(last.Calls), last.Concurrent)
	}
	t.Flush()
}

func calls(c map[string]int) string {
	var out []string
	for _, op := range slices.Sorted(maps.Keys(c)) {
		out = append(out, fmt.Sprintf("%s %d", op, c[op]))
	}
	return strings.Join(out, ", ")
}

func (r *results) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func thisMachine(backing string) machine {
	m := machine{Processors: runtime.NumCPU(), Go: runtime.Version(), Processor: processor()}
	m.Backing, _ = fileSystem(backing)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) == nil {
		m.MemoryMiB = i.Totalram * uint64(i.Unit) >> 20
	}
	return m
}

// processor is the model's name.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if key, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
