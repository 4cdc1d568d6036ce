package faultproxy

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
)

// damage lets the server do its work, and spoils what it answers.
func (f Fault) damage(w http.ResponseWriter, r *http.Request, p *Proxy) {
	whole := httptest.NewRecorder()
	p.next.ServeHTTP(whole, r)
	if f.Lost {
		panic(http.ErrAbortHandler)
	}
	body := bytes.Clone(whole.Body.Bytes())
	for name, values := range whole.Header() {
		w.Header()[name] = values
	}
	half := len(body) / 2
	if f.Short {
		body = body[:half]
	}
	if f.Flip && len(body) > 0 {
		body[half] ^= 1
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(whole.Code)
	if !f.Cut && !f.Stall {
		_, _ = w.Write(body)
		return
	}
	_, _ = w.Write(body[:half])
	_ = http.NewResponseController(w).Flush()
	if f.Stall {
		wait(r, p.closed, nil)
	}
	panic(http.ErrAbortHandler)
}
