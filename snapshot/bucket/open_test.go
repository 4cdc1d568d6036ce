package bucket_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmsfs/integration/emulator"
	"kmsfs/integration/faultproxy"
	"kmsfs/snapshot/bucket"
	"kmsfs/snapshot/bucket/buckettest"
)

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"s3://b": "b|", "s3://b/": "b|", "s3://b/p": "b|p/", "s3://b/p/": "b|p/", "s3://b/p/q": "b|p/q/", "s3://b.c-d/%20x": "b.c-d| x/",
		"": "", "s3:": "", "s3://": "", "s3:///p": "", "http://b/p": "", "b/p": "", "s3://b:1/p": "", "s3://u@b/p": "", "s3://b/p?q": "", "s3://b/p#f": "",
		"s3://b/p//q": "", "s3://b/../q": "", "s3://b/%zz": "", "s3://b/" + strings.Repeat("p", 1025): "",
	} {
		name, prefix, err := bucket.ParseURL(url)
		if got := name + "|" + prefix; (err == nil) != (want != "") || (err == nil && got != want) {
			t.Errorf("%q: %q, %v", url, got, err)
		}
		if want == "" {
			if _, err := bucket.Open(t.Context(), url, bucket.Options{}); !errors.Is(err, bucket.ErrInvalid) {
				t.Errorf("%q: %v", url, err)
			}
		}
	}
}

func TestPartsAreNeverTooMany(t *testing.T) {
	const most = 5 << 40 // bytes, S3's limit of an object
	for _, size := range []int64{partSize + 1, 10_000 * partSize, 10_000*partSize + 1, 10_000*partSize + 10_000, 1 << 40, most} {
		part := bucket.PartSizeOf(size)
		if n := (size + part - 1) / part; n < 2 || n > 10_000 || part < partSize || part > 5<<30 {
			t.Errorf("%d bytes: %d parts of %d", size, n, part)
		}
	}
	if part := bucket.PartSizeOf(10_000 * partSize); part != partSize {
		t.Errorf("parts of %d", part)
	}
}

// replies is an HTTP client without a network.
type replies func(*http.Request) *http.Response

func (r replies) Do(request *http.Request) (*http.Response, error) { return r(request), nil }

func TestABucketIsAskedWhereItIs(t *testing.T) {
	for name, value := range new(emulator.Store).Environment("") {
		t.Setenv(name, value)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	for _, region := range []string{"", "eu-west-3"} {
		t.Setenv("AWS_REGION", region)
		var hosts []string
		client := replies(func(r *http.Request) *http.Response {
			hosts = append(hosts, r.Method+" "+r.URL.Host)
			w := httptest.NewRecorder()
			w.Header().Set("X-Amz-Bucket-Region", "ap-south-1")
			if !strings.Contains(r.URL.Host, "ap-south-1") {
				w.WriteHeader(http.StatusMovedPermanently)
			}
			return w.Result()
		})
		if _, err := bucket.Open(t.Context(), "s3://pail", bucket.Options{}.WithClient(client)); err != nil {
			t.Error(err)
		}
		if len(hosts) != 2 || hosts[1] != "HEAD pail.s3.ap-south-1.amazonaws.com" {
			t.Errorf("asked %q", hosts)
		}
	}
}

func TestTheUsersKeyEncryptsWhatIsPut(t *testing.T) {
	for name, value := range new(emulator.Store).Environment("http://127.0.0.1:1") {
		t.Setenv(name, value)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	asked := map[string]string{}
	client := replies(func(r *http.Request) *http.Response {
		asked[r.Method+" "+r.URL.RawQuery] = r.Header.Get("X-Amz-Server-Side-Encryption") + " " + r.Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id")
		if r.Body != nil {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		w := httptest.NewRecorder()
		if strings.HasPrefix(r.URL.RawQuery, "uploads") && r.Method == http.MethodPost {
			fmt.Fprint(w, `<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>`)
		}
		return w.Result()
	})
	b, err := bucket.Open(t.Context(), "s3://pail", bucket.Options{SSEKMSKey: "alias/mine", Jobs: 1}.WithClient(client))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{10, partSize + 1} {
		if _, err := b.Put(t.Context(), "object", bytes.NewReader(make([]byte, size)), int64(size), bucket.PutOptions{}); err != nil {
			t.Error(err)
		}
	}
	for _, request := range []string{"PUT x-id=PutObject", "POST uploads="} {
		if asked[request] != "aws:kms alias/mine" {
			t.Errorf("%s: %q of %q", request, asked[request], asked)
		}
	}
}

func TestExpiredCredentialsAreRenewedOnce(t *testing.T) {
	s := emulator.Versity(t)
	proxy := faultproxy.NewS3(t, faultproxy.To(t, s.URL))
	name := s.CreateBucket(t)
	for key, value := range s.Environment(proxy.URL) {
		t.Setenv(key, value)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	given, _ := json.Marshal(map[string]any{"Version": 1, "AccessKeyId": s.AccessKeyID, "SecretAccessKey": s.Secret, "Expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
	script := fmt.Sprintf("#!/bin/sh\necho >>%s\necho '%s'\n", calls, given)
	config := fmt.Sprintf("[default]\ncredential_process = %s\n", filepath.Join(dir, "script"))
	for file, content := range map[string]string{"script": script, "config": config} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	b, err := bucket.Open(t.Context(), "s3://"+name, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	asked := func() int { content, _ := os.ReadFile(calls); return len(content) }
	if n := asked(); n != 1 {
		t.Fatalf("credentials were asked for %d times", n)
	}
	proxy.Set(faultproxy.Fault{Status: 400, Code: "ExpiredToken", Times: 1})
	if _, err := b.Put(t.Context(), "object", bytes.NewReader(nil), 0, bucket.PutOptions{}); err != nil {
		t.Error(err)
	}
	if n := asked(); n != 2 {
		t.Errorf("credentials were asked for %d times", n)
	}
	proxy.Set(faultproxy.Fault{Status: 400, Code: "ExpiredToken"})
	proxy.Counts()
	_, err = b.Put(t.Context(), "object", bytes.NewReader(nil), 0, bucket.PutOptions{})
	behind{name: name}.wantError(t, err, bucket.ErrExpiredCredentials, "object")
	if n := proxy.Counts()["PutObject"]; n != 2 {
		t.Errorf("asked %d times", n)
	}
	var e *bucket.Error
	if !errors.As(err, &e) || e.Hint() == "" {
		t.Errorf("no hint: %v", err)
	}
}

func TestWithoutCredentialsNothingIsSent(t *testing.T) {
	for name, value := range new(emulator.Store).Environment("http://127.0.0.1:1") {
		t.Setenv(name, value)
	}
	_, err := bucket.Open(t.Context(), "s3://pail", bucket.Options{})
	behind{name: "pail"}.wantError(t, err, bucket.ErrAccessDenied, "")
	if !strings.Contains(err.Error(), "no credentials") {
		t.Error(err)
	}
	t.Setenv("AWS_PROFILE", "nobody")
	_, err = bucket.Open(t.Context(), "s3://pail", bucket.Options{})
	behind{name: "pail"}.wantError(t, err, bucket.ErrInvalid, "")
	if !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
}

func TestALimitOfBytesHolds(t *testing.T) {
	s := emulator.Versity(t)
	b := open(t, s, s.URL, s.CreateBucket(t), bucket.Options{BytesPerSecond: 1 << 20})
	content := buckettest.Content("limited", 1<<20)
	start := time.Now()
	if _, err := b.Put(t.Context(), "object", bytes.NewReader(content), int64(len(content)), bucket.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	body, _, err := b.Get(t.Context(), "object", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// Two MiB at one a second, of which a tenth of a second's is free. Being slow is no fault.
	if took := time.Since(start); took < 1800*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestNoRequestRemovesMoreThanAWSAllows(t *testing.T) {
	s := emulator.Versity(t)
	proxy := faultproxy.NewS3(t, faultproxy.To(t, s.URL))
	b := open(t, s, proxy.URL, s.CreateBucket(t), bucket.Options{})
	keys := make([]string, 2001)
	for i := range keys {
		keys[i] = fmt.Sprint("object ", i)
	}
	if err := b.Delete(t.Context(), keys...); err != nil {
		t.Error(err)
	}
	if n := proxy.Counts()["DeleteObjects"]; n != 3 {
		t.Errorf("%d requests for %d objects", n, len(keys))
	}
}

func TestAStoreWithoutConditionsIsFoundOut(t *testing.T) {
	emulator.Stores(t, func(t *testing.T, s *emulator.Store) {
		b := open(t, s, s.URL, s.CreateBucket(t), bucket.Options{})
		if err := bucket.CheckConditions(t.Context(), b, "probe"); err != nil {
			t.Error(err)
		}
		if _, err := b.Head(t.Context(), "probe"); !errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("the probe is left: %v", err)
		}
		if s.Name == "moto" { // which does not look at signatures
			for _, header := range []string{"If-None-Match", "If-Match"} {
				next := faultproxy.To(t, s.URL)
				proxy := faultproxy.NewS3(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					r.Header.Del(header)
					next.ServeHTTP(w, r)
				}))
				b := open(t, s, proxy.URL, s.CreateBucket(t), bucket.Options{})
				if err := bucket.CheckConditions(t.Context(), b, "probe"); !errors.Is(err, bucket.ErrInvalid) {
					t.Errorf("without %s: %v", header, err)
				}
			}
		}
	})
}
