package envelope

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// kinds is one small message of each kind: the table that damage is done to.
func kinds(t testing.TB) map[string]reference {
	ec := kmsprovider.Context{"purpose": "test", "a": ""}
	return map[string]reference{
		"v2 signed framed":     {suite: SuiteCommitSigned, context: ec, frameLength: 16, plaintext: text(40)},
		"v2 framed":            {suite: SuiteCommit, frameLength: 16, plaintext: text(32)},
		"v2 framed full final": {suite: SuiteCommit, context: ec, frameLength: 16, plaintext: text(32), fullFinal: true},
		"v2 signed not framed": {suite: SuiteCommitSigned, plaintext: text(20)},
		"v2 not framed":        {suite: SuiteCommit, context: ec, plaintext: text(20)},
		"v1 signed P-384":      {suite: SuiteAES256Signed, context: ec, frameLength: 16, plaintext: text(20), randomIVs: true},
		"v1 signed P-256":      {suite: SuiteAES128Signed, frameLength: 16, plaintext: text(20)},
		"v1 framed HKDF":       {suite: SuiteAES192, context: ec, frameLength: 16, plaintext: text(20), randomIVs: true},
		"v1 not framed":        {suite: SuiteAES128Identity, context: ec, plaintext: text(20), randomIVs: true},
	}
}

var sentinels = []error{ErrMalformed, ErrNotAuthentic, ErrSignature, ErrContext, ErrNoKey, ErrTooLarge}

// checkRefused fails unless err is one of the package's and got is a proper beginning of the plaintext, in whole frames.
func checkRefused(t *testing.T, r reference, got []byte, err error) {
	t.Helper()
	known := slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) })
	switch {
	case err == nil:
		t.Errorf("was taken")
	case !known:
		t.Errorf("error of no kind: %v", err)
	case !bytes.HasPrefix(r.plaintext, got):
		t.Errorf("wrote what is not the plaintext: %x", got)
	case len(got) > 0 && (r.frameLength == 0 || len(got)%r.frameLength != 0 || len(got) == len(r.plaintext) && len(got)%r.frameLength != 0):
		t.Errorf("wrote %d bytes of %d, not whole frames before the last: %v", len(got), len(r.plaintext), err)
	}
}

func TestEveryChangedByteIsFound(t *testing.T) {
	for name, r := range kinds(t) {
		message := r.message(t)
		if got, _, err := decrypt(message, allowAll()); err != nil || !bytes.Equal(got, r.plaintext) {
			t.Fatalf("%s: the message itself: %v", name, err)
		}
		for at := range message {
			t.Run(fmt.Sprintf("%s byte %d", name, at), func(t *testing.T) {
				damaged := bytes.Clone(message)
				damaged[at] ^= 1 << (at % 8)
				got, _, err := decrypt(damaged, allowAll())
				checkRefused(t, r, got, err)
			})
		}
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	for name, r := range kinds(t) {
		message := r.message(t)
		for n := range message {
			t.Run(fmt.Sprintf("%s cut to %d", name, n), func(t *testing.T) {
				got, _, err := decrypt(message[:n], allowAll())
				checkRefused(t, r, got, err)
				if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "the message ends within it") {
					t.Errorf("error does not say so: %v", err)
				}
			})
		}
	}
}

func TestBytesAfterTheEndAreRefused(t *testing.T) {
	for name, r := range kinds(t) {
		got, _, err := decrypt(append(r.message(t), 0), allowAll())
		checkRefused(t, r, got, err)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "end of the message: more bytes follow") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every field has its limits, and the error names it.
func TestWrongFieldsAreNamed(t *testing.T) {
	v1 := reference{suite: SuiteAES256, frameLength: 16, plaintext: text(40), context: kmsprovider.Context{"k": "v"}}
	v2 := v1
	v2.suite = SuiteCommit
	signed := v1
	signed.suite = SuiteCommitSigned
	whole := v2
	whole.frameLength = 0
	// Offsets after the context {"k":"v"}, 8 bytes, and the one wrapped key, 23 bytes.
	const keysV1, keysV2 = 4 + 16 + 2 + 8, 3 + 32 + 2 + 8
	const endV1, endV2 = keysV1 + 24, keysV2 + 24
	put := func(at int, b ...byte) func([]byte) []byte {
		return func(m []byte) []byte { copy(m[at:], b); return m }
	}
	ff := []byte{0xff, 0xff, 0xff, 0xff}
	for name, c := range map[string]struct {
		r      reference
		damage func([]byte) []byte
		kind   error
		says   string
	}{
		"nothing at all":          {v2, func([]byte) []byte { return nil }, ErrMalformed, "version: the message ends within it"},
		"version":                 {v2, put(0, 3), ErrMalformed, "version: 3"},
		"base64":                  {v2, put(0, 'A', 'g', 'V'), ErrMalformed, "base64"},
		"type":                    {v1, put(1, 0x81), ErrMalformed, "message type: 0x81"},
		"suite":                   {v2, put(1, 0x05, 0x79), ErrMalformed, "algorithm suite: 0x0579"},
		"suite of version 1":      {v2, put(1, 0x03, 0x78), ErrMalformed, "algorithm suite: AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384 is not one of message format version 2"},
		"suite of version 2":      {v1, put(2, 0x04, 0x78), ErrMalformed, "is not one of message format version 1"},
		"context of no pairs":     {v2, put(37, 0, 0), ErrMalformed, "encryption context: no pairs"},
		"context of more pairs":   {v2, put(37, 0, 2), ErrMalformed, "encryption context: ends within pair 2 of 2"},
		"context of fewer bytes":  {v2, put(35, 0, 7), ErrMalformed, "encryption context: ends within pair 1 of 1"},
		"context key too long":    {v2, put(39, ff[:2]...), ErrMalformed, "encryption context: ends within pair 1"},
		"context not UTF-8":       {v2, put(41, 0xff), ErrMalformed, "encryption context: pair"},
		"no wrapped keys":         {v2, put(keysV2, 0, 0), ErrMalformed, "number of encrypted data keys: 0"},
		"65,535 wrapped keys":     {v2, put(keysV2, 0xff, 0xff), ErrMalformed, "of 65535"},
		"provider not UTF-8":      {v2, put(keysV2+4, 0xff), ErrMalformed, "provider of an encrypted data key"},
		"provider too long":       {v2, put(keysV2+2, 0xff, 0xff), ErrMalformed, "provider of an encrypted data key: the message ends within it"},
		"content type":            {v2, put(endV2, 3), ErrMalformed, "content type: 3"},
		"content type v1":         {v1, put(endV1, 0), ErrMalformed, "content type: 0"},
		"reserved":                {v1, put(endV1+1, 0, 0, 0, 1), ErrMalformed, "reserved field: 0x00000001"},
		"IV length":               {v1, put(endV1+5, 16), ErrMalformed, "IV length: 16"},
		"frame length 0":          {v2, put(endV2+1, 0, 0, 0, 0), ErrMalformed, "frame length: 0"},
		"frame length not framed": {whole, put(endV2+1, 0, 0, 0, 1), ErrMalformed, "frame length: 1"},
		"frame length 4 GiB":      {v2, put(endV2+1, ff...), ErrTooLarge, "frame length of 4294967295 bytes"},
		"commitment":              {v2, put(endV2+5, 1, 2, 3), ErrNotAuthentic, "commitment"},
		"header tag":              {v2, put(endV2+5+32, 1, 2, 3), ErrNotAuthentic, "header tag"},
		"header IV":               {v1, put(endV1+10, 1, 2, 3), ErrNotAuthentic, "header tag"},
		"first sequence number":   {v2, put(endV2+53, 0, 0, 0, 2), ErrMalformed, "frame 1: sequence number: 2 is out of order"},
		"sequence number 0":       {v2, put(endV2+53, 0, 0, 0, 0), ErrMalformed, "frame 1: sequence number: 0 is out of order"},
		"frame IV":                {v2, put(endV2+57, 1), ErrNotAuthentic, "frame 1: tag"},
		"second frame":            {v2, put(endV2+53+48+20, 1, 2), ErrNotAuthentic, "frame 2: tag"},
		"final frame too early":   {v2, put(endV2+53, ff...), ErrMalformed, "frame 1: sequence number"},
		"final sequence number":   {v2, put(endV2+53+2*48+4, 0, 0, 0, 9), ErrMalformed, "frame 3: sequence number: 9 of the final frame"},
		"final length":            {v2, put(endV2+53+2*48+20, 0, 0, 0, 17), ErrMalformed, "frame 3: length of the final frame: 17 bytes"},
		"final length 4 GiB":      {v2, put(endV2+53+2*48+20, ff...), ErrMalformed, "frame 3: length of the final frame: 4294967295"},
		"final length less":       {v2, put(endV2+53+2*48+20, 0, 0, 0, 7), ErrNotAuthentic, "frame 3: tag"},
		"body length too much":    {whole, put(endV2+53+12, ff...), ErrMalformed, "length of the body"},
		"body length past GCM's":  {whole, put(endV2+53+12, 0, 0, 0, 0x10, 0, 0, 0, 0), ErrMalformed, "length of the body: 68719476736"},
		"body length 64 GiB":      {whole, put(endV2+53+12, 0, 0, 0, 0xf, 0xff, 0xff, 0xff, 0xe0), ErrTooLarge, "body of 68719476704 bytes that is not framed"},
		"body length more":        {whole, put(endV2+53+12, 0, 0, 0, 0, 0, 0, 1, 0), ErrMalformed, "ciphertext of the body: the message ends within it"},
		"body length less":        {whole, put(endV2+53+12, 0, 0, 0, 0, 0, 0, 0, 39), ErrNotAuthentic, "tag of the body"},
		"body":                    {whole, put(endV2+53+20, 1, 2), ErrNotAuthentic, "tag of the body"},
		"no footer":               {signed, func(m []byte) []byte { return m[:len(m)-footerSize(m)] }, ErrSignature, "length of the signature: the message ends within it"},
		"empty signature":         {signed, func(m []byte) []byte { return append(m[:len(m)-footerSize(m)], 0, 0) }, ErrSignature, "footer"},
		"signature cut":           {signed, func(m []byte) []byte { return m[:len(m)-1] }, ErrSignature, "signature: the message ends within it"},
		"signature of another": {signed, func(m []byte) []byte {
			other := signed.message(t)
			return append(m[:len(m)-footerSize(m)], other[len(other)-footerSize(other):]...)
		}, ErrSignature, "footer"},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := decrypt(c.damage(c.r.message(t)), allowAll())
			checkRefused(t, c.r, got, err)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v\nwant %v, with %q", err, c.kind, c.says)
			}
		})
	}
}

// footerSize finds the footer of a message of a P-384 suite at its end: a length, and DER of that length.
func footerSize(m []byte) int {
	for n := 60; n <= 106; n++ {
		at := len(m) - n
		if int(binary.BigEndian.Uint16(m[at:])) == n-2 && m[at+2] == 0x30 && int(m[at+3]) == n-4 {
			return n
		}
	}
	panic("no footer found")
}

func TestContextsThatAreNotCanonicalAreRefused(t *testing.T) {
	pairs := func(list ...string) []byte {
		b := binary.BigEndian.AppendUint16(nil, uint16(len(list)/2))
		for _, s := range list {
			b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
			b = append(b, s...)
		}
		return b
	}
	for says, raw := range map[string][]byte{
		`key "a" twice`:                      pairs("a", "1", "a", "1"),
		`keys are not sorted: "a" after "b"`: pairs("b", "1", "a", "2"),
		`keys are not sorted: "" after "a"`:  pairs("a", "1", "", "2"),
		`keys are not sorted: "a" after "c"`: pairs("a", "1", "c", "2", "a", "3"),
		"1 bytes after its 1 pairs":          append(pairs("a", "1"), 0),
		"no pairs in 1 bytes":                {0},
	} {
		r := reference{suite: SuiteCommit, frameLength: 16, plaintext: text(5), rawContext: raw}
		got, _, err := decrypt(r.message(t), allowAll())
		checkRefused(t, r, got, err)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "encryption context: "+says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestFramesOutOfOrderAreRefused(t *testing.T) {
	const n = 65536
	var whole [][]byte
	r := reference{suite: SuiteCommit, frameLength: 2, plaintext: text(2*n + 1), frames: func(f [][]byte) { whole = f }}
	message := r.message(t)
	head := message[:len(message)-len(slices.Concat(whole...))]
	for name, c := range map[string]struct {
		frames func([][]byte)
		says   string
	}{
		"the first two exchanged": {func(f [][]byte) { f[0], f[1] = f[1], f[0] }, "frame 1: sequence number: 2 is out of order"},
		"two late ones exchanged": {func(f [][]byte) { f[n-2], f[n-1] = f[n-1], f[n-2] }, fmt.Sprintf("frame %d: sequence number: %d is out of order", n-1, n)},
		"all backwards":           {func(f [][]byte) { slices.Reverse(f[:n]) }, "frame 1: sequence number: 65536 is out of order"},
		"one left out":            {func(f [][]byte) { f[999] = nil }, "frame 1000: sequence number: 1001 is out of order"},
		"one twice":               {func(f [][]byte) { f[1000] = f[999] }, "frame 1001: sequence number: 1000 is out of order"},
		"the end too early":       {func(f [][]byte) { f[500] = f[n] }, "frame 501: sequence number: 65537 of the final frame is out of order"},
		"no end":                  {func(f [][]byte) { f[n] = nil }, "frame 65537: sequence number: the message ends within it"},
		"renumbered": {func(f [][]byte) {
			f[10], f[11] = f[11], f[10]
			binary.BigEndian.PutUint32(f[10], 11)
			binary.BigEndian.PutUint32(f[11], 12)
		}, "frame 11: tag"},
	} {
		parts := slices.Clone(whole)
		for i := range parts {
			parts[i] = bytes.Clone(parts[i])
		}
		c.frames(parts)
		got, _, err := decrypt(slices.Concat(head, slices.Concat(parts...)), allowAll())
		checkRefused(t, r, got, err)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestTooManyKeysAreRefusedBeforeTheyAreRead(t *testing.T) {
	r := reference{suite: SuiteCommit, frameLength: 16, keys: []EncryptedDataKey{fixedEDK, fixedEDK, fixedEDK}}
	m := r.message(t)
	o := allowAll()
	for most, want := range map[int]error{0: nil, 2: ErrTooManyKeys, 3: nil} {
		o.MaxDataKeys = most
		if _, _, err := decrypt(m, o); !errors.Is(err, want) {
			t.Errorf("at most %d: %v, want %v", most, err, want)
		}
	}
	src := bytes.NewReader(m)
	if _, err := ParseHeader(src, 2); !errors.Is(err, ErrTooManyKeys) {
		t.Error(err)
	}
	if read := len(m) - src.Len(); read != 3+32+2+2 {
		t.Errorf("read %d bytes, more than up to the number", read)
	}
}

func TestSignedMessagesAreRefusedOnDemand(t *testing.T) {
	o := allowAll()
	o.RefuseSigned = true
	for _, suite := range allSuites {
		_, h, err := decrypt(reference{suite: suite}.message(t), o)
		if errors.Is(err, ErrSigned) != suite.Signed() || h == nil {
			t.Errorf("%s: %v", suite, err)
		}
	}
}
