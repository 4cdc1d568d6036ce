package emulator

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// goToolsEnv names the directory of the Go programs, which scripts/test
// installs with scripts/gotools.
const goToolsEnv = "KMSFS_TEST_GOTOOLS"

// Store is a running S3 server. The test that started it stops it.
type Store struct {
	Name string // "moto", "versitygw"
	URL  string // http://127.0.0.1:PORT
	// AccessKeyID and Secret are credentials that the server accepts.
	AccessKeyID, Secret string

	buckets atomic.Int32
}

// Stores starts every S3 server that there is for tests, each in a subtest.
func Stores(t *testing.T, test func(t *testing.T, s *Store)) {
	t.Run("moto", func(t *testing.T) { test(t, MotoStore(t)) })
	t.Run("versitygw", func(t *testing.T) { test(t, Versity(t)) })
}

// MotoStore is moto's server as an S3 server.
func MotoStore(t testing.TB) *Store {
	t.Helper()
	s := Moto(t)
	return &Store{Name: "moto", URL: s.URL, AccessKeyID: s.AccessKeyID, Secret: s.Secret}
}

// Versity starts the Versity S3 Gateway on a directory of its own.
func Versity(t testing.TB) *Store {
	t.Helper()
	dir := os.Getenv(goToolsEnv)
	if dir == "" {
		t.Skipf("%s is not set, so there is no versitygw: run through scripts/test", goToolsEnv)
	}
	s := &Store{Name: "versitygw", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", Secret: "example"}
	root := t.TempDir()
	for try := 0; try < 5; try++ { // the port may be another's by then
		if s.URL = startVersity(t, filepath.Join(dir, "versitygw"), root, s); s.URL != "" {
			return s
		}
	}
	t.Fatal("versitygw does not serve")
	return nil
}

// startVersity returns the URL, or nothing if the server ended.
func startVersity(t testing.TB, program, root string, s *Store) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	cmd := exec.Command(program, "--port", address, "--region", Region, "--quiet", "posix", root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+s.AccessKeyID, "ROOT_SECRET_ACCESS_KEY="+s.Secret)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start versitygw: %v", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	for limit := time.Now().Add(5 * time.Minute); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		select {
		case <-ended:
			return ""
		default:
		}
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return "http://" + address
		}
	}
	t.Fatal("versitygw does not serve after 5 minutes")
	return ""
}

// Environment is that of a process which takes the server, reached at url, for
// S3, and finds nothing else of AWS on the machine.
func (s *Store) Environment(url string) map[string]string {
	of := (&Server{AccessKeyID: s.AccessKeyID, Secret: s.Secret}).Environment("")
	delete(of, "AWS_ENDPOINT_URL_KMS") // another server's
	of["AWS_ENDPOINT_URL_S3"], of["AWS_REGION"] = url, Region
	return of
}

// Client is the SDK's client.
func (s *Store) Client() *s3.Client {
	return s3.New(s3.Options{
		Region: Region, BaseEndpoint: &s.URL, UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: s.AccessKeyID, SecretAccessKey: s.Secret}, nil
		}),
	})
}

// CreateBucket makes a bucket and returns its name.
func (s *Store) CreateBucket(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", s.buckets.Add(1))
	in := &s3.CreateBucketInput{Bucket: &name, CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: Region}}
	if _, err := s.Client().CreateBucket(t.Context(), in); err != nil {
		t.Fatalf("create bucket: %v", err)
	}
	return name
}

// Keys lists a bucket's objects.
func (s *Store) Keys(t testing.TB, bucket, prefix string) (keys []string) {
	t.Helper()
	pages := s3.NewListObjectsV2Paginator(s.Client(), &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatalf("list %s: %v", bucket, err)
		}
		for _, o := range page.Contents {
			keys = append(keys, *o.Key)
		}
	}
	return keys
}
