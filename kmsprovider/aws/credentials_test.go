package aws_test

import (
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmsfs/integration/faultproxy"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/aws"
)

// hintOf is the hint of an error of the provider.
func hintOf(err error) string {
	var e *aws.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Hint()
}

func TestWithoutCredentialsNothingIsAsked(t *testing.T) {
	p, proxy := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{})
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(name, "")
	}
	err := decrypt(t, t.Context(), p)
	wantOnly(t, "no credentials", err, kmsprovider.ErrAccessDenied)
	if !strings.Contains(err.Error(), "no credentials") || !strings.Contains(hintOf(err), "AWS_ACCESS_KEY_ID") {
		t.Errorf("%v\nhint: %s", err, hintOf(err))
	}
	if counts := proxy.Counts(); len(counts) != 0 {
		t.Errorf("requests: %v", counts)
	}
}

func TestAMetadataServiceThatHangsHoldsNothingUp(t *testing.T) {
	p, kms := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{Timeout: 500 * time.Millisecond})
	metadata := faultproxy.New(t, fake(func(string) answer { return nil }))
	metadata.Set(faultproxy.Hanging)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL,
	} {
		t.Setenv(name, value)
	}
	err := decrypt(t, t.Context(), p)
	if !errors.Is(err, kmsprovider.ErrUnavailable) || hintOf(err) == "" {
		t.Errorf("hanging: %v", err)
	}
	metadata.Refuse()
	p = aws.New(aws.Options{}) // with time enough to hear that there is none
	err = decrypt(t, t.Context(), p)
	wantOnly(t, "refusing", err, kmsprovider.ErrAccessDenied)
	if hintOf(err) == "" {
		t.Errorf("refusing: %v", err)
	}
	if counts := kms.Counts(); len(counts) != 0 {
		t.Errorf("requests: %v", counts)
	}
}

func TestAProfileThatIsMissingIsNamed(t *testing.T) {
	p, _ := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{})
	t.Setenv("AWS_PROFILE", "nobody")
	err := decrypt(t, t.Context(), p)
	wantOnly(t, "profile", err, kmsprovider.ErrInvalidInput)
	if !strings.Contains(err.Error(), `"nobody"`) || !strings.Contains(hintOf(err), "AWS_PROFILE") {
		t.Errorf("%v\nhint: %s", err, hintOf(err))
	}
	t.Setenv("AWS_PROFILE", "") // read again, once it is repaired
	if err := decrypt(t, t.Context(), p); err != nil {
		t.Error(err)
	}
}

func TestCredentialsComeFromAProfileToo(t *testing.T) {
	p, _ := behind(t, fake(func(string) answer { return good(keyARN) }), aws.Options{})
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[work]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "work", "AWS_SHARED_CREDENTIALS_FILE": file} {
		t.Setenv(name, value)
	}
	if err := decrypt(t, t.Context(), p); err != nil {
		t.Error(err)
	}
}

func TestACertificateThatIsNotTrustedIsRefusedOnce(t *testing.T) {
	server := httptest.NewUnstartedServer(fake(func(string) answer { return good(keyARN) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	p, _ := behind(t, fake(func(string) answer { return nil }), aws.Options{})
	t.Setenv("AWS_ENDPOINT_URL_KMS", server.URL)
	err := decrypt(t, t.Context(), p)
	wantOnly(t, "certificate", err, kmsprovider.ErrUnavailable)
	if !strings.Contains(hintOf(err), "AWS_CA_BUNDLE") {
		t.Errorf("%v\nhint: %s", err, hintOf(err))
	}
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(bundle, block, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	if err := decrypt(t, t.Context(), aws.New(aws.Options{})); err != nil {
		t.Errorf("with a bundle: %v", err)
	}
}
