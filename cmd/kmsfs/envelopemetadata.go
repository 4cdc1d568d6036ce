package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"kmsfs/envelope"
	"kmsfs/kmsprovider"
)

// metadata is the JSON line about a message, as aws-encryption-cli writes it:
// the same fields, and bytes in base64.
type metadata struct {
	Header       headerMetadata      `json:"header"`
	HeaderAuth   *headerAuthMetadata `json:"header_auth,omitempty"` // of decryption
	Input        string              `json:"input"`
	MissingKeys  *[]string           `json:"missing_encryption_context_keys,omitempty"` // these and the next: of what was skipped
	MissingPairs *[][2]string        `json:"missing_encryption_context_pairs,omitempty"`
	Mode         string              `json:"mode"`
	Output       string              `json:"output"`
	Reason       string              `json:"reason,omitempty"`
	Skipped      bool                `json:"skipped,omitempty"`
}

type headerMetadata struct {
	Algorithm   string              `json:"algorithm"`
	Commitment  []byte              `json:"commitment_key"`
	ContentType int                 `json:"content_type"` // 1: not framed, 2: framed
	Keys        []keyMetadata       `json:"encrypted_data_keys"`
	Context     kmsprovider.Context `json:"encryption_context"`
	FrameLength int                 `json:"frame_length"`
	IVLength    *int                `json:"header_iv_length"` // this and Type: of version 1
	MessageID   []byte              `json:"message_id"`
	Type        *int                `json:"type"`
	Version     string              `json:"version"`
}

type keyMetadata struct {
	Ciphertext []byte `json:"encrypted_data_key"`
	Provider   struct {
		Info []byte `json:"key_info"`
		ID   []byte `json:"provider_id"`
	} `json:"key_provider"`
}

type headerAuthMetadata struct {
	IV  []byte `json:"iv"`
	Tag []byte `json:"tag"`
}

// newMetadata describes a message; skipped says why it was left, if it was.
func newMetadata(mode string, j job, h *envelope.Header, skipped *contextMismatch) metadata {
	line := metadata{Header: describeHeader(h), Mode: mode, Input: shownPath(j.in, "<stdin>"), Output: shownPath(j.out, "<stdout>")}
	if mode != "encrypt" {
		line.HeaderAuth = &headerAuthMetadata{IV: h.IV, Tag: h.Tag}
	}
	if skipped != nil {
		line.Skipped, line.Reason = true, "Missing encryption context key or value"
		line.MissingKeys, line.MissingPairs = &skipped.keys, &skipped.pairs
	}
	return line
}

func describeHeader(h *envelope.Header) headerMetadata {
	d := headerMetadata{
		Algorithm: h.Suite.String(), Commitment: h.Commitment, ContentType: 2, Context: h.Context,
		FrameLength: h.FrameLength, MessageID: h.MessageID, Version: fmt.Sprintf("%d.0", h.Version),
	}
	if d.Context == nil {
		d.Context = kmsprovider.Context{}
	}
	if h.FrameLength == 0 {
		d.ContentType = 1
	}
	if h.Version == 1 {
		ivLength, customerData := len(h.IV), 128
		d.IVLength, d.Type = &ivLength, &customerData
	}
	for _, k := range h.Keys {
		key := keyMetadata{Ciphertext: k.Ciphertext}
		key.Provider.ID, key.Provider.Info = []byte(k.Provider), k.Info
		d.Keys = append(d.Keys, key)
	}
	slices.SortFunc(d.Keys, func(a, b keyMetadata) int {
		return cmp.Or(bytes.Compare(a.Provider.ID, b.Provider.ID), bytes.Compare(a.Provider.Info, b.Provider.Info))
	})
	return d
}

// shownPath is a path as metadata has it: absolute, or what stands for a stream.
func shownPath(path, stream string) string {
	if path == standardStream {
		return stream
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// metadataFile takes metadata; nil takes none. Safe for concurrent use.
type metadataFile struct {
	mu    sync.Mutex
	w     io.Writer
	close func() error
}

// openMetadata opens the file that the flags name. The caller calls finish.
func (a *app) openMetadata(f envelopeFlags) (*metadataFile, error) {
	switch f.metadata {
	case "":
		return nil, nil
	case standardStream:
		return &metadataFile{w: a.stdout, close: func() error { return nil }}, nil
	}
	how := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if f.overwriteMetadata {
		how |= os.O_TRUNC
	}
	file, err := os.OpenFile(f.metadata, how, 0o666)
	if err != nil {
		return nil, fmt.Errorf("open metadata output: %w", err)
	}
	return &metadataFile{w: file, close: file.Close}, nil
}

func (f *metadataFile) write(m metadata) error {
	if f == nil {
		return nil
	}
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.w.Write(line.Bytes()); err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	return nil
}

func (f *metadataFile) finish() error {
	if f == nil {
		return nil
	}
	if err := f.close(); err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	return nil
}
