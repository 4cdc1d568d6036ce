package emulator

import (
	"context"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"kmsfs/kmsprovider/local"
)

// Region is where Server.CreateKey makes keys.
const Region = "eu-central-1"

// Server is a running server. The test that started it stops it.
type Server struct {
	URL string // http://127.0.0.1:PORT
	// AccessKeyID and Secret are credentials that the server accepts.
	AccessKeyID, Secret string
	// Keystore is what Local serves.
	Keystore *local.Keystore
}

// Environment is that of a process which takes the server, reached at url, for
// AWS KMS, and finds nothing else of AWS on the machine.
func (s *Server) Environment(url string) map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL_KMS": url, "AWS_ACCESS_KEY_ID": s.AccessKeyID, "AWS_SECRET_ACCESS_KEY": s.Secret,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
		"AWS_PROFILE": "", "AWS_SESSION_TOKEN": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_ENDPOINT_URL": "",
		"AWS_MAX_ATTEMPTS": "", "AWS_RETRY_MODE": "", "AWS_USE_FIPS_ENDPOINT": "", "AWS_CA_BUNDLE": "",
	}
}

// Admin is the SDK's client for a region.
func (s *Server) Admin(region string) *kms.Client {
	return kms.New(kms.Options{
		Region: region, BaseEndpoint: &s.URL,
		Credentials: aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: s.AccessKeyID, SecretAccessKey: s.Secret}, nil
		}),
	})
}

// CreateKey makes a key and returns its ARN.
func (s *Server) CreateKey(t testing.TB) string {
	t.Helper()
	out, err := s.Admin(Region).CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatalf("create key: %v", err)
	}
	return *out.KeyMetadata.Arn
}

// CreateAlias gives a key the name alias and returns the alias's ARN.
func (s *Server) CreateAlias(t testing.TB, alias, keyARN string) string {
	t.Helper()
	if _, err := s.Admin(Region).CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &alias, TargetKeyId: aws.String(keyID(keyARN))}); err != nil {
		t.Fatalf("create alias: %v", err)
	}
	return keyARN[:strings.LastIndexByte(keyARN, ':')+1] + alias
}

// DisableKey disables a key.
func (s *Server) DisableKey(t testing.TB, keyARN string) {
	t.Helper()
	if _, err := s.Admin(Region).DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: aws.String(keyID(keyARN))}); err != nil {
		t.Fatalf("disable key: %v", err)
	}
}

// keyID is the last part of a key's ARN: moto fails on ARNs where AWS takes them.
func keyID(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
