package aws

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// Limits of one attempt. A connection that says nothing is given up early
// enough for another attempt within a deadline.
const (
	dialTimeout   = 5 * time.Second
	answerTimeout = 10 * time.Second // to the head of the answer
	maxHeader     = 64 << 10         // bytes
	maxAnswer     = 64 << 10         // bytes of body; the largest of ours has 14 KiB
)

// limited is the SDK's HTTP client with the limits of one attempt.
func limited() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.ResponseHeaderTimeout = answerTimeout
			t.MaxResponseHeaderBytes = maxHeader
		})
}

// freeze makes the one client of a configuration: the SDK would give each
// region connections of its own. A bundle of certificates has replaced the
// client that the configuration was loaded with.
func freeze(c aws.HTTPClient) aws.HTTPClient {
	if b, ok := c.(*awshttp.BuildableClient); ok {
		return b.Freeze()
	}
	return c
}

// transport bounds the answers of an HTTP client.
type transport struct{ client aws.HTTPClient }

// Do sends a request. The body of the answer fails past maxAnswer.
func (t transport) Do(request *http.Request) (*http.Response, error) {
	// The SDK closes the body as soon as the head of the answer is there, when
	// net/http may still look whether the body has ended. By Read it has; by the
	// WriteTo of smithy-go it has failed, and the connection is lost.
	if request.Body != nil {
		request.Body = struct{ io.ReadCloser }{request.Body}
	}
	response, err := t.client.Do(request)
	if err == nil {
		response.Body = &boundedBody{response.Body, maxAnswer}
	}
	return response, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if n > b.left {
		return 0, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	b.left -= n
	return n, err
}

// close closes idle connections.
func (t transport) close() {
	if c, ok := t.client.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
