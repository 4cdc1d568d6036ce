package kms

import (
	"bytes"
	"context"
	"os"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
)

func (s *server) client() *sdk.Client {
	return sdk.New(sdk.Options{
		BaseEndpoint: aws.String(s.endpoint), Region: "local", Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "none", SecretAccessKey: "none"}, nil
		}),
	})
}

// A key that CreateKey returned is there after kill -9, and so is its event.
func TestKeysThatWereReturnedSurviveAKill(t *testing.T) {
	const makers, before = 8, 40 // keys returned before the kill
	s := newServer(t, "--auth", "none")
	var mu sync.Mutex
	var returned []string
	enough := make(chan struct{})
	var wait sync.WaitGroup
	client := s.client()
	for range makers {
		wait.Go(func() {
			for {
				made, err := client.CreateKey(t.Context(), &sdk.CreateKeyInput{})
				if err != nil {
					return // the server is gone
				}
				mu.Lock()
				returned = append(returned, *made.KeyMetadata.Arn)
				if len(returned) == before {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	s.kill()
	wait.Wait()
	s.start()
	client = s.client()
	log, err := os.ReadFile(s.keystore.AuditPath())
	if err != nil {
		t.Fatal(err)
	}
	for _, arn := range returned {
		if _, err := client.DescribeKey(t.Context(), &sdk.DescribeKeyInput{KeyId: &arn}); err != nil {
			t.Errorf("%s was returned: %v", arn, err)
		}
		if !bytes.Contains(log, []byte(arn)) {
			t.Errorf("%s was returned, and no event names it", arn)
		}
	}
	if _, err := s.keystore.VerifyAudit(); err != nil {
		t.Error(err)
	}
	t.Logf("%d keys were returned before the kill", len(returned))
}
