package envelope

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/csv"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"kmsfs/kmsprovider"
)

// rawName is how messages name a raw key.
type rawName struct{ namespace, name string }

func (n rawName) String() string { return fmt.Sprintf("raw key %q of %q", n.name, n.namespace) }

// maxKeyFile is the most that is read of a key file, in bytes.
const maxKeyFile = 64 << 10

// ParseRawKey makes a keyring of a raw key: namespace=NS,name=NAME,algorithm=ALG,file=PATH, in any order. A part with a
// comma in it stands in double quotes, as in CSV. ALG is AES (the file has the 16, 24 or 32 bytes of the key) or
// RSA-OAEP-SHA1, -SHA256, -SHA384, -SHA512 or RSA-PKCS1 (the file is PEM: a public key, PKIX or PKCS #1, to encrypt; a
// private key, PKCS #8 or PKCS #1, to decrypt and to encrypt).
//
// A file with a secret key that everybody on the machine can read or write is refused: it is no secret there, and a
// warning would be lost in a script. The group is let be, since that is how service managers hand secrets to a service.
// A public key that everybody can write is refused too: whoever replaces it reads what is encrypted from then on.
//
// Errors are kmsprovider.ErrInvalidInput or those of the file.
func ParseRawKey(spec string) (Keyring, error) {
	fields, err := parseRawSpec(spec)
	if err != nil {
		return nil, fmt.Errorf("parse raw key %q: %w: %w", spec, err, kmsprovider.ErrInvalidInput)
	}
	name := rawName{fields["namespace"], fields["name"]}
	path := fields["file"]
	content, mode, err := readKeyFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer clear(content)
	k, secret, err := newRawKey(name, fields["algorithm"], content)
	if err == nil {
		err = checkMode(mode, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w: %w", path, err, kmsprovider.ErrInvalidInput)
	}
	return k, nil
}

// parseRawSpec reads and checks all but the file.
func parseRawSpec(spec string) (map[string]string, error) {
	known := []string{"namespace", "name", "algorithm", "file"}
	parts, err := csv.NewReader(strings.NewReader(spec)).Read()
	if err != nil || strings.ContainsAny(spec, "\r\n") {
		return nil, errors.New("want namespace=NS,name=NAME,algorithm=ALG,file=PATH")
	}
	fields := make(map[string]string)
	for _, part := range parts {
		k, v, found := strings.Cut(part, "=")
		switch {
		case !found || !slices.Contains(known, k):
			return nil, fmt.Errorf("%q is none of %s=…", part, strings.Join(known, "=…, "))
		case fields[k] != "":
			return nil, fmt.Errorf("%s stands there twice", k)
		case v == "":
			return nil, fmt.Errorf("%s is empty", k)
		}
		fields[k] = v
	}
	for _, k := range known {
		if fields[k] == "" {
			return nil, fmt.Errorf("%s=… is missing", k)
		}
	}
	for _, k := range known[:2] {
		if !utf8.ValidString(fields[k]) {
			return nil, fmt.Errorf("%s is not UTF-8", k)
		}
		if n := len(fields[k]); n > math.MaxUint16-(8+nonceSize) {
			return nil, fmt.Errorf("%s of %d bytes does not fit into a message", k, n)
		}
	}
	if fields["namespace"] == kmsProvider {
		return nil, fmt.Errorf("namespace %s is for keys of AWS KMS", kmsProvider)
	}
	if _, isRSA := rsaPaddings[fields["algorithm"]]; !isRSA && fields["algorithm"] != "AES" {
		return nil, fmt.Errorf("algorithm %q is none of AES, RSA-OAEP-SHA1, RSA-OAEP-SHA256, RSA-OAEP-SHA384, RSA-OAEP-SHA512, RSA-PKCS1", fields["algorithm"])
	}
	return fields, nil
}

// readKeyFile returns what is in a file. The caller wipes it.
func readKeyFile(path string) ([]byte, os.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	b := make([]byte, maxKeyFile+1) // of its own: io.ReadAll would leave parts behind as it grows
	n, err := io.ReadFull(f, b)
	switch {
	case err == nil:
		clear(b)
		return nil, 0, fmt.Errorf("%s: over %d bytes, which no key has: %w", path, maxKeyFile, kmsprovider.ErrInvalidInput)
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		clear(b)
		return nil, 0, err
	}
	return b[:n], st.Mode(), nil
}

// checkMode refuses the permissions of a file that everybody can use. A pipe has none that matter.
func checkMode(mode os.FileMode, secret bool) error {
	switch {
	case !mode.IsRegular():
		return nil
	case secret && mode.Perm()&0o006 != 0:
		return fmt.Errorf("everybody can read or write this secret key (mode %04o): chmod o= makes it private", mode.Perm())
	case mode.Perm()&0o002 != 0:
		return fmt.Errorf("everybody can write this key (mode %04o): chmod o-w it", mode.Perm())
	}
	return nil
}

// newRawKey makes a keyring of what is in a key file, and tells whether that is secret.
func newRawKey(name rawName, algorithm string, content []byte) (_ Keyring, secret bool, _ error) {
	if algorithm == "AES" {
		if n := len(content); n != 16 && n != 24 && n != 32 {
			return nil, true, fmt.Errorf("%d bytes, and an AES key has 16, 24 or 32, as they are: not in hex or base64, no newline", n)
		}
		k, err := newRawAES(name, content)
		return k, true, err
	}
	k := &rawRSA{rawName: name, padding: rsaPaddings[algorithm]}
	switch key, err := parseRSA(content); key := key.(type) {
	case *rsa.PublicKey:
		k.public = key
	case *rsa.PrivateKey:
		k.public, k.private = &key.PublicKey, func() *rsa.PrivateKey { return key }
	default:
		return nil, true, err
	}
	if bits := k.public.N.BitLen(); bits < minRSA {
		return nil, true, fmt.Errorf("RSA key of %d bits, at least %d are needed", bits, minRSA)
	}
	return k, k.private != nil, nil
}

// parseRSA returns the *rsa.PublicKey or *rsa.PrivateKey of a PEM file.
func parseRSA(content []byte) (any, error) {
	block, rest := pem.Decode(content)
	if block == nil {
		return nil, errors.New("not PEM")
	}
	defer clear(block.Bytes)
	if next, _ := pem.Decode(rest); next != nil {
		clear(next.Bytes)
		return nil, errors.New("more than one key")
	}
	if block.Headers["DEK-Info"] != "" || block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, errors.New("the private key is under a passphrase: openssl pkey -in FILE takes it off")
	}
	parse, ok := map[string]func([]byte) (any, error){
		"PUBLIC KEY":      x509.ParsePKIXPublicKey,
		"PRIVATE KEY":     x509.ParsePKCS8PrivateKey,
		"RSA PUBLIC KEY":  func(der []byte) (any, error) { return x509.ParsePKCS1PublicKey(der) },
		"RSA PRIVATE KEY": func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
	}[block.Type]
	if !ok {
		return nil, fmt.Errorf("PEM of type %q, and a PUBLIC KEY, PRIVATE KEY, RSA PUBLIC KEY or RSA PRIVATE KEY is needed", block.Type)
	}
	key, err := parse(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.ToLower(block.Type), err)
	}
	switch key.(type) {
	case *rsa.PublicKey, *rsa.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("%s is not of RSA", strings.ToLower(block.Type))
}
