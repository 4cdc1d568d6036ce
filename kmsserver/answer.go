package kmsserver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"kmsfs/kmsprovider/local"
)

const contentType = "application/x-amz-json-1.1"

// apiError is what the server itself refuses a request with.
type apiError struct {
	code, message string
	status        int
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func refuse(code, message string) *apiError {
	return &apiError{code: code, message: message, status: http.StatusBadRequest}
}

// failures are the codes that are not the caller's fault.
var failures = setOf("KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException", "InternalFailure")

// writeError writes an error as AWS does. A cause that is no answer for callers
// is logged.
func (s *Server) writeError(w http.ResponseWriter, id string, err error) {
	var api *apiError
	var refused *local.Error
	switch {
	case errors.As(err, &api):
	case errors.As(err, &refused):
		api = refuse(refused.Code, refused.Message)
		if failures[refused.Code] {
			api.status = http.StatusInternalServerError
			s.log.Error("request failed", "request", id, "cause", err)
		}
	case errors.Is(err, context.Canceled): // the caller is gone
		api = &apiError{"KMSInternalException", "The request was cancelled.", http.StatusInternalServerError}
	case errors.Is(err, context.DeadlineExceeded):
		s.log.Error("request took too long", "request", id, "cause", err)
		api = &apiError{"DependencyTimeoutException", "The keystore did not answer in time.", http.StatusInternalServerError}
	default:
		s.log.Error("request failed", "request", id, "cause", err)
		api = &apiError{"KMSInternalException", "The request failed on the server's side; its log has the cause.", http.StatusInternalServerError}
	}
	body, marshalErr := json.Marshal(struct {
		Type    string `json:"__type"`
		Message string `json:"message,omitempty"`
	}{api.code, api.message})
	if marshalErr != nil {
		panic(fmt.Sprintf("kmsserver: marshal strings: %v", marshalErr))
	}
	w.Header().Set("X-Amzn-Errortype", api.code)
	s.write(w, id, api.status, body)
}

// writeResult writes an operation's output and wipes what is secret in it.
func (s *Server) writeResult(w http.ResponseWriter, id string, out any) {
	if out == nil { // as KMS does, not {}
		s.write(w, id, http.StatusOK, nil)
		return
	}
	defer wipe(out)
	body, err := json.Marshal(out)
	if err != nil {
		s.writeError(w, id, fmt.Errorf("marshal output: %w", err))
		return
	}
	defer clear(body)
	s.write(w, id, http.StatusOK, body)
}

func (s *Server) write(w http.ResponseWriter, id string, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Amzn-Requestid", id)
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate, private")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a caller who is gone cannot be told
}

// wipe overwrites the plaintext in an output.
func wipe(out any) {
	switch out := out.(type) {
	case *local.DecryptOutput:
		clear(out.Plaintext)
	case *local.GenerateDataKeyOutput:
		clear(out.Plaintext)
	case *local.GenerateRandomOutput:
		clear(out.Plaintext)
	}
}

// newRequestID draws a version 4 UUID, RFC 9562.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}
