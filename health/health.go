// Package health observes the members of the pools: it probes each one at its
// interval and tells how it is.
//
// The state machine (state.go) is pure; the probes (http.go, tcp.go) touch the
// network; Observer runs them, spread over the interval.
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

// Check says how a target is probed. The values are validated by the caller.
type Check struct {
	HTTP         string // path of a GET request; empty: a TCP connect is enough
	Host         string // Host header; empty: the target's address
	Port         uint16
	ExpectStatus []int
	DrainStatus  []int
	Interval     time.Duration
	Timeout      time.Duration
	Rise         int
	Fall         int
}

// State is what is known of a target.
type State int

const (
	// Unknown: no probe has been answered or has timed out yet.
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
	// FailingSince is the start of the present unbroken run of failed
	// probes; zero while the last probe did not fail. purge_after counts
	// from here.
	FailingSince time.Time
	// LastCheck is when the last probe ended; zero before the first.
	LastCheck time.Time
	// LastAnswer is the last probe's answer in words: "200 OK in 1ms",
	// "timeout after 500ms", "connection refused".
	LastAnswer string
	// Latency of the last probe.
	Latency time.Duration
	// Successes and Failures are the present run's length; one of them is 0.
	Successes, Failures int
	// ChecksTotal and FailedTotal count since the target was first seen.
	ChecksTotal, FailedTotal uint64
}
