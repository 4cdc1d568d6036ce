package faultproxy

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"time"
)

// Fault is what happens to requests. The zero value passes them on.
type Fault struct {
	// Only limits it to operations, as AWS names them; empty is all.
	Only []string
	// Times is how many requests it happens to, before all is well again; 0 is all.
	Times int
	Delay time.Duration // before anything else
	Hang  bool          // nothing is ever answered
	Cut   bool          // the answer ends in the middle of its body
	// Status and Code, where there is a Status, are answered in the place of the server.
	Status int
	Code   string // of AWS; empty: a body that is none of the protocol
}

// Faults with names.
var (
	None        = Fault{}
	Throttled   = Fault{Status: http.StatusBadRequest, Code: "ThrottlingException"}
	TooMany     = Fault{Status: http.StatusTooManyRequests}
	Internal    = Fault{Status: http.StatusInternalServerError, Code: "KMSInternalException"}
	BadGateway  = Fault{Status: http.StatusBadGateway}
	Hanging     = Fault{Hang: true}
	CutInBodies = Fault{Cut: true}
)

// concerns tells whether the fault happens to an operation.
func (f Fault) concerns(operation string) bool {
	return len(f.Only) == 0 || slices.Contains(f.Only, operation)
}

// serve answers a request with the fault, or passes it on.
func (f Fault) serve(w http.ResponseWriter, r *http.Request, closed <-chan struct{}, next http.Handler) {
	if f.Delay > 0 {
		wait(r, closed, time.After(f.Delay))
	}
	switch {
	case f.Hang:
		wait(r, closed, nil)
		panic(http.ErrAbortHandler)
	case f.Status != 0:
		body := "<html>this is no KMS</html>"
		if f.Code != "" {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			body = `{"__type":` + strconv.Quote(f.Code) + `,"message":"a fault of the test"}`
		}
		w.WriteHeader(f.Status)
		_, _ = w.Write([]byte(body))
	case f.Cut:
		cut(w, r, next)
	default:
		next.ServeHTTP(w, r)
	}
}

// wait ends with the request's connection, with the proxy, or when after comes.
func wait(r *http.Request, closed <-chan struct{}, after <-chan time.Time) {
	select {
	case <-after:
	case <-r.Context().Done():
	case <-closed:
	}
}

// cut lets the server do its work, and drops the connection half-way through
// what it answers.
func cut(w http.ResponseWriter, r *http.Request, next http.Handler) {
	whole := httptest.NewRecorder()
	next.ServeHTTP(whole, r)
	body := bytes.Clone(whole.Body.Bytes())
	for name, values := range whole.Header() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(whole.Code)
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}
