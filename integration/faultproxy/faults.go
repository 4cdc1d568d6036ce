package faultproxy

import (
	"net/http"
	"slices"
	"time"
)

// Fault is what happens to requests. The zero value passes them on.
type Fault struct {
	// Only limits it to operations, as AWS names them; empty is all.
	Only []string
	// Times is how many requests it happens to, before all is well again; 0 is all.
	Times int
	After int           // how many of these operations go well before
	Delay time.Duration // before anything else
	Hang  bool          // nothing is ever answered
	Lost  bool          // the server does its work, and the connection ends without an answer
	Cut   bool          // the answer ends in the middle of its body
	Stall bool          // the answer stops in the middle of its body, and the connection stays
	Short bool          // the answer is half of its body, and says that this is all
	Flip  bool          // one bit in the middle of the answer's body is another
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
func (f Fault) serve(w http.ResponseWriter, r *http.Request, p *Proxy) {
	closed, next := p.closed, p.next
	if f.Delay > 0 {
		wait(r, closed, time.After(f.Delay))
	}
	switch {
	case f.Hang:
		wait(r, closed, nil)
		panic(http.ErrAbortHandler)
	case f.Status != 0:
		body := "<html>this is no answer of the service</html>"
		if f.Code != "" {
			var kind string
			kind, body = p.protocol.failure(f.Code)
			w.Header().Set("Content-Type", kind)
		}
		w.WriteHeader(f.Status)
		_, _ = w.Write([]byte(body))
	case f.Lost || f.Cut || f.Stall || f.Short || f.Flip:
		f.damage(w, r, p)
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
