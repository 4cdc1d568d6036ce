package faultproxy

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Proxy is a server on loopback that passes requests on, unless told to fail.
type Proxy struct {
	URL string

	t        testing.TB
	next     http.Handler
	protocol protocol
	address  unix.SockaddrInet4
	closed   chan struct{}

	mu     sync.Mutex
	fault  Fault
	counts map[string]int
	server *http.Server // nil while connections are refused
	socket net.Listener // the server's
	bound  int          // the socket that holds the port meanwhile
}

// To passes requests on to the server at a URL, signed as they are.
func To(t testing.TB, target string) http.Handler {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// New starts a proxy in front of a KMS; it is stopped when the test ends.
func New(t testing.TB, next http.Handler) *Proxy {
	t.Helper()
	return start(t, next, kms)
}

// NewS3 starts a proxy in front of an S3 server.
func NewS3(t testing.TB, next http.Handler) *Proxy {
	t.Helper()
	return start(t, next, s3)
}

func start(t testing.TB, next http.Handler, of protocol) *Proxy {
	t.Helper()
	p := &Proxy{t: t, next: next, protocol: of, closed: make(chan struct{}), counts: make(map[string]int)}
	p.bind(unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	name, err := unix.Getsockname(p.bound)
	if err != nil {
		t.Fatal(err)
	}
	p.address = *name.(*unix.SockaddrInet4)
	p.URL = fmt.Sprintf("http://127.0.0.1:%d", p.address.Port)
	p.Accept()
	t.Cleanup(func() {
		close(p.closed)
		p.Refuse()
		unix.Close(p.bound)
	})
	return p
}

// Set changes what happens to requests from now on. Those that hang go on to.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Counts tells how many requests came for each operation since the last call.
func (p *Proxy) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := maps.Clone(p.counts)
	clear(p.counts)
	return counts
}

// Refuse drops all connections and refuses new ones, until Accept. The port
// stays ours: a socket is bound to it that does not listen.
func (p *Proxy) Refuse() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return
	}
	p.bind(p.address) // before the port could be another's
	p.socket.Close()
	p.server.Close()
	p.server = nil
}

// Accept accepts connections again.
func (p *Proxy) Accept() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return
	}
	if err := unix.Listen(p.bound, 128); err != nil {
		p.t.Fatalf("listen: %v", err)
	}
	f := os.NewFile(uintptr(p.bound), "listener")
	listener, err := net.FileListener(f)
	f.Close()
	if err != nil {
		p.t.Fatalf("listen: %v", err)
	}
	server := &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	p.bound, p.socket, p.server = -1, listener, server
	go func() { _ = server.Serve(listener) }()
}

// bind makes the socket bound.
func (p *Proxy) bind(address unix.SockaddrInet4) {
	p.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		// Connections of before are still being torn down.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) // beside the one that listens
	}
	if err == nil {
		err = unix.Bind(fd, &address)
	}
	if err != nil {
		p.t.Fatalf("bind: %v", err)
	}
	p.bound = fd
}

// ServeHTTP counts a request and has the fault of the moment answer it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation := p.protocol.operation(r)
	p.mu.Lock()
	p.counts[operation]++
	fault := p.faultFor(operation)
	p.mu.Unlock()
	// Read first: the server notices a client that is gone only when it is
	// done with the body.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	fault.serve(w, r, p)
}

// faultFor draws the fault of a request. The caller holds mu.
func (p *Proxy) faultFor(operation string) Fault {
	if !p.fault.concerns(operation) {
		return None
	}
	if p.fault.After > 0 {
		p.fault.After--
		return None
	}
	f := p.fault
	if p.fault.Times > 0 {
		if p.fault.Times--; p.fault.Times == 0 {
			p.fault = None
		}
	}
	return f
}
