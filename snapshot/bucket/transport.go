package bucket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"golang.org/x/time/rate"
)

// Limits of one attempt.
const (
	dialTimeout = 10 * time.Second
	// stallTimeout is how long a connection may move nothing.
	stallTimeout = time.Minute
	// slowAnswer is how many times longer a store may think about a request
	// without a body of ours that makes an object of many parts.
	slowAnswer = 10
	maxHeader  = 256 << 10 // bytes
	// maxIdle connections are kept to one host: parts and objects at a time.
	maxIdle = 64
	// smallestBurst is what may pass at once under a limit of bytes a second.
	smallestBurst = 16 << 10
)

var errStalled = errors.New("nothing was sent or received for too long")

// limited is the SDK's HTTP client with the limits of one attempt.
func limited() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.MaxResponseHeaderBytes = maxHeader
			t.MaxIdleConnsPerHost = maxIdle
		})
}

// transport watches the requests of an HTTP client and slows them down.
type transport struct {
	client aws.HTTPClient
	stall  time.Duration
	limit  *rate.Limiter // nil: none
}

func newTransport(client aws.HTTPClient, o Options) *transport {
	t := &transport{client: client, stall: o.stall}
	if b, ok := client.(*awshttp.BuildableClient); ok {
		t.client = b.Freeze()
	}
	if o.BytesPerSecond > 0 {
		burst := max(smallestBurst, o.BytesPerSecond/10)
		t.limit = rate.NewLimiter(rate.Limit(o.BytesPerSecond), int(burst))
	}
	return t
}

// Do sends a request. Its context ends with errStalled when nothing moves.
func (t *transport) Do(request *http.Request) (*http.Response, error) {
	patience := t.stall
	if request.Method == http.MethodPost && request.URL.Query().Has("uploadId") {
		patience *= slowAnswer
	}
	ctx, cancel := context.WithCancelCause(request.Context())
	w := &watch{ctx: ctx, patience: patience, cancel: cancel, limit: t.limit}
	w.timer = time.AfterFunc(patience, func() { cancel(errStalled) })
	request = request.WithContext(ctx)
	if request.Body != nil && request.Body != http.NoBody {
		request.Body = &watchedBody{body: request.Body, watch: w}
	}
	response, err := t.client.Do(request)
	if err != nil {
		w.end()
		return nil, w.explain(err)
	}
	w.timer.Stop() // until somebody reads
	response.Body = &watchedBody{body: response.Body, watch: w, last: true}
	return response, nil
}

// watch ends a request on which nothing moves.
type watch struct {
	ctx      context.Context
	patience time.Duration
	timer    *time.Timer
	cancel   context.CancelCauseFunc
	limit    *rate.Limiter
}

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// explain says that a request was ended by us, and not by the caller.
func (w *watch) explain(err error) error {
	if err != nil && err != io.EOF && context.Cause(w.ctx) == errStalled {
		return errStalled
	}
	return err
}

// watchedBody is the content of a request or an answer.
type watchedBody struct {
	body  io.ReadCloser
	watch *watch
	last  bool // the request ends with it
}

func (b *watchedBody) Read(p []byte) (int, error) {
	w := b.watch
	if w.limit != nil {
		p = p[:min(len(p), w.limit.Burst())]
	}
	w.timer.Reset(w.patience)
	n, err := b.body.Read(p)
	if w.limit != nil && n > 0 {
		w.timer.Stop() // we wait, not the other side
		if waited := w.limit.WaitN(w.ctx, n); waited != nil {
			return 0, waited
		}
	}
	if b.last {
		w.timer.Stop()
	} else {
		w.timer.Reset(w.patience) // until it is sent, and answered
	}
	return n, w.explain(err)
}

func (b *watchedBody) Close() error {
	err := b.body.Close()
	if b.last {
		b.watch.end()
	}
	return err
}
