package aws_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"kmsfs/integration/faultproxy"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/aws"
)

// watchdog fails a test whose call does not end; the call's own time is shorter.
func watchdog(t *testing.T, call func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the call has not ended after a minute")
		return nil
	}
}

// decrypt makes a call that ends before the watchdog does.
func decrypt(t *testing.T, ctx context.Context, p *aws.Provider) error {
	t.Helper()
	return watchdog(t, func() error { _, err := p.Decrypt(ctx, keyARN, []byte("wrapped"), nil); return err })
}

func TestWhatMayPassIsTriedAgainUntilItHasPassed(t *testing.T) {
	p, proxy := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{})
	for name, fault := range map[string]faultproxy.Fault{
		"throttled": faultproxy.Throttled, "internal": faultproxy.Internal, "bad gateway": faultproxy.BadGateway,
		"dependency": {Status: 503, Code: "DependencyTimeoutException"}, "unavailable": {Status: 500, Code: "KeyUnavailableException"},
	} {
		fault.Times = 3 // as often as the SDK would ask by itself
		proxy.Set(fault)
		if err := decrypt(t, t.Context(), p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := proxy.Counts()["Decrypt"]; n != 4 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
}

func TestAConnectionThatIsRefusedIsTriedAgain(t *testing.T) {
	p, proxy := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{})
	proxy.Refuse()
	// The first attempt is refused; whenever it opens, one that follows succeeds.
	back := time.AfterFunc(200*time.Millisecond, proxy.Accept)
	defer back.Stop()
	if err := decrypt(t, t.Context(), p); err != nil {
		t.Error(err)
	}
}

func TestTheUsersNumberOfAttemptsHolds(t *testing.T) {
	p, proxy := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{})
	t.Setenv("AWS_MAX_ATTEMPTS", "2")
	proxy.Set(faultproxy.Internal)
	wantOnly(t, "two attempts", decrypt(t, t.Context(), p), kmsprovider.ErrUnavailable)
	if n := proxy.Counts()["Decrypt"]; n != 2 {
		t.Errorf("asked %d times", n)
	}
}

func TestACallEndsInTimeAndSaysWhatHeldItUp(t *testing.T) {
	var group sync.WaitGroup
	defer group.Wait()
	for name, c := range map[string]struct {
		fault  faultproxy.Fault
		refuse bool
		want   error
		says   string
	}{
		"hanging":   {fault: faultproxy.Hanging, want: kmsprovider.ErrUnavailable, says: "no answer"},
		"slow":      {fault: faultproxy.Fault{Delay: time.Hour}, want: kmsprovider.ErrUnavailable, says: "no answer"},
		"throttled": {fault: faultproxy.Throttled, want: kmsprovider.ErrThrottled, says: "ThrottlingException"},
		"429":       {fault: faultproxy.TooMany, want: kmsprovider.ErrThrottled},
		"internal":  {fault: faultproxy.Internal, want: kmsprovider.ErrUnavailable, says: "KMSInternalException"},
		"refusing":  {refuse: true, want: kmsprovider.ErrUnavailable, says: "connection refused"},
	} {
		// Time enough for a KMS that answers, on a busy machine too.
		p, proxy := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{Timeout: 5 * time.Second})
		try := func() error {
			_, err := p.Decrypt(t.Context(), keyARN, []byte("wrapped"), nil)
			return err
		}
		if err := try(); err != nil { // which reads the environment, before the next one's proxy is in it
			t.Fatal(err)
		}
		proxy.Set(c.fault)
		if c.refuse {
			proxy.Refuse()
		}
		group.Go(func() {
			err := try()
			wantOnly(t, name, err, c.want)
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
			proxy.Set(faultproxy.None)
			proxy.Accept()
			if err := try(); err != nil {
				t.Errorf("%s: not healed: %v", name, err)
			}
		})
	}
}

func TestTheCallersOwnEndIsNoFaultOfTheKMS(t *testing.T) {
	p, proxy := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{})
	proxy.Set(faultproxy.Hanging)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	err := decrypt(t, ctx, p)
	wantOnly(t, "cancelled", err, nil)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := decrypt(t, ctx, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestAnAnswerThatIsCutIsNone(t *testing.T) {
	p, proxy := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{Timeout: 5 * time.Second})
	proxy.Set(faultproxy.CutInBodies)
	wantOnly(t, "cut", decrypt(t, t.Context(), p), kmsprovider.ErrUnavailable)
	proxy.Counts()
	proxy.Set(faultproxy.Fault{Cut: true, Times: 1})
	if err := decrypt(t, t.Context(), p); err != nil || proxy.Counts()["Decrypt"] != 2 {
		t.Errorf("cut once: %v", err)
	}
}
