// Package health observes the members of the pools: it probes each one at its
// interval and tells how it is.
//
// The state machine (state.go) and the timetable (schedule.go) are pure; the
// probes (tcp.go, http.go) touch the network; Observer (observer.go) runs them,
// spread over the interval.
package health

import (
	"net/netip"
	"time"
)

// Target names what is probed: one address of one member. However many
// services share the pool, there is one probe for it.
type Target struct {
	Pool   string
	Member string
	Addr   netip.Addr
}

// Check says how a target is probed. The values are validated by the caller:
// Interval and Timeout are positive, Rise and Fall at least 1, HTTP and Host
// are free of spaces and control characters.
type Check struct {
	// HTTP is the path of a GET request; empty: a TCP connect is enough.
	HTTP string
	// Host is the Host header; empty: the target's address, with the port
	// where that is not 80 (RFC 9110 section 7.2).
	Host string
	Port uint16
	// ExpectStatus are the answers that mean up, DrainStatus those that ask
	// for no new flows. A status in both drains, which is the side that
	// breaks nothing.
	ExpectStatus []int
	DrainStatus  []int
	// Interval is from the start of one probe to the start of the next.
	Interval time.Duration
	// Timeout is for the whole probe: connection and answer together.
	Timeout time.Duration
	// Rise is how many answers in a row bring a target back from Down; Fall
	// is how many failures in a row bring it there.
	Rise int
	Fall int
}

// State is what is known of a target.
type State int

const (
	// Unknown: no probe has ended yet, in an answer or a failure.
	Unknown State = iota
	// Up: fit for new flows.
	Up
	// Draining: the target answers and asks for no new flows.
	Draining
	// Down: Fall probes in a row failed.
	Down
)

// String is the state's name as status, metrics and logs show it.
func (s State) String() string {
	return [...]string{"unknown", "up", "draining", "down"}[s]
}

// Status is what an Observer knows of one target.
type Status struct {
	State State
	// Since is when State was entered.
	Since time.Time
	// FailingSince is when the first of the present unbroken run of failed
	// probes ended; zero while the last probe did not fail. purge_after
	// counts from here.
	FailingSince time.Time
	// LastCheck is when the last probe ended; zero before the first.
	LastCheck time.Time
	// LastAnswer is the last probe's answer in words: "200 OK in 1.2ms",
	// "timeout after 500ms: no connection", "connection refused". It is one
	// short line of printable ASCII, whatever the target sent.
	LastAnswer string
	// Latency of the last probe, from the first packet to its verdict.
	Latency time.Duration
	// Successes and Failures are the present run's length; one of them is 0.
	// An answer that asks for drain is a success here: the target is alive.
	Successes, Failures int
	// ChecksTotal and FailedTotal count since the target was first seen.
	ChecksTotal, FailedTotal uint64
}
