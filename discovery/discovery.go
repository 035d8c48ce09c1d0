// Package discovery observes where the servers of a back end come from: a file,
// an HTTP endpoint, the DNS, Consul, or a cloud (package asg).
//
// A Source tells what it is given, unchecked, as entries. They all pass through
// one gate (sift.go), which lets through what HAProxy can be given and refuses
// the rest by name. Observer (observer.go) runs the sources, and keeps for each
// back end the last list that came out well: while the source fails, across a
// reload that changes the source, and, in the state directory (keep.go), across
// a restart.
package discovery

import (
	"context"
	"net/netip"
	"time"
)

// The limits of a list. What is beyond them is a fault of the source, not a
// large site: the list before stays in force, because there is no telling which
// part of the new one is meant.
const (
	// MaxServers is how many entries a list may have.
	MaxServers = 4096
	// MaxBytes is how long a file or the body of an answer may be.
	MaxBytes = 16 << 20
)

// The labels that mean something. All others are ignored, the __meta_ ones of
// Prometheus among them. An empty value is no label, as in Prometheus.
const (
	// LabelName names a server; without it the server's name is its address
	// and port.
	LabelName = "name"
	// LabelWeight is a whole number from 0 to 256, HAProxy's range.
	LabelWeight = "weight"
	// LabelZone and LabelGroup are words of the site's own.
	LabelZone  = "zone"
	LabelGroup = "group"
	// LabelExclude is true or false (also 1, 0, yes, no).
	LabelExclude = "exclude_from_loadbalancer"
)

// Server is one server of a back end, fit to be given to HAProxy.
type Server struct {
	// Name tells the servers of a list apart and is what a server is known
	// by from one list to the next. It has 1 to 255 of the characters that
	// HAProxy takes in a server's name: letters, digits, and . _ : -
	Name string
	// Addr is a unicast address without a zone; an IPv4 address is never
	// in its IPv6 form.
	Addr netip.Addr
	// Port is not 0.
	Port uint16
	Labels
}

// Labels are what a source says of a server beyond where it is.
type Labels struct {
	// Weight is 1 to 256, and 0 where the source gives none.
	Weight int
	// Zone and Group are at most 255 graphic ASCII characters, without
	// spaces, quotes, backslashes and ; # < >. Group is the Auto Scaling
	// group, the priority of an SRV record, or the label.
	Zone, Group string
	// Excluded: the server is to get no new work and to keep its place. A
	// label weight of 0 means the same, as it does in HAProxy.
	Excluded bool
}

// List is what a source gave, checked.
type List struct {
	// Servers are sorted by Name. No two have the same name, or the same
	// address and port.
	Servers []Server
	// At is when the source last gave this list or confirmed it; zero: no
	// list is known.
	At time.Time
	// Source is where the list came from, in words.
	Source string
	// Refused are the entries that are not among Servers: the first 32 in
	// their order. RefusedTotal counts them all.
	Refused      []Refusal
	RefusedTotal int
}

// Refusal is one entry that cannot be a server.
type Refusal struct {
	// Entry is its name or target, one short word of printable ASCII; what
	// is long is cut, what is odd is quoted.
	Entry string
	// Reason is a sentence, printable ASCII too.
	Reason string
}

// State is what is known of the servers of one back end.
type State struct {
	// Source is where they come from now. List.Source differs after a change
	// of source, until the new one has answered.
	Source string
	// List is the last good one. An empty list with a time is one that the
	// source gave.
	List List
	// Restored: List is of the time before, read from the state directory
	// or kept from an earlier Set, and the source has not given one since.
	// Whoever shares what it knows with others asks this before it tells
	// them.
	Restored bool
	// Err is why the last attempt failed, one line of printable ASCII; nil
	// after a success. FailingSince is when the first of the present run of
	// failures ended, zero after a success.
	Err          error
	FailingSince time.Time
	// SaveErr is why the list is not kept in the state directory; nil when
	// it is.
	SaveErr error
	// Answers and Failures count attempts since the source was set: those
	// that gave a list, and those that did not.
	Answers, Failures uint64
}

// Age is how long ago the source last gave the list or confirmed it; 0 where no
// list is known. It is never negative, whatever the clock does.
func (s State) Age() time.Duration {
	if s.List.At.IsZero() {
		return 0
	}
	return max(0, time.Since(s.List.At))
}

// Entry is one server as its source gives it: nothing of it is checked.
type Entry struct {
	// Name may be empty: the address and port then serve.
	Name string
	// Target is ADDRESS:PORT, with an IPv6 address in brackets.
	Target string
	// Labels may be shared by several entries and are not written to.
	Labels map[string]string
	// Fault is a reason of the source's own to refuse the entry.
	Fault string
}

// Source is where the servers of one back end come from. Its values are its
// configuration: two that reflect.DeepEqual finds equal are the same source.
type Source interface {
	// Run asks until ctx ends, and not less. It calls tell, from one
	// goroutine, with each list that it is given, also when it is the same
	// as before, because that confirms it; and with an error for each
	// attempt that gave none. A list is always complete. It is not written
	// to once it is told.
	Run(ctx context.Context, tell func([]Entry, error))
	// String is the source in words, such as "file /etc/lb/servers.json". No
	// secret is in it.
	String() string
}
