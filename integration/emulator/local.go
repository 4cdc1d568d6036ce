package emulator

import (
	"context"
	"path/filepath"
	"testing"

	"kmsfs/kmsprovider/local"
	"kmsfs/kmsserver"
)

// user is a principal that may do all that the account may.
const (
	user       = "user"
	userPolicy = `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}}`
)

// Local serves a keystore of its own over AWS's protocol, as kms serve does, in
// the test's process. Requests must be signed by a principal of the keystore.
func Local(t testing.TB) *Server {
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
	created, err := k.Do(t.Context(), k.Root(), &local.CreatePrincipalInput{PrincipalName: user})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := kmsserver.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- kmsserver.New(kmsserver.Options{KMS: k}).Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve the local KMS: %v", err)
		}
	})
	principal := created.(*local.CreatePrincipalOutput)
	s := &Server{
		URL:         "http://" + listener.Addr().String(),
		AccessKeyID: principal.Principal.AccessKeyID, Secret: principal.SecretAccessKey,
		Keystore: k,
	}
	s.Restrict(t, userPolicy)
	return s
}

// Restrict gives the principal of Local's Server another policy.
func (s *Server) Restrict(t testing.TB, policy string) {
	t.Helper()
	in := &local.PutPrincipalPolicyInput{PrincipalName: user, Policy: policy}
	if _, err := s.Keystore.Do(t.Context(), s.Keystore.Root(), in); err != nil {
		t.Fatal(err)
	}
}

// Caller is that principal, for calls that do without the server.
func (s *Server) Caller(t testing.TB) local.Caller {
	t.Helper()
	c, secret, err := s.Keystore.Principal(t.Context(), s.AccessKeyID)
	if err != nil {
		t.Fatal(err)
	}
	clear(secret)
	return c
}
