// Package awsclient prepares the configuration of clients of AWS: region and
// credentials from where AWS's own tools take them, answers that end, and a way
// around a race of the SDK.
package awsclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/logging"
)

// Options say what differs between clients.
type Options struct {
	// Region is one such as eu-west-1; empty: that of the environment, or of
	// the instance that this runs on.
	Region string
	// Endpoint is the URL of another API than AWS's; empty: AWS's.
	Endpoint string
	// Attempts is how often a request is made before its failure is one, and
	// MaxBackoff the longest pause between two of them.
	Attempts   int
	MaxBackoff time.Duration
	// MaxBytes bounds a request and an answer.
	MaxBytes int64
}

// Load finds the region and the credentials: the environment, the files in
// ~/.aws, the role of the container or instance. It asks nobody, but the host's
// metadata service where the region is nowhere else.
func Load(ctx context.Context, o Options) (aws.Config, error) {
	region := config.WithRegion(o.Region)
	if o.Region == "" {
		region = config.WithEC2IMDSRegion()
	}
	retryer := func() aws.Retryer {
		return retry.NewStandard(func(s *retry.StandardOptions) {
			s.MaxAttempts = o.Attempts
			s.MaxBackoff = o.MaxBackoff
		})
	}
	// Its own logger would write to the daemon's stderr.
	settings, err := config.LoadDefaultConfig(ctx, region, config.WithRetryer(retryer), config.WithLogger(logging.Nop{}))
	if err != nil {
		return aws.Config{}, err
	}
	if settings.Region == "" {
		return aws.Config{}, errors.New("no region is known")
	}
	// One is there where the environment has a CA bundle for it.
	if settings.HTTPClient == nil {
		settings.HTTPClient = awshttp.NewBuildableClient()
	}
	settings.HTTPClient = bounded{settings.HTTPClient, o.MaxBytes}
	if o.Endpoint != "" {
		settings.BaseEndpoint = &o.Endpoint
	}
	return settings, nil
}

// bounded is a client whose answers end, with an error, at max bytes.
type bounded struct {
	client aws.HTTPClient
	max    int64
}

// Do makes one request.
func (b bounded) Do(request *http.Request) (*http.Response, error) {
	// The SDK closes the body of a request as soon as it has the head of the
	// answer. Where net/http is not quite done with it then, it closes the
	// connection under the answer: a known race of the two, seen in one of a
	// hundred answers that take several reads. So net/http gets a body that
	// nobody else has.
	if request.Body != nil && request.Body != http.NoBody {
		form, err := io.ReadAll(io.LimitReader(request.Body, b.max))
		if err != nil {
			return nil, err
		}
		own := *request
		own.Body = io.NopCloser(bytes.NewReader(form))
		request = &own
	}
	response, err := b.client.Do(request)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, b.max)
	}
	return response, err
}
