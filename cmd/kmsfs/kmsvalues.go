package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
)

// The values of flags of kms, in the notations of the AWS CLI.

// Type is pflag.Value's.
func (v *kmsValue) Type() string {
	if v.to.Kind() == reflect.Bool {
		return "bool"
	}
	return "value"
}

// String is pflag.Value's: no flag has a default.
func (v *kmsValue) String() string { return "" }

func (v *kmsValue) isList() bool {
	return v.to.Kind() == reflect.Slice && v.to.Type() != reflect.TypeFor[[]byte]()
}

// Set is pflag.Value's; a list grows by it.
func (v *kmsValue) Set(s string) error {
	v.given = true
	if v.to.Type() == reflect.TypeFor[[]byte]() {
		b, err := readBlob(s)
		if err == nil {
			v.to.SetBytes(b)
		}
		return err
	}
	s, err := readText(s)
	if err != nil {
		return err
	}
	switch to := v.to.Addr().Interface().(type) {
	case *string:
		if strings.HasSuffix(v.member, "KeyId") {
			s = strings.TrimPrefix(s, "local:") // as a key is named everywhere else
		}
		*to = s
	case *bool:
		*to, err = strconv.ParseBool(s)
	case **int:
		var n int
		if n, err = strconv.Atoi(s); err == nil {
			*to = &n
		}
	case *[]string:
		err = appendList(to, s, func(s string) ([]string, error) { return strings.Split(s, ","), nil })
	case *[]local.Tag:
		err = appendList(to, s, parseTag)
	case *kmsprovider.Context:
		*to, err = parsePairs(s)
	case **local.GrantConstraints:
		*to, err = parseConstraints(s)
	case **local.Timestamp:
		*to, err = parseDate(s)
	default:
		err = fmt.Errorf("no flag of type %T", to)
	}
	return err
}

// readText is s, or the text of the file that file://PATH names.
func readText(s string) (string, error) {
	path, found := strings.CutPrefix(s, "file://")
	if !found {
		return s, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return string(b), nil
}

// readBlob is the bytes of the file that fileb://PATH names, or what is there in
// base64.
func readBlob(s string) ([]byte, error) {
	if path, found := strings.CutPrefix(s, "fileb://"); found {
		return os.ReadFile(path)
	}
	s, err := readText(s)
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("want fileb://FILE, or base64")
	}
	return b, nil
}

// appendList appends to a list what s is: JSON, or what short reads.
func appendList[T any](to *[]T, s string, short func(string) ([]T, error)) error {
	var more []T
	var err error
	if strings.HasPrefix(strings.TrimSpace(s), "[") {
		err = strictJSON(s, &more)
	} else {
		more, err = short(s)
	}
	*to = append(*to, more...)
	return err
}

func parseTag(s string) ([]local.Tag, error) {
	pairs, err := parsePairs(s)
	if err != nil {
		return nil, err
	}
	key, found := pairs["TagKey"]
	value, found2 := pairs["TagValue"]
	if !found || !found2 || len(pairs) != 2 {
		return nil, errors.New("want TagKey=KEY,TagValue=VALUE")
	}
	return []local.Tag{{TagKey: key, TagValue: value}}, nil
}

// parsePairs reads {"K": "V"} or K=V,K=V.
func parsePairs(s string) (kmsprovider.Context, error) {
	pairs := kmsprovider.Context{}
	if strings.HasPrefix(strings.TrimSpace(s), "{") {
		return pairs, strictJSON(s, &pairs)
	}
	if s == "" {
		return pairs, nil
	}
	for _, part := range strings.Split(s, ",") {
		key, value, found := strings.Cut(part, "=")
		if !found {
			return nil, fmt.Errorf("%q: want K=V, or all as JSON", part)
		}
		if _, twice := pairs[key]; twice {
			return nil, fmt.Errorf("%q is there twice", key)
		}
		pairs[key] = value
	}
	return pairs, nil
}

// parseConstraints reads JSON or EncryptionContextSubset={K=V,…}.
func parseConstraints(s string) (*local.GrantConstraints, error) {
	g := &local.GrantConstraints{}
	if strings.HasPrefix(strings.TrimSpace(s), "{") {
		return g, strictJSON(s, g)
	}
	for s != "" {
		kind, rest, found := strings.Cut(s, "={")
		inner, after, closed := strings.Cut(rest, "}")
		if !found || !closed {
			return nil, errors.New("want EncryptionContextSubset={K=V,…}, EncryptionContextEquals={K=V,…} or JSON")
		}
		pairs, err := parsePairs(inner)
		if err != nil {
			return nil, err
		}
		switch kind {
		case "EncryptionContextSubset":
			g.EncryptionContextSubset = pairs
		case "EncryptionContextEquals":
			g.EncryptionContextEquals = pairs
		default:
			return nil, fmt.Errorf("unknown constraint %q", kind)
		}
		s = strings.TrimPrefix(after, ",")
	}
	return g, nil
}

// parseDate reads RFC 3339, a day, or seconds since 1970.
func parseDate(s string) (*local.Timestamp, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return &local.Timestamp{Time: t.UTC()}, nil
		}
	}
	t := &local.Timestamp{}
	if err := t.UnmarshalJSON([]byte(s)); err != nil {
		return nil, errors.New("want a date such as 2026-12-31T00:00:00Z, or seconds since 1970")
	}
	return t, nil
}

func strictJSON(s string, to any) error {
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	if d.More() {
		return errors.New("read JSON: more than one value")
	}
	return nil
}
