package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kmsfs/control"
)

// profileKind is a kind of profile that a mount can be asked for. What leaves the
// process is pprof's own form: functions, lines, addresses of code, and sums. No
// profile holds the contents of memory, arguments included, so none can hold a
// key; the text form of goroutines (debug=2) would, and cannot be asked for.
type profileKind struct {
	name string
	// make takes d where the profile tells of a while and not of the moment.
	make func(ctx context.Context, w io.Writer, d time.Duration) error
}

// profileKinds are all there are.
var profileKinds = []profileKind{
	{"cpu", func(ctx context.Context, w io.Writer, d time.Duration) error {
		if err := pprof.StartCPUProfile(w); err != nil {
			return err
		}
		pause(ctx, d)
		pprof.StopCPUProfile()
		return nil
	}},
	{"heap", func(_ context.Context, w io.Writer, _ time.Duration) error {
		runtime.GC() // what is in use is up to date as of the last collection
		return pprof.Lookup("heap").WriteTo(w, 0)
	}},
	{"allocs", nowOf("allocs")},
	{"goroutine", nowOf("goroutine")},
	{"mutex", func(ctx context.Context, w io.Writer, d time.Duration) error {
		defer runtime.SetMutexProfileFraction(runtime.SetMutexProfileFraction(mutexFraction))
		pause(ctx, d)
		return pprof.Lookup("mutex").WriteTo(w, 0)
	}},
	{"block", func(ctx context.Context, w io.Writer, d time.Duration) error {
		runtime.SetBlockProfileRate(blockRate)
		defer runtime.SetBlockProfileRate(0)
		pause(ctx, d)
		return pprof.Lookup("block").WriteTo(w, 0)
	}},
}

const (
	mutexFraction = 10     // one of so many waits for a lock is looked at
	blockRate     = 10_000 // of waits of so many nanoseconds one is; of longer ones all

	defaultProfileTime = 10 * time.Second
	maxProfileTime     = 5 * time.Minute
	profilePatience    = 2 * time.Second // with another profile that is being made
	profileChunk       = 256 << 10       // bytes in a message
)

func nowOf(name string) func(context.Context, io.Writer, time.Duration) error {
	return func(_ context.Context, w io.Writer, _ time.Duration) error { return pprof.Lookup(name).WriteTo(w, 0) }
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func profileNames() (names []string) {
	for _, k := range profileKinds {
		names = append(names, k.name)
	}
	return names
}

func findProfileKind(name string) (profileKind, error) {
	for _, k := range profileKinds {
		if k.name == name {
			return k, nil
		}
	}
	return profileKind{}, usagef("no profile is called %q: there are %s", name, strings.Join(profileNames(), ", "))
}

// profileWish is which profile is wanted of a mount.
type profileWish struct {
	kind string
	time time.Duration
	out  string // file
}

func addProfileFlags(c *cobra.Command, wish *profileWish) {
	c.Flags().StringVar(&wish.kind, "profile", "", "write a profile of this `KIND`: "+strings.Join(profileNames(), ", "))
	c.Flags().Float64("seconds", defaultProfileTime.Seconds(), "how long a profile of cpu, mutex or block takes, as `N` seconds")
	c.Flags().StringVarP(&wish.out, "output", "o", standardStream, "write the profile to `FILE`")
}

// profileFlags completes a wish by what the flags say.
func profileFlags(c *cobra.Command, wish *profileWish) error {
	seconds, err := c.Flags().GetFloat64("seconds")
	if err != nil {
		return err
	}
	wish.time = time.Duration(seconds * float64(time.Second))
	if c.Flags().Changed("profile") {
		if c.Flags().Changed("json") {
			return usagef("--json and --profile exclude each other")
		}
		return wish.check()
	}
	for _, name := range []string{"seconds", "output"} {
		if c.Flags().Changed(name) {
			return usagef("--%s is for --profile", name)
		}
	}
	return nil
}

func (w profileWish) check() error {
	if _, err := findProfileKind(w.kind); err != nil {
		return err
	}
	if w.time <= 0 || w.time > maxProfileTime {
		return usagef("a profile of %v: want more than nothing, and at most %v", w.time, maxProfileTime)
	}
	return nil
}

// profileOf writes a profile of the mount at path to where it is wanted.
func (a *app) profileOf(ctx context.Context, path string, wish profileWish) error {
	if f, ok := a.stdout.(*os.File); ok && wish.out == standardStream && term.IsTerminal(int(f.Fd())) {
		return withHint(usagef("a profile is no text: it is not written to a terminal"), "name a file with -o, for go tool pprof")
	}
	socket, s, err := a.findControl(ctx, path)
	if err != nil {
		return err
	}
	profile, err := askProfile(ctx, socket, s.UID, wish)
	if err != nil {
		return err
	}
	if wish.out == standardStream {
		_, err = a.stdout.Write(profile)
	} else {
		err = os.WriteFile(wish.out, profile, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	return nil
}

// askProfile asks at the socket of a user's mount.
func askProfile(ctx context.Context, socket string, uid int, wish profileWish) ([]byte, error) {
	c, err := control.Dial(ctx, socket, uid)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(wish.time + askTimeout))
	reply, err := converseOver(c, controlRequest{Verb: "profile", Profile: wish.kind, Seconds: wish.time.Seconds()})
	var profile []byte
	for err == nil && len(reply.Profile) > 0 {
		profile = append(profile, reply.Profile...)
		reply = new(controlReply)
		err = c.Receive(reply)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil && len(profile) == 0 {
		err = errors.New("ask the mount: it sends no profile; it may be of an older kmsfs")
	}
	return profile, err
}

// profileFor is the mount's side: it makes a profile for who is connected, and
// leaves off where that one leaves. An empty reply, which is the caller's to
// send, ends what it sends.
func (t *attendant) profileFor(ctx context.Context, c *control.Conn, r controlRequest) error {
	wish := profileWish{kind: r.Profile, time: time.Duration(r.Seconds * float64(time.Second))}
	if err := wish.check(); err != nil {
		return err
	}
	kind, err := findProfileKind(wish.kind)
	if err != nil {
		return err
	}
	select {
	case t.profiling <- struct{}{}:
	case <-time.After(profilePatience):
		return errors.New("another profile is being made")
	}
	defer func() { <-t.profiling }()
	ctx, stop := whileConnected(ctx, c)
	var profile bytes.Buffer
	err = kind.make(ctx, &profile, wish.time)
	stop()
	if err != nil {
		return fmt.Errorf("make profile: %w", err)
	}
	c.SetDeadline(time.Now().Add(askTimeout))
	for profile.Len() > 0 {
		if err := c.Send(controlReply{Profile: profile.Next(profileChunk)}); err != nil {
			return err
		}
	}
	return nil
}

// whileConnected is a context that ends when the peer, who has nothing more to
// say, closes its end. The connection is read until stop returns.
func whileConnected(ctx context.Context, c *control.Conn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	c.SetDeadline(time.Time{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		var nothing struct{}
		_ = c.Receive(&nothing)
	}()
	return ctx, func() {
		c.SetDeadline(time.Now())
		<-ended
	}
}
