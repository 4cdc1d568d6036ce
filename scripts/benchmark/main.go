// Command benchmark measures file systems with the work that programs do on them. It runs every workload on every
// subject, interleaved over several rounds, so that whatever else the machine does meets all of them alike, and prints
// medians, spread and ratios. Run it with scripts/bench.
//
//	main.go      flags
//	matrix.go    the rounds: every workload on every subject
//	workload.go  what a workload is, and the list of them
//	bigfile.go   workloads on one large file
//	smallfiles.go  workloads on many small files, and on a database
//	tree.go      workloads on a tree of source files
//	growth.go    what happens with more and more files
//	growthlarge.go  a large sparse file, and many clients
//	message.go   workloads of encryption commands, and these as subjects
//	subject.go   what a subject is, and the list of them
//	peer.go      file systems of others as subjects
//	process.go   what a process that serves a mount costs
//	kmsfs.go     kmsfs as a subject: a daemon of its own, whose KMS takes a given time
//	daemon.go    that daemon, which is this program again
//	place.go     directories to work in
//	report.go    the results as a table and as JSON
//	requests.go  how many FUSE requests each operation is
//	tracer.go    counting them, by the kernel's tracepoint
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var err error
	if len(os.Args) > 1 && os.Args[1] == daemonVerb {
		err = daemon(ctx, os.Args[2:], os.Stdout)
	} else {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings are what the flags say.
type settings struct {
	rounds    int
	backing   string
	tree      string
	json      string
	delay     time.Duration
	size      int // of the file that commands work on, in MiB
	scale     float64
	loopback  string // the example of go-fuse
	gocryptfs string // a current one
	kmsfs     string // the command
	official  string // aws-encryption-cli
	requests  bool   // count requests instead
	workloads []workload
	named     bool // workloads are named, not all
	subjects  []subject
	files     []int // growth is measured with so many; nothing else is
	forget    bool  // the kernel is made to forget inodes then
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, done, err := parse(args, stdout, stderr)
	if err != nil || done {
		return err
	}
	if s.requests {
		return requestCounts(ctx, s, stdout, stderr)
	}
	var r interface {
		table(io.Writer)
		write(path string) error
	}
	if s.files != nil {
		r, err = measureGrowth(ctx, s, stderr)
	} else {
		r, err = measure(ctx, s, stderr)
	}
	if err != nil {
		return err
	}
	r.table(stdout)
	if s.json != "" {
		return r.write(s.json)
	}
	return nil
}

// parse reads the flags; done says that there is nothing to measure.
func parse(args []string, stdout, stderr io.Writer) (s settings, done bool, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&s.rounds, "rounds", 5, "rounds; each runs every workload on every subject")
	f.StringVar(&s.backing, "backing", "", "`DIR` to have backing directories in (default: tmpfs)")
	f.StringVar(&s.tree, "tree", "", "`DIR` of source files to work with (default: the src directory of Go)")
	f.StringVar(&s.json, "json", "", "write the results to `FILE`, too")
	f.DurationVar(&s.delay, "delay", 10*time.Millisecond, "what a KMS call takes on the subjects that have a slow KMS")
	f.IntVar(&s.size, "size", 256, "`MIB` of the file that commands encrypt and decrypt")
	f.Float64Var(&s.scale, "scale", 1, "how large files and how many of them there are on mounts, by `FACTOR`")
	f.StringVar(&s.loopback, "loopback", "", "go-fuse's example/loopback, as `FILE`, to measure beside kmsfs")
	f.StringVar(&s.gocryptfs, "gocryptfs", "", "a gocryptfs newer than the installed one, as `FILE`, to measure beside kmsfs")
	f.StringVar(&s.kmsfs, "kmsfs", "", "the kmsfs command, as `FILE`, to measure what it does beside mounts")
	f.StringVar(&s.official, "official", "", "aws-encryption-cli, as `FILE`, to measure beside that")
	files := f.String("files", "", "measure growth, with `COUNTS` of files such as 1000,10000,100000,1000000, and no workloads")
	f.BoolVar(&s.forget, "forget", true, "with -files: have the kernel drop inodes, all of them, to see what memory is given back")
	workloadNames := f.String("workloads", "", "`NAMES` of workloads, separated by commas (default: all)")
	subjectNames := f.String("subjects", "", "`NAMES` of subjects, separated by commas (default: all)")
	f.BoolVar(&s.requests, "requests", false, "count the FUSE requests of operations instead, or of the workloads that are named; only root can")
	list := f.Bool("list", false, "list workloads and subjects")
	if err := f.Parse(args); err != nil {
		return s, false, err
	}
	s.named = *workloadNames != ""
	if f.NArg() > 0 {
		return s, false, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if s.rounds < 1 {
		return s, false, fmt.Errorf("%d rounds, want at least 1", s.rounds)
	}
	if s.size < 1 {
		return s, false, fmt.Errorf("a file of %d MiB, want at least 1", s.size)
	}
	if s.scale <= 0 {
		return s, false, fmt.Errorf("a scale of %v, want more than 0", s.scale)
	}
	if *files != "" {
		if s.files, err = fileCounts(*files); err != nil {
			return s, false, err
		}
	}
	all := s.allSubjects()
	if *list {
		for _, w := range workloads {
			fmt.Fprintf(stdout, "workload %-16s %s\n", w.name, w.what)
		}
		for _, t := range all {
			only := ""
			if t.onRequest {
				only = ", if named"
			}
			fmt.Fprintf(stdout, "subject  %-18s %s%s\n", t.name, t.what, only)
		}
		return s, true, nil
	}
	s.workloads, err = choose("workload", workloads, *workloadNames, func(w workload) string { return w.name })
	if err == nil {
		s.subjects, err = choose("subject", all, *subjectNames, func(t subject) string { return t.name })
		if *subjectNames == "" {
			s.subjects = slices.DeleteFunc(s.subjects, func(t subject) bool { return t.onRequest })
		}
	}
	return s, false, err
}

// choose picks the named ones, in the order of the list; all if there are no names.
func choose[T any](kind string, all []T, names string, name func(T) string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	wanted := strings.Split(names, ",")
	var out []T
	for _, t := range all {
		if i := slices.Index(wanted, name(t)); i >= 0 {
			out = append(out, t)
			wanted = slices.Delete(wanted, i, i+1)
		}
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("no %s is called %q; -list shows them", kind, wanted[0])
	}
	return out, nil
}
