package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// ErrMalformed: a document is no policy. The message names the element, as
// Statement[2].Condition.StringEquals. AWS's code for it is
// MalformedPolicyDocumentException.
var ErrMalformed = errors.New("malformed policy document")

// malformed names what is wrong with the element at path.
func malformed(path, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", path, fmt.Sprintf(format, args...), ErrMalformed)
}

// quote shows a document's own text in a message, within bounds.
func quote(s string) string {
	if runes := []rune(s); len(runes) > 100 {
		s = string(runes[:100]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// member is one name and value of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members reads a JSON object. encoding/json would take the last of two equal
// names, and names in the wrong case.
func members(path string, raw json.RawMessage) ([]member, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, malformed(path, "is not an object")
	}
	var list []member
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, malformed(path, "is not an object")
		}
		if seen[name] {
			return nil, malformed(path, "%s stands there twice", quote(name))
		}
		seen[name] = true
		m := member{name: name}
		if err := d.Decode(&m.value); err != nil {
			return nil, malformed(path, "is no JSON: %v", err)
		}
		list = append(list, m)
	}
	return list, nil
}

// items reads a JSON list, or what stands there alone in place of a list of
// one. An empty list is refused.
func items(path string, raw json.RawMessage) ([]json.RawMessage, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte{'['}) {
		return []json.RawMessage{raw}, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, malformed(path, "is no JSON: %v", err)
	}
	if len(list) == 0 {
		return nil, malformed(path, "is an empty list")
	}
	return list, nil
}

// texts reads a string or a list of strings.
func texts(path string, raw json.RawMessage) ([]string, error) {
	list, err := items(path, raw)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		s, err := text(path, item)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func text(path string, raw json.RawMessage) (string, error) {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", malformed(path, "%s is not a string", shown(raw))
	}
	return *s, nil
}

// scalars is texts that also takes bare numbers and truth values, as the values
// of conditions may be.
func scalars(path string, raw json.RawMessage) ([]string, error) {
	list, err := items(path, raw)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(list))
	for _, item := range list {
		bare := strings.TrimSpace(string(item))
		if bare == "true" || bare == "false" || bare != "" && strings.ContainsRune("-0123456789", rune(bare[0])) {
			out = append(out, bare)
			continue
		}
		s, err := text(path, item)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// shown is raw JSON in a message.
func shown(raw json.RawMessage) string {
	s := string(bytes.TrimSpace(raw))
	if runes := []rune(s); len(runes) > 100 {
		s = string(runes[:100]) + "…"
	}
	return s
}
