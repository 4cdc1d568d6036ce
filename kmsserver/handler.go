package kmsserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"kmsfs/kmsprovider/local"
)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := newRequestID()
	out, err := s.answer(w, r, id)
	if err != nil {
		s.writeError(w, id, err)
		return
	}
	s.writeResult(w, id, out)
}

// answer performs a request. Errors are an *apiError, or those of KMS.Do.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, id string) (any, error) {
	in, err := s.input(r)
	if err != nil {
		return nil, err
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	defer clear(body)
	ctx, cancel := context.WithTimeout(r.Context(), performTimeout)
	defer cancel()
	caller, err := s.caller(ctx, r, body)
	if err != nil {
		return nil, err
	}
	caller.RequestID, caller.SourceIP, caller.UserAgent = id, sourceIP(r), r.UserAgent()
	if err := decode(body, in); err != nil {
		return nil, err
	}
	return s.kms.Do(ctx, caller, in)
}

// input returns a fresh input of the operation that the request names.
func (s *Server) input(r *http.Request) (local.Input, error) {
	if r.Method != http.MethodPost || r.URL.Path != "/" || r.URL.RawQuery != "" {
		return nil, refuse("UnknownOperationException", "")
	}
	name, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), target)
	if !ok || !awsOperations[name] {
		return nil, refuse("UnknownOperationException", "")
	}
	in, ok := local.NewInput(name)
	if !ok {
		return nil, refuse("UnsupportedOperationException", "The local KMS has no "+name+".")
	}
	return in, nil
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		e := refuse("RequestEntityTooLargeException", "The request is longer than the server takes.")
		e.status = http.StatusRequestEntityTooLarge
		return nil, e
	case err != nil:
		return nil, refuse("SerializationException", "The request's body could not be read.")
	}
	return body, nil
}

// decode reads the JSON of a request. Messages say nothing of its values.
func decode(body []byte, in local.Input) error {
	if !utf8.Valid(body) { // encoding/json would put other characters there
		return refuse("SerializationException", "The request is not UTF-8.")
	}
	err := json.Unmarshal(body, in)
	var wrongType *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return refuse("SerializationException", "The value of "+wrongType.Field+" is of the wrong type.")
	}
	return refuse("SerializationException", "The request is no JSON object of this operation.")
}

// caller says who sent the request.
func (s *Server) caller(ctx context.Context, r *http.Request, body []byte) (local.Caller, error) {
	if s.auth == AuthSigV4 {
		return s.signer(ctx, r, body)
	}
	if r.Header.Get("Origin") != "" || !localHost(r) {
		return local.Caller{}, refuse("AccessDeniedException", "Without signatures, only programs of this host are served, by a loopback address.")
	}
	return s.kms.Root(), nil
}

// localHost tells whether a request was meant for a loopback address. A page in
// a browser may come by a name that its owner lets point there.
func localHost(r *http.Request) bool {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && a.Network() == "unix" {
		return true
	}
	host := (&url.URL{Host: r.Host}).Hostname()
	return host == "localhost" || isLoopback(host)
}

// sourceIP is empty for a Unix socket.
func sourceIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}
