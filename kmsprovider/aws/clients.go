package aws

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/logging"
)

// appID names us in the user agent, and so in CloudTrail, unless the user names
// something else.
const appID = "kmsfs"

// clients makes the client of a region when it is first asked for. Connections
// and credentials are shared by all.
type clients struct {
	mu        sync.Mutex
	config    *aws.Config // nil until loaded
	transport transport   // config's
	byRegion  map[string]*kms.Client
}

// in returns the client of a region. Loading the configuration reads files, and
// is tried again after it failed.
func (c *clients) in(ctx context.Context, region string) (*kms.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if client := c.byRegion[region]; client != nil {
		return client, nil
	}
	if c.config == nil {
		loaded, err := load(ctx, region)
		if err != nil {
			return nil, err
		}
		c.config, c.transport = loaded, transport{freeze(loaded.HTTPClient)}
		c.byRegion = make(map[string]*kms.Client)
	}
	client := kms.NewFromConfig(*c.config, func(o *kms.Options) {
		o.Region = region
		o.HTTPClient = c.transport
	})
	c.byRegion[region] = client
	return client, nil
}

// load reads the SDK's configuration. Where it has no region, the services that
// give credentials are asked in that of the first key.
func load(ctx context.Context, region string) (*aws.Config, error) {
	loaded, err := config.LoadDefaultConfig(ctx, config.WithDefaultRegion(region), config.WithHTTPClient(limited()))
	if err != nil {
		return nil, &configError{err}
	}
	loaded.Credentials = credentials{loaded.Credentials}
	loaded.ClientLogMode = 0 // requests and answers hold keys
	loaded.Logger = logging.Nop{}
	if loaded.AppID == "" {
		loaded.AppID = appID
	}
	mode, limit := loaded.RetryMode, loaded.RetryMaxAttempts
	if limit == 0 {
		limit = math.MaxInt // the deadline ends it
	}
	// What is set here would be put around the retryer as another limit.
	loaded.RetryMaxAttempts = 0
	loaded.Retryer = func() aws.Retryer { return newRetryer(mode, limit) }
	return &loaded, nil
}

// newRetryer is the SDK's own, with our limits.
func newRetryer(mode aws.RetryMode, attempts int) aws.RetryerV2 {
	standard := func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, maxBackoff }
	if mode == aws.RetryModeAdaptive {
		return retry.NewAdaptiveMode(func(o *retry.AdaptiveModeOptions) { o.StandardOptions = append(o.StandardOptions, standard) })
	}
	return retry.NewStandard(standard)
}

// close closes idle connections.
func (c *clients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.config != nil {
		c.transport.close()
	}
}

// configError is a configuration that cannot be read.
type configError struct{ err error }

func (e *configError) Error() string {
	var profile config.SharedConfigProfileNotExistError
	if errors.As(e.err, &profile) {
		return fmt.Sprintf("the AWS profile %q does not exist", profile.Profile)
	}
	return "read the AWS configuration: " + e.err.Error()
}
