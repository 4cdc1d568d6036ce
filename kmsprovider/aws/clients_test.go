package aws

import (
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

func TestTheSDKsEnvironmentChoosesTheEndpoint(t *testing.T) {
	for name, value := range map[string]string{"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_PROFILE": "", "AWS_ENDPOINT_URL": ""} {
		t.Setenv(name, value)
	}
	for _, c := range []struct{ fips, url, region, want string }{
		{"", "", "eu-central-1", "https://kms.eu-central-1.amazonaws.com"},
		{"true", "", "us-east-1", "https://kms-fips.us-east-1.amazonaws.com"},
		{"true", "", "us-gov-west-1", "https://kms-fips.us-gov-west-1.amazonaws.com"},
		{"", "", "cn-north-1", "https://kms.cn-north-1.amazonaws.com.cn"},
		{"", "http://127.0.0.1:4599", "eu-central-1", "http://127.0.0.1:4599"},
	} {
		t.Setenv("AWS_USE_FIPS_ENDPOINT", c.fips)
		t.Setenv("AWS_ENDPOINT_URL_KMS", c.url)
		var all clients
		client, err := all.in(t.Context(), c.region)
		if err != nil {
			t.Fatal(err)
		}
		o := client.Options()
		params := kms.EndpointParameters{Region: &o.Region, UseFIPS: sdk.Bool(o.EndpointOptions.UseFIPSEndpoint == sdk.FIPSEndpointStateEnabled), Endpoint: o.BaseEndpoint}
		endpoint, err := o.EndpointResolverV2.ResolveEndpoint(t.Context(), params)
		if err != nil || endpoint.URI.String() != c.want {
			t.Errorf("%+v: %s, %v", c, endpoint.URI.String(), err)
		}
		if o.ClientLogMode != 0 {
			t.Errorf("%+v: the SDK would log %v", c, o.ClientLogMode)
		}
		if again, err := all.in(t.Context(), c.region); err != nil || again != client {
			t.Errorf("%+v: another client the second time, %v", c, err)
		}
		all.close()
	}
}
