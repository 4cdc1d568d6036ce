package kmsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"kmsfs/kmsprovider/local"
)

// KMS is what is served: a *local.Keystore.
type KMS interface {
	Root() local.Caller
	Principal(ctx context.Context, accessKeyID string) (c local.Caller, secret []byte, err error)
	Do(ctx context.Context, c local.Caller, in local.Input) (any, error)
}

// Auth is how callers are known.
type Auth int

const (
	// AuthSigV4 demands requests signed with a principal's access key.
	AuthSigV4 Auth = iota
	// AuthNone takes everybody for the account's root.
	AuthNone
)

// Limits of requests.
const (
	maxBody        = 512 << 10 // bytes; key policies are the longest, with 32 KiB
	maxHeader      = 64 << 10
	headerTimeout  = 10 * time.Second
	readTimeout    = 30 * time.Second
	performTimeout = 20 * time.Second
	writeTimeout   = readTimeout + performTimeout + 10*time.Second
	idleTimeout    = 2 * time.Minute
	stopTimeout    = writeTimeout
)

// Options of a server.
type Options struct {
	KMS  KMS
	Auth Auth
	// Now is the clock for signatures; nil is time.Now.
	Now func() time.Time
	// Log is for failures on the server's side; nil is slog.Default.
	Log *slog.Logger
}

// Server serves the KMS. It is an http.Handler.
type Server struct {
	kms  KMS
	auth Auth
	now  func() time.Time
	log  *slog.Logger
}

var _ http.Handler = (*Server)(nil)

// New makes a server.
func New(o Options) *Server {
	s := &Server{kms: o.KMS, auth: o.Auth, now: o.Now, log: o.Log}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	return s
}

// Serve answers requests on l, which it closes, until ctx ends; then it finishes
// the requests under way and returns nil.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		// Requests do not end with ctx: they are finished.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err := h.Shutdown(limit)
		if err != nil {
			err = errors.Join(fmt.Errorf("finish requests: %w", err), h.Close())
		}
		stopped <- err
	})
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve the KMS: %w", err)
	}
	return <-stopped
}
