// Package asg takes the servers of a back end from AWS: the instances of Auto
// Scaling groups that are in service and healthy.
//
// It is a package of its own because the client of EC2 is larger than all the
// rest together.
package asg

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"lb4d/discovery"
	"lb4d/internal/awsclient"
)

const (
	// attempts is how often a request is made before its failure is one, and
	// maxBackoff the longest pause between two of them. AWS throttles a whole
	// account, so patience helps everybody; when it is over, the last list
	// stays, and the next attempt follows the pace of discovery.Poll.
	attempts   = 4
	maxBackoff = 5 * time.Second
)

// Source is the instances of some Auto Scaling groups.
//
// A server is named by the ID of its instance. Its address is the private IPv4
// address, or the IPv6 address where it has no other; its zone is the
// availability zone, its group the Auto Scaling group. The instance's tags
// exclude_from_loadbalancer and weight are its labels.
//
// A group that does not exist is refused by name, and the others are applied:
// somebody has removed it, and its instances with it. Where none exists, the
// account or the region is the wrong one, and that is a failure.
//
// Credentials come from where AWS's own tools take them: the environment, the
// files in ~/.aws, the role of the container or instance. They need
// autoscaling:DescribeAutoScalingGroups and ec2:DescribeInstances.
//
// The values are validated by the caller: there is a group, Port is not 0, the
// durations are positive.
type Source struct {
	// Groups are the names of the groups.
	Groups []string
	// Port is that of all servers.
	Port uint16
	// Region is one such as eu-west-1; empty: that of the environment, or of
	// the instance that this runs on.
	Region string
	// Endpoint is the URL of another API than AWS's; empty: AWS's.
	Endpoint string
	// Interval is from one list to the next.
	Interval time.Duration
	// Timeout is for all requests of one list together.
	Timeout time.Duration
}

// String names the groups.
func (s Source) String() string { return "aws_asg " + strings.Join(s.Groups, " ") }

// Run asks until ctx ends.
func (s Source) Run(ctx context.Context, tell func([]discovery.Entry, error)) {
	s.run(ctx, maxBackoff, tell)
}

// run is Run with the longest pause between two attempts.
func (s Source) run(ctx context.Context, pause time.Duration, tell func([]discovery.Entry, error)) {
	var api *clients
	discovery.Poll(ctx, s.Interval, func(ctx context.Context) ([]discovery.Entry, error) {
		ctx, cancel := context.WithTimeout(ctx, s.Timeout)
		defer cancel()
		if api == nil {
			var err error
			if api, err = s.connect(ctx, pause); err != nil {
				return nil, s.explained("preparing to ask AWS", err)
			}
		}
		return s.ask(ctx, api)
	}, tell)
}

// clients speak to the two services that know half of it each: Auto Scaling
// which instances are in service, EC2 where they are.
type clients struct {
	autoscaling *autoscaling.Client
	ec2         *ec2.Client
}

// connect finds the region and the credentials. It asks nobody, but the host's
// metadata service where the region is nowhere else.
func (s Source) connect(ctx context.Context, pause time.Duration) (*clients, error) {
	settings, err := awsclient.Load(ctx, awsclient.Options{
		Region: s.Region, Endpoint: s.Endpoint,
		Attempts: attempts, MaxBackoff: pause, MaxBytes: discovery.MaxBytes,
	})
	if err != nil {
		return nil, err
	}
	return &clients{autoscaling.NewFromConfig(settings), ec2.NewFromConfig(settings)}, nil
}

// explained is an error of the API in one short sentence. What the library makes
// of it has the number of the request in it, which is another each time.
func (s Source) explained(doing string, err error) error {
	var fault smithy.APIError
	var response *smithyhttp.ResponseError
	var long *http.MaxBytesError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: timeout after %v", doing, s.Timeout)
	case errors.As(err, &long):
		return fmt.Errorf("%s: an answer has more than %d bytes", doing, long.Limit)
	case errors.As(err, &fault) && fault.ErrorCode() != "UnknownError":
		return fmt.Errorf("%s: %s: %s", doing, fault.ErrorCode(), fault.ErrorMessage())
	case errors.As(err, &response):
		status := response.HTTPStatusCode()
		return fmt.Errorf("%s: it answered %d %s: %w", doing, status, http.StatusText(status), response.Err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
