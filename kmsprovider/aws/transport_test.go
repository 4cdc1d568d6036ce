package aws

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// last keeps the request that it was given.
type last struct{ request *http.Request }

func (l *last) Do(request *http.Request) (*http.Response, error) {
	l.request = request
	return &http.Response{Body: http.NoBody}, nil
}

func TestABodyThatTheSDKClosedHasEnded(t *testing.T) {
	r, err := smithyhttp.NewStackRequest().(*smithyhttp.Request).SetStream(bytes.NewReader([]byte("a request")))
	if err != nil {
		t.Fatal(err)
	}
	request := r.Build(t.Context())
	var l last
	if _, err := (transport{&l}).Do(request); err != nil {
		t.Fatal(err)
	}
	request.Body.Close()
	// As net/http looks for what is there past Content-Length.
	if n, err := io.Copy(io.Discard, l.request.Body); n != 0 || err != nil {
		t.Errorf("read after the end: %d bytes, %v", n, err)
	}
}
