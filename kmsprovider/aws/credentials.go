package aws

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// credentials marks the failures of a chain of credentials, so that they are
// not taken for failures of the KMS: an instance's metadata service that does
// not answer, for one, says that there are none.
type credentials struct{ chain aws.CredentialsProvider }

func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := c.chain.Retrieve(ctx)
	if err != nil {
		return found, &credentialsError{err}
	}
	return found, nil
}

type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }
