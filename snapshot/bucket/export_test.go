package bucket

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// What tests change of Options.

func (o Options) WithStall(d time.Duration) Options { o.stall = d; return o }

func (o Options) WithStray(d time.Duration) Options { o.stray = d; return o }

func (o Options) WithClient(c aws.HTTPClient) Options { o.client = c; return o }

// PartSizeOf and ParseURL are what they are within.
var (
	PartSizeOf = partSizeOf
	ParseURL   = parseURL
)
