// Package bgp announces routes to the routers through an embedded GoBGP
// speaker. It keeps a set: what is in the set is announced to every peer, what
// leaves it is withdrawn.
package bgp

import (
	"net/netip"
	"time"
)

// GracefulShutdown is the well-known community 65535:0 of RFC 8326: the
// peer should prefer any other path, because this one is about to go.
const GracefulShutdown uint32 = 0xFFFF0000

// Options are what the speaker is started with. A change of any of them
// needs a restart of the process.
type Options struct {
	AS         uint32
	RouterID   netip.Addr
	ListenPort int // 0: only call out
}

// Peer is one neighbour.
type Peer struct {
	Name     string
	Address  netip.Addr
	Port     int
	AS       uint32
	Password string // TCP MD5 key; empty: none
	HoldTime time.Duration
}

// Route is one announced prefix with its attributes. The next hop is this
// host.
type Route struct {
	Prefix      netip.Prefix
	Communities []uint32 // RFC 1997, sorted
}

// PeerStatus is what is known of one session.
type PeerStatus struct {
	Name    string
	Address netip.Addr
	AS      uint32
	// State is the FSM state of RFC 4271 section 8.2.2 in lower case: idle,
	// connect, active, opensent, openconfirm, established.
	State string
	// Since is when State was entered.
	Since time.Time
	// Advertised counts the routes sent to the peer and not withdrawn.
	Advertised int
	// LastError is why the session is not up, where known.
	LastError string
}
