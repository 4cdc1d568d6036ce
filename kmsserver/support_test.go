package kmsserver

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"kmsfs/kmsprovider/local"
)

func newKeystore(t *testing.T) *local.Keystore {
	t.Helper()
	k, err := local.Create(context.Background(), local.Options{
		Path:       filepath.Join(t.TempDir(), "keystore.json"),
		Passphrase: func() ([]byte, error) { return []byte("correct horse"), nil },
		KDF:        &local.KDFParams{Time: 1, MemoryKiB: 8, Threads: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// running is a server under test.
type running struct {
	url  string
	stop context.CancelFunc
	done chan error // what Serve returned
	log  *bytes.Buffer
}

// start serves on a port of its own until the test ends.
func start(t *testing.T, o Options) *running {
	t.Helper()
	return startOn(t, o, "127.0.0.1:0")
}

func startOn(t *testing.T, o Options, address string) *running {
	t.Helper()
	l, err := Listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{url: "http://" + l.Addr().String() + "/", done: make(chan error, 1), log: new(bytes.Buffer)}
	o.Log = slog.New(slog.NewTextHandler(r.log, nil))
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.done <- New(o).Serve(ctx, l) }()
	t.Cleanup(func() {
		r.stop()
		if err := <-r.done; err != nil {
			t.Errorf("serve: %v", err)
		}
		r.done <- nil
	})
	return r
}

type keyPair struct{ id, secret string }

var alice = keyPair{"AKIAALICEALICEALICEA", "alice's secret access key"}

// client is AWS's own client.
func (r *running) client(k keyPair, options ...func(*kms.Options)) *kms.Client {
	return kms.New(kms.Options{
		BaseEndpoint: &r.url, Region: "local",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: k.id, SecretAccessKey: k.secret}, nil
		}),
		Retryer: aws.NopRetryer{},
	}, options...)
}

// reply is an answer off the wire.
type reply struct {
	status        int
	header        http.Header
	body          []byte
	kind, message string // of errors
}

func do(t *testing.T, c *http.Client, r *http.Request) reply {
	t.Helper()
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := reply{status: response.StatusCode, header: response.Header, body: body}
	if out.status != http.StatusOK {
		var e struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatalf("%v: %q", err, body)
		}
		out.kind, out.message = e.Type, e.Message
		if got := out.header.Get("x-amzn-ErrorType"); got != e.Type {
			t.Errorf("x-amzn-ErrorType is %q, the body says %q", got, e.Type)
		}
	}
	if out.header.Get("Content-Type") != contentType || len(out.header.Get("x-amzn-RequestId")) != 36 {
		t.Errorf("headers %v", out.header)
	}
	return out
}

func post(t *testing.T, url, operation, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Amz-Target", "TrentService."+operation)
	return r
}

// over makes a client that reaches a Unix socket.
func over(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
}
