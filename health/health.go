// Package health observes the members of the pools: it probes each one at its
// interval and tells how it is.
//
// The state machine (state.go, mtu.go) and the timetable (schedule.go) are pure;
// the probes (tcp.go, http.go, through.go, fullsize.go) touch the network;
// Observer (observer.go) runs them, spread over the interval.
package health

import (
	"net/netip"
	"time"
)

// Target names what is probed: one address of one member. However many
// services share the pool, there is one probe for it, or two where the address
// takes the packets of VIPs of both families.
type Target struct {
	Pool   string
	Member string
	Addr   netip.Addr
	// OtherFamily tells that the probe is about VIPs of the other address
	// family than Addr's, whose packets the tunnel takes to it all the same.
	OtherFamily bool
}

// IPv6 tells whether the target stands for IPv6 VIPs, or for IPv4 ones.
func (t Target) IPv6() bool { return t.Addr.Is6() != t.OtherFamily }

// String is lb7-1 (192.0.2.139), and lb7-1 (192.0.2.139, IPv6 VIPs) where the
// families differ.
func (t Target) String() string { return t.Member + " (" + t.Where() + ")" }

// Where is what String says behind the member's name.
func (t Target) Where() string {
	if !t.OtherFamily {
		return t.Addr.String()
	}
	family := "IPv4"
	if t.IPv6() {
		family = "IPv6"
	}
	return t.Addr.String() + ", " + family + " VIPs"
}

// Check says how a target is probed. The values are validated by the caller:
// Interval and Timeout are positive, Rise and Fall at least 1, HTTP and Host
// are free of spaces and control characters.
type Check struct {
	// HTTP is the path of a GET request; empty: a TCP connect is enough.
	HTTP string
	// Host is the Host header; empty: the address that the probe connects to,
	// with the port where that is not 80 (RFC 9110 section 7.2).
	Host string
	Port uint16
	// Through leads the probe through the tunnel, as a user's packets go; nil:
	// it goes to the target's own address. The port is the same.
	Through *Through
	// MTURequired makes a target whose tunnel is known not to carry full-size
	// packets fail its check. Otherwise that is a warning. It means nothing
	// without Through.
	MTURequired bool
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
	// PresumedUp tells that the target was up when the probes of an earlier
	// process ended, so that a failure right after a restart weighs no more
	// than it did before.
	PresumedUp bool
}

// Through is the way through the tunnel: the probe connects to the VIP with a
// mark, by which IPVS on this host finds the service that has the target as its
// only destination, and sends the packets there encapsulated. The target
// answers as it answers a user: from the VIP, straight to Source.
//
// The firewall-mark service has to be in the kernel before the first probe.
// Without it the probe would meet the VIP's own service, and some other member
// might answer.
type Through struct {
	VIP netip.Addr
	// Source is the address of this host, of the VIP's family, that the target
	// answers to. It cannot be left to the kernel, which would choose the VIP.
	Source netip.Addr
	// Mark is the firewall mark (SO_MARK, which takes CAP_NET_ADMIN) of the
	// target's service. No two targets share one.
	Mark uint32
	// MTU is the size in bytes of the largest packets that users send; 0:
	// 1500. A larger MTU of the underlay, which is there to make room for the
	// encapsulation, does not belong here.
	MTU int
	// Fault is why there is no way through the tunnel, in words; empty: there
	// is one. With it nothing is sent, and every probe fails with the words.
	Fault string
	// Overhead is what the encapsulation adds to a packet, in bytes; 0: 20 for
	// a target with an IPv4 address (RFC 2003), 40 for one with an IPv6
	// address (RFC 2473). It serves words alone.
	Overhead int
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

// MTUState is what is known of full-size packets on their way through the
// tunnel.
type MTUState int

const (
	// MTUUnknown: not asked yet, not asked at all without Through, or there
	// was no telling.
	MTUUnknown MTUState = iota
	// MTUOK: a full-size packet arrived.
	MTUOK
	// MTUFailed: full-size packets do not arrive.
	MTUFailed
)

// String is the state's name as status and metrics show it.
func (s MTUState) String() string {
	return [...]string{"unknown", "ok", "failed"}[s]
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

	// MTU tells whether full-size packets get through the tunnel. It is a
	// matter apart from State unless Check.MTURequired.
	MTU MTUState
	// MTUSince is when MTU was entered; zero before the first answer.
	MTUSince time.Time
	// MTUAnswer is what the last probe of it found, in words, of the same kind
	// as LastAnswer: "full-size packets (1500 bytes) get through".
	MTUAnswer string
	// MTUFailures is how many probes of it failed in a row, MTUUntold how many
	// found nothing out since something was known.
	MTUFailures, MTUUntold int
}
