package lb7

import (
	"slices"
	"strings"

	"lb4d/config"
	"lb4d/discovery"
	"lb4d/discovery/asg"
	"lb4d/l7"
	"lb4d/l7/slots"
)

// sourceOf is the source that a configuration means.
func sourceOf(s config.Source) discovery.Source {
	switch {
	case s.HTTP != nil:
		return discovery.HTTP{URL: s.HTTP.URL, Interval: s.HTTP.Interval, Timeout: s.HTTP.Timeout, Wait: s.HTTP.Wait, TokenFile: s.HTTP.TokenFile}
	case s.DNS != nil:
		return discovery.DNS{Name: s.DNS.Name, Servers: s.DNS.Servers, Family: s.DNS.Family, MinTTL: s.DNS.MinTTL, MaxTTL: s.DNS.MaxTTL, Timeout: s.DNS.Timeout}
	case s.AWS != nil:
		return asg.Source{Groups: s.AWS.Groups, Port: s.AWS.Port, Region: s.AWS.Region, Endpoint: s.AWS.Endpoint, Interval: s.AWS.Interval, Timeout: s.AWS.Timeout}
	case s.Consul != nil:
		return discovery.Consul{URL: s.Consul.URL, Service: s.Consul.Service, Datacenter: s.Consul.Datacenter, Tag: s.Consul.Tag, Wait: s.Consul.Wait, Timeout: s.Consul.Timeout, TokenFile: s.Consul.TokenFile}
	}
	return discovery.File{Path: s.File.Path}
}

// policyOf is how the slots of a record are given.
func policyOf(b config.Backend) slots.Policy {
	return slots.Policy{
		Slots: b.Slots, Rest: b.SlotRest,
		MaxShrink: b.MaxShrink, Persist: b.ShrinkAfter,
		Weight: b.Weight,
		Ramp:   slots.Ramp{From: b.Ramp.From, Step: b.Ramp.Step, Every: b.Ramp.Every},
	}
}

// filterOf selects the back end's servers out of the record that it shares with
// some of all.
func filterOf(b config.Backend, all []config.Backend) slots.Filter {
	switch {
	case !b.Fallback:
		return slots.Filter{Groups: b.Groups}
	case b.All:
		return slots.Filter{}
	}
	f := slots.Filter{Rest: true}
	for _, o := range all {
		if o.Name != b.Name && o.Record() == b.Record() {
			f.Groups = append(f.Groups, o.Groups...)
		}
	}
	slices.Sort(f.Groups)
	f.Groups = slices.Compact(f.Groups)
	return f
}

// takes says in words which servers a filter selects.
func takes(f slots.Filter) string {
	switch {
	case f.Rest:
		return "all but groups " + strings.Join(f.Groups, " ")
	case len(f.Groups) > 0:
		return "groups " + strings.Join(f.Groups, " ")
	}
	return "all"
}

// includeOf is the file for HAProxy's next start; false where there is none.
func includeOf(b config.Backend, size int) (l7.Include, bool) {
	if b.Include == nil {
		return l7.Include{}, false
	}
	return l7.Include{Path: b.Include.File, Head: b.Include.Head, Prefix: b.Prefix, Options: b.Include.Options, Slots: size}, true
}

// listOf is a source's list as slots are given to it. A server is known by its
// name.
func listOf(servers []discovery.Server) []slots.Server {
	list := make([]slots.Server, len(servers))
	for i, s := range servers {
		weight := s.Weight
		if weight == 0 { // the source names none; one of 0 has become Excluded
			weight = slots.NoWeight
		}
		list[i] = slots.Server{
			ID: s.Name, Name: s.Name, Addr: s.Addr, Port: int(s.Port),
			Group: s.Group, Zone: s.Zone, Weight: weight, Exclude: s.Excluded,
		}
	}
	return list
}
