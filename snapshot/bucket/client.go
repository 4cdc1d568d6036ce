package bucket

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
)

const (
	// appID names us in the user agent unless the user names something else.
	appID = "kmsfs"
	// defaultRegion is asked where the user names none: it knows where every
	// bucket is.
	defaultRegion = "us-east-1"
	// defaultAttempts and maxBackoff: ten attempts take two minutes at most.
	defaultAttempts = 10
	maxBackoff      = 20 * time.Second
)

// connect makes the client, and finds the bucket and its region. Who may not ask
// whether there is a bucket may still use it.
func (s *store) connect(ctx context.Context) error {
	loaded, err := load(ctx, s.o)
	if err != nil {
		return s.translate(ctx, "open", "", err, nil)
	}
	chain := credentials{loaded.Credentials}
	loaded.Credentials, s.renew = chain, chain.renew
	s.client = s3.NewFromConfig(*loaded, adjust)
	region, err := s.headBucket(ctx)
	own := s.client.Options().BaseEndpoint != nil // which is wherever it says
	if region != "" && region != loaded.Region && !own {
		loaded.Region = region
		s.client = s3.NewFromConfig(*loaded, adjust)
		_, err = s.headBucket(ctx)
	}
	if e, ok := err.(*Error); ok && e.Err == ErrAccessDenied && (e.Code == "Forbidden" || e.Code == "AccessDenied") {
		return nil
	}
	return err
}

// headBucket asks for the bucket, and returns its region if the answer says it.
func (s *store) headBucket(ctx context.Context) (region string, err error) {
	err = s.ask(ctx, "open", "", func(a *attempts) error {
		out, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.name}, a.use)
		var answer *awshttp.ResponseError
		if err == nil {
			region = aws.ToString(out.BucketRegion)
		} else if errors.As(err, &answer) && answer.Response != nil {
			region = answer.Response.Header.Get("X-Amz-Bucket-Region")
		}
		return err
	})
	if e, ok := err.(*Error); ok && e.Err == ErrNotFound {
		e.Err, e.hint = ErrNoBucket, hintBucket
	}
	return region, err
}

// ask makes a HEAD request. The answer to one has no body, so where it was
// refused a list is asked for too, which says why; credentials are renewed by
// that if they have expired.
func (s *store) ask(ctx context.Context, op, key string, head func(*attempts) error) error {
	a := s.attempts()
	err := head(a)
	if err == nil {
		return nil
	}
	failure := s.translate(ctx, op, key, err, a)
	if status := statusOf(err); status != http.StatusBadRequest && status != http.StatusForbidden {
		return failure
	}
	b := s.attempts()
	_, why := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.name, Prefix: &s.prefix, MaxKeys: aws.Int32(1)}, b.use)
	if why == nil {
		a = s.attempts()
		if err = head(a); err != nil {
			return s.translate(ctx, op, key, err, a)
		}
		return nil
	}
	listed, said := s.translate(ctx, op, key, why, b), failure.(*Error)
	if e := listed.(*Error); e.Code != "" && e.Err != ErrNoBucket {
		e.RequestID = said.RequestID
		return e
	}
	return failure
}

// adjust is for what the configuration cannot say.
func adjust(o *s3.Options) {
	o.UsePathStyle = o.UsePathStyle || o.BaseEndpoint != nil
	// Bodies are verified by body, across lost connections; the SDK cannot.
	o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
}

// load reads the SDK's configuration.
func load(ctx context.Context, o Options) (*aws.Config, error) {
	var client config.HTTPClient = limited()
	if o.client != nil {
		client = o.client
	}
	loaded, err := config.LoadDefaultConfig(ctx, config.WithDefaultRegion(defaultRegion), config.WithHTTPClient(client))
	if err != nil {
		return nil, &configError{err}
	}
	loaded.ClientLogMode = 0
	loaded.Logger = logging.Nop{}
	if loaded.AppID == "" {
		loaded.AppID = appID
	}
	loaded.HTTPClient = newTransport(loaded.HTTPClient, o)
	mode, limit := loaded.RetryMode, loaded.RetryMaxAttempts
	if limit == 0 {
		limit = defaultAttempts
	}
	// What is set here would be put around the retryer as another limit.
	loaded.RetryMaxAttempts = 0
	retryer := newRetryer(mode, limit) // one: the adaptive mode learns from all calls
	loaded.Retryer = func() aws.Retryer { return retryer }
	return &loaded, nil
}

// newRetryer is the SDK's own, with our limits and without its quota: objects
// that are sent for hours meet more faults than a quota foresees.
func newRetryer(mode aws.RetryMode, attempts int) aws.RetryerV2 {
	standard := func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff, o.RateLimiter = attempts, maxBackoff, ratelimit.None
	}
	if mode == aws.RetryModeAdaptive {
		return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) { o.StandardOptions = append(o.StandardOptions, standard) })
	}
	return retry.NewStandard(standard)
}

// configError is a configuration that cannot be read.
type configError struct{ err error }

func (e *configError) Error() string { return "read the AWS configuration: " + e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

// credentials marks the failures of a chain of credentials, so that they are
// not taken for failures of the store.
type credentials struct{ chain aws.CredentialsProvider }

func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := c.chain.Retrieve(ctx)
	if err != nil {
		return found, &credentialsError{err}
	}
	return found, nil
}

// renew makes the chain forget what it has.
func (c credentials) renew() {
	if cached, ok := c.chain.(interface{ Invalidate() }); ok {
		cached.Invalidate()
	}
}

type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }
