package kmsserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"kmsfs/kmsprovider/local"
)

func TestOnlyLoopbackAndSocketsAreListenedOn(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:80", "127.0.0.1", "4599", "unix:", "", "[::ffff:192.0.2.1]:0"} {
		l, err := Listen(t.Context(), address)
		if !errors.Is(err, ErrAddress) || !strings.Contains(err.Error(), address) {
			t.Errorf("%q: %v", address, err)
		}
		if l != nil {
			l.Close()
		}
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:0", "127.8.8.8:0"} {
		l, err := Listen(t.Context(), address)
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		if !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
			t.Errorf("%q: listens on %v", address, l.Addr())
		}
		l.Close()
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kms.sock")
	s := startOn(t, Options{KMS: newKeystore(t), Auth: AuthNone}, "unix:"+path)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if got := do(t, over(path), post(t, "http://kms/", "ListKeys", "{}")); got.status != 200 {
		t.Errorf("%d %s", got.status, got.kind)
	}
	if _, err := Listen(t.Context(), "unix:"+path); err == nil || errors.Is(err, ErrAddress) {
		t.Errorf("a socket in use: %v", err)
	}
	s.stop()
	<-s.done
	s.done <- nil
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stayed: %v", err)
	}
}

// A server that was killed leaves its socket.
func TestSocketsOfTheDeadAreReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kms.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	startOn(t, Options{KMS: newKeystore(t), Auth: AuthNone}, "unix:"+path)
	if got := do(t, over(path), post(t, "http://kms/", "ListKeys", "{}")); got.status != 200 {
		t.Errorf("%d %s", got.status, got.kind)
	}
	other := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), "unix:"+other); !errors.Is(err, ErrAddress) {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(other); err != nil || string(b) != "x" {
		t.Errorf("the file is gone: %v", err)
	}
}

// waiting is a KMS whose calls wait.
type waiting struct {
	KMS
	entered chan struct{}
	leave   chan struct{}
}

func (w waiting) Do(ctx context.Context, c local.Caller, in local.Input) (any, error) {
	w.entered <- struct{}{}
	select {
	case <-w.leave:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return w.KMS.Do(ctx, c, in)
}

func TestStoppingFinishesRequests(t *testing.T) {
	k := waiting{newKeystore(t), make(chan struct{}), make(chan struct{})}
	s := start(t, Options{KMS: k, Auth: AuthNone})
	answered := make(chan reply)
	go func() { answered <- do(t, http.DefaultClient, post(t, s.url, "CreateKey", "{}")) }()
	<-k.entered
	s.stop()
	// It takes no new ones: wait until the port is closed.
	address := strings.Trim(strings.TrimPrefix(s.url, "http://"), "/")
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("it still listens")
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-s.done:
		t.Fatalf("it returned before the request was answered: %v", err)
	default:
	}
	close(k.leave)
	if got := <-answered; got.status != 200 {
		t.Errorf("%d %s", got.status, got.kind)
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}
	s.done <- nil
}

// Hundreds at once, of all kinds, through AWS's client.
func TestManyRequestsAtOnce(t *testing.T) {
	const callers = 300
	s := start(t, Options{KMS: withPrincipal{newKeystore(t)}})
	client := s.client(alice, func(o *kms.Options) {
		o.HTTPClient = &http.Client{Transport: &http.Transport{MaxConnsPerHost: callers, MaxIdleConnsPerHost: callers}}
	})
	created, err := client.CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	id := created.KeyMetadata.KeyId
	begin := make(chan struct{})
	var wait sync.WaitGroup
	failures := make(chan error, callers)
	for i := range callers {
		wait.Go(func() {
			<-begin
			failures <- roundTrip(t.Context(), client, id, i)
		})
	}
	close(begin)
	wait.Wait()
	for range callers {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	keys, err := client.ListKeys(t.Context(), &kms.ListKeysInput{Limit: aws.Int32(1000)})
	if err != nil || len(keys.Keys) != 1+callers/10 {
		t.Errorf("%d keys, want %d: %v", len(keys.Keys), 1+callers/10, err)
	}
}

// roundTrip is what one of many callers does.
func roundTrip(ctx context.Context, client *kms.Client, id *string, i int) error {
	if i%10 == 0 {
		if _, err := client.CreateKey(ctx, &kms.CreateKeyInput{}); err != nil {
			return err
		}
	}
	encryptionContext := map[string]string{"caller": fmt.Sprint(i)}
	made, err := client.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: id, KeySpec: "AES_256", EncryptionContext: encryptionContext})
	if err != nil {
		return err
	}
	opened, err := client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob, KeyId: id, EncryptionContext: encryptionContext})
	if err != nil {
		return err
	}
	if !bytes.Equal(opened.Plaintext, made.Plaintext) || len(made.Plaintext) != 32 {
		return errors.New("got another caller's key")
	}
	return nil
}
