package asg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	compute "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"lb4d/discovery"
)

// What the APIs take at most.
const (
	namesAtOnce  = 50  // groups named in one request
	groupsAtOnce = 100 // groups on one page
	idsAtOnce    = 200 // values of one filter
	hostsAtOnce  = 200 // instances on one page
)

// maxPages bounds an API that always has one more page.
const maxPages = 1000

// member is an instance that its group has in service.
type member struct {
	id, group, zone string
}

// ask makes one list.
func (s Source) ask(ctx context.Context, api *clients) ([]discovery.Entry, error) {
	members, missing, err := s.members(ctx, api.autoscaling)
	if err != nil {
		return nil, s.explained("asking Auto Scaling for its groups", err)
	}
	if len(missing) == len(s.Groups) {
		return nil, fmt.Errorf("asking Auto Scaling for its groups: none of this name is in the region: %q", s.Groups)
	}
	instances, err := instances(ctx, api.ec2, members)
	if err != nil {
		return nil, s.explained("asking EC2 for instances", err)
	}
	entries := make([]discovery.Entry, 0, len(members)+len(missing))
	for _, m := range members {
		entries = append(entries, s.entry(m, instances[m.id]))
	}
	for _, name := range missing {
		entries = append(entries, discovery.Entry{Name: name, Fault: "there is no Auto Scaling group of this name"})
	}
	return entries, nil
}

// members are the instances in service and healthy, and the groups that do not
// exist, of which the API says nothing.
func (s Source) members(ctx context.Context, api *autoscaling.Client) (members []member, missing []string, err error) {
	missing = slices.Compact(slices.Sorted(slices.Values(s.Groups)))
	for names := range slices.Chunk(slices.Clone(missing), namesAtOnce) {
		pages := autoscaling.NewDescribeAutoScalingGroupsPaginator(api, &autoscaling.DescribeAutoScalingGroupsInput{
			AutoScalingGroupNames: names,
			MaxRecords:            aws.Int32(groupsAtOnce),
		})
		for n := 0; pages.HasMorePages(); n++ {
			if n == maxPages {
				return nil, nil, errTooManyPages
			}
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, nil, err
			}
			for _, group := range page.AutoScalingGroups {
				name := aws.ToString(group.AutoScalingGroupName)
				missing = slices.DeleteFunc(missing, func(m string) bool { return m == name })
				members = append(members, inService(name, group.Instances)...)
			}
			if len(members) > discovery.MaxServers {
				return nil, nil, fmt.Errorf("there are %d instances or more, and %d is the most", len(members), discovery.MaxServers)
			}
		}
	}
	return members, missing, nil
}

var errTooManyPages = errors.New("the answer has no last page")

// inService are the instances of a group that are to have traffic. One in
// standby, or one that a lifecycle hook still holds, is not.
func inService(group string, instances []scaling.Instance) []member {
	var members []member
	for _, instance := range instances {
		if instance.LifecycleState == scaling.LifecycleStateInService && aws.ToString(instance.HealthStatus) == "Healthy" {
			members = append(members, member{
				id:    aws.ToString(instance.InstanceId),
				group: group,
				zone:  aws.ToString(instance.AvailabilityZone),
			})
		}
	}
	return members
}

// instances are what EC2 knows of the members, by ID. They are asked for by a
// filter: asked for by ID, one that is gone would fail the request for all.
func instances(ctx context.Context, api *ec2.Client, members []member) (map[string]compute.Instance, error) {
	known := make(map[string]compute.Instance, len(members))
	for some := range slices.Chunk(members, idsAtOnce) {
		ids := make([]string, 0, len(some))
		for _, m := range some {
			ids = append(ids, m.id)
		}
		pages := ec2.NewDescribeInstancesPaginator(api, &ec2.DescribeInstancesInput{
			Filters:    []compute.Filter{{Name: aws.String("instance-id"), Values: ids}},
			MaxResults: aws.Int32(hostsAtOnce),
		})
		for n := 0; pages.HasMorePages(); n++ {
			if n == maxPages {
				return nil, errTooManyPages
			}
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, err
			}
			for _, reservation := range page.Reservations {
				for _, instance := range reservation.Instances {
					known[aws.ToString(instance.InstanceId)] = instance
				}
			}
		}
	}
	return known, nil
}

// entry is the server that an instance is.
func (s Source) entry(m member, instance compute.Instance) discovery.Entry {
	entry := discovery.Entry{
		Name:   m.id,
		Labels: map[string]string{discovery.LabelGroup: m.group, discovery.LabelZone: m.zone},
	}
	for _, tag := range instance.Tags {
		switch key := aws.ToString(tag.Key); key {
		case discovery.LabelExclude, discovery.LabelWeight:
			entry.Labels[key] = aws.ToString(tag.Value)
		}
	}
	address := aws.ToString(instance.PrivateIpAddress)
	if address == "" {
		address = aws.ToString(instance.Ipv6Address)
	}
	switch {
	case instance.InstanceId == nil:
		// Auto Scaling hears of the end of an instance some seconds late.
		entry.Fault = "EC2 has no such instance"
	case instance.State == nil || instance.State.Name != compute.InstanceStateNameRunning:
		entry.Fault = "EC2 says that it is not running"
		if instance.State != nil {
			entry.Fault += " but " + string(instance.State.Name)
		}
	case address == "":
		entry.Fault = "it has no private address"
	default:
		entry.Target = net.JoinHostPort(address, strconv.Itoa(int(s.Port)))
	}
	return entry
}
