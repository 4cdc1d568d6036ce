package kmsprovider

import (
	"fmt"
	"strings"
)

// maxKeyURI bounds a key URI in bytes. AWS's limit for a key ID is 2048.
const maxKeyURI = 2048

// KeyURI is a key as users name it: which provider, and the key there.
type KeyURI struct {
	Provider string // "local", "aws", "age", "vault"
	KeyID    string // in that provider's own form
}

// ParseKeyURI reads the name of a key:
//
//	local:alias/NAME, local:KEY-ID      {"local", "alias/NAME"}
//	arn:aws:kms:REGION:ACCOUNT:key/ID   {"aws", the whole ARN}; also alias/NAME
//	age:RECIPIENT                       {"age", "RECIPIENT"}
//	vault:PATH                          {"vault", "PATH"}
//
// The partition of an ARN may be aws or any that starts with aws- (aws-cn,
// aws-us-gov). The ARN of a local key is written local:ARN: bare, it names the
// key through the AWS protocol. Whether the key exists, and whether the
// provider does, is not asked here. Errors are ErrInvalidInput and quote s.
func ParseKeyURI(s string) (KeyURI, error) {
	u, problem := parseKeyURI(s)
	if problem != "" {
		shown := s
		if len(shown) > 200 {
			shown = shown[:200] + "…"
		}
		return KeyURI{}, fmt.Errorf("parse key %q: %s: %w", shown, problem, ErrInvalidInput)
	}
	return u, nil
}

// String returns what ParseKeyURI reads back as u.
func (u KeyURI) String() string {
	if u.Provider == "aws" {
		return u.KeyID
	}
	return u.Provider + ":" + u.KeyID
}

// parseKeyURI returns what is wrong with s, or "".
func parseKeyURI(s string) (KeyURI, string) {
	if s == "" {
		return KeyURI{}, "it is empty"
	}
	if len(s) > maxKeyURI {
		return KeyURI{}, fmt.Sprintf("longer than %d bytes", maxKeyURI)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return KeyURI{}, "only printable ASCII without spaces is allowed"
		}
	}
	scheme, rest, found := strings.Cut(s, ":")
	switch {
	case found && scheme == "arn":
		if problem := checkARN(s); problem != "" {
			return KeyURI{}, problem
		}
		return KeyURI{Provider: "aws", KeyID: s}, ""
	case found && (scheme == "local" || scheme == "age" || scheme == "vault"):
		if rest == "" || rest == "alias/" {
			return KeyURI{}, "nothing follows " + scheme + ":" + rest
		}
		return KeyURI{Provider: scheme, KeyID: rest}, ""
	}
	return KeyURI{}, "want local:alias/NAME, local:KEY-ID, the ARN of an AWS key or alias, age:RECIPIENT or vault:PATH"
}

// checkARN returns what is wrong with s as the ARN of an AWS KMS key or alias,
// or "": arn:PARTITION:kms:REGION:ACCOUNT:key/ID or …:alias/NAME.
func checkARN(s string) string {
	p := strings.SplitN(s, ":", 6)
	if len(p) != 6 {
		return "an ARN has six parts, arn:aws:kms:REGION:ACCOUNT:key/ID"
	}
	if p[1] != "aws" && !strings.HasPrefix(p[1], "aws-") {
		return "its partition is not AWS's"
	}
	if p[2] != "kms" {
		return "it is not the ARN of a KMS key"
	}
	if p[3] == "" {
		return "the ARN has no region"
	}
	if len(p[4]) != 12 || strings.Trim(p[4], "0123456789") != "" {
		return "the ARN's account is not 12 digits"
	}
	kind, name, _ := strings.Cut(p[5], "/")
	if (kind != "key" && kind != "alias") || name == "" || strings.Contains(name, ":") {
		return "the ARN names neither a key (key/ID) nor an alias (alias/NAME)"
	}
	return ""
}
