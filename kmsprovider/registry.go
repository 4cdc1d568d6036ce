package kmsprovider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// Registry holds providers by name and opens each on its first use: asking
// for a passphrase, or looking for AWS credentials, happens only where a key
// needs it. Safe for concurrent use.
type Registry struct {
	mu      sync.Mutex // guards the fields, never held during an open
	entries map[string]*registryEntry
	wrap    func(Provider) Provider // nil leaves providers as they are
	opened  []Provider              // in the order they were opened
	era     int                     // counts calls of Reset
	closed  bool
}

// registryEntry is one name. Its turn is a lock that a waiter can give up.
type registryEntry struct {
	turn     chan struct{} // holds one token; the taker may open or read provider
	open     func(context.Context) (Provider, error)
	provider Provider // nil until open succeeded
	era      int      // in which provider was opened: of another one, it is closed
}

// NewRegistry returns a registry that knows no provider.
func NewRegistry() *Registry {
	return &Registry{entries: make(map[string]*registryEntry)}
}

// Register makes name known. The open function runs when the provider is first
// asked for, and again only if it failed. It panics on an empty or known name
// and on a nil function.
func (r *Registry) Register(name string, open func(context.Context) (Provider, error)) {
	if name == "" || open == nil {
		panic("kmsprovider: Register without a name or an open function")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[name] != nil {
		panic("kmsprovider: Register of " + name + " twice")
	}
	e := &registryEntry{turn: make(chan struct{}, 1), open: open}
	e.turn <- struct{}{}
	r.entries[name] = e
}

// WrapWith has every provider that is opened from now on passed through wrap,
// which returns what is used, and closed, instead.
func (r *Registry) WrapWith(wrap func(Provider) Provider) {
	r.mu.Lock()
	r.wrap = wrap
	r.mu.Unlock()
}

// Provider returns the provider of that name, opening it if this is its first
// use; concurrent callers wait for one open. An unknown name is
// ErrInvalidInput and lists the known ones; a closed registry is
// ErrUnavailable; errors of the open function are wrapped.
func (r *Registry) Provider(ctx context.Context, name string) (Provider, error) {
	r.mu.Lock()
	e, closed, known := r.entries[name], r.closed, r.names()
	r.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("open key provider %q: registry is closed: %w", name, ErrUnavailable)
	}
	if e == nil {
		return nil, fmt.Errorf("open key provider %q: unknown, known are %s: %w", name, known, ErrInvalidInput)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open key provider %q: %w", name, err)
	}
	select {
	case <-e.turn:
	case <-ctx.Done():
		return nil, fmt.Errorf("open key provider %q: %w", name, ctx.Err())
	}
	defer func() { e.turn <- struct{}{} }()
	r.mu.Lock()
	era, wrap := r.era, r.wrap
	r.mu.Unlock()
	if e.provider != nil && e.era == era {
		return e.provider, nil
	}
	p, err := e.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open key provider %q: %w", name, err)
	}
	if wrap != nil {
		p = wrap(p)
	}
	r.mu.Lock()
	gone := r.closed || r.era != era
	if !gone {
		r.opened = append(r.opened, p)
	}
	r.mu.Unlock()
	if gone { // Close or Reset came while the provider was being opened
		return nil, errors.Join(fmt.Errorf("open key provider %q: registry is closed: %w", name, ErrUnavailable), closeProvider(p))
	}
	e.provider, e.era = p, era
	return p, nil
}

// Close closes the providers that were opened and are io.Closers, the last
// one first, and returns their errors joined. It does nothing the second time.
func (r *Registry) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	return r.Reset()
}

// Reset closes what was opened, as Close does, but providers can be opened
// again: whatever they hold of keys is gone until then. Callers that are using
// one see it fail.
func (r *Registry) Reset() error {
	r.mu.Lock()
	opened := r.opened
	r.opened = nil
	r.era++
	r.mu.Unlock()
	var errs []error
	for _, p := range slices.Backward(opened) {
		errs = append(errs, closeProvider(p))
	}
	return errors.Join(errs...)
}

func closeProvider(p Provider) error {
	c, ok := p.(io.Closer)
	if !ok {
		return nil
	}
	if err := c.Close(); err != nil {
		return fmt.Errorf("close key provider %q: %w", p.Name(), err)
	}
	return nil
}

// names lists the known providers, sorted; the caller holds mu.
func (r *Registry) names() string {
	if len(r.entries) == 0 {
		return "none"
	}
	var names []string
	for name := range r.entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
