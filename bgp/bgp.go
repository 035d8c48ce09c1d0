// Package bgp announces routes to the routers through an embedded GoBGP
// speaker. It keeps a set: what is in the set is announced to every peer, what
// leaves it is withdrawn.
//
// The work is shared with GoBGP in this way. GoBGP owns the protocol: the
// messages, the table, who is sent what. This package owns the TCP
// connections: it dials and accepts them, and hands each one to GoBGP for as
// long as it lasts. GoBGP on its own waits 1.5 to 2 s before it first dials,
// 5 s more after a session was lost, and keeps what a peer said when it refused
// a session to itself; here the first dial is immediate, the next one follows
// within about a second, and every NOTIFICATION ends up in words in PeerStatus
// and in the log.
//
// Of what peers announce nothing is kept but the paths of other hosts to the
// VIPs (Sibling). All else is dropped as it comes off the wire, so that a full
// table costs no memory.
//
// Routes and peers may be set in any order, before or after one another: a
// peer is added to GoBGP when its connection is up, and SetPeers brings the
// table up to date first, so the first thing a new session sends is the
// complete set.
package bgp

import (
	"net/netip"
	"time"
)

// GracefulShutdown is the well-known community 65535:0 of RFC 8326: the
// peer should prefer any other path, because this one is about to go.
const GracefulShutdown uint32 = 0xFFFF0000

// Options are what the speaker is started with. A change of any of them
// needs a restart of the process: GoBGP cannot be started a second time.
type Options struct {
	// AS is the autonomous system of this host, 1 to 4294967294.
	AS uint32
	// RouterID is an IPv4 address that no other speaker uses, RFC 4271
	// section 1.1.
	RouterID netip.Addr
	// ListenPort is the TCP port for connections that a peer opens, on every
	// local address. 0: only call out, nothing is opened.
	ListenPort int
	// Preserved are the families in which this host has gone on forwarding
	// what a process before this one announced. 0: neither. Peers that agreed
	// to it (Peer.GracefulRestart) still have those routes, and are told to
	// keep them until they have heard the new ones. They drop those of another
	// family as soon as the session is up.
	Preserved Families
}

// Families are address families; unicast is meant each time.
type Families uint8

// The families. A peer with none of them is one with both.
const (
	IPv4 Families = 1 << iota
	IPv6
)

// Peer is one neighbour. Its address is its identity.
type Peer struct {
	// Name is what status and log call the peer.
	Name string
	// Address is where the peer listens, and where its connections come from.
	Address netip.Addr
	// Port is the TCP port that the peer listens on. 0: 179.
	Port int
	// AS is the peer's autonomous system. The speaker's own makes the session
	// internal (iBGP), any other external.
	AS uint32
	// Passive leaves it to the peer to call. Options.ListenPort is then needed.
	Passive bool
	// Source is the local address of the session, of the family of Address.
	// Calls leave from it, and the peer's calls to another one are refused.
	// Invalid: any.
	Source netip.Addr
	// Multihop is how many hops away the peer may be, 1 to 255; 1 is on a
	// connected network. It bounds the TTL of packets to external peers, and
	// with TTLSecurity to all. 0: 1.
	Multihop int
	// TTLSecurity is the mechanism of RFC 5082: packets leave with a TTL of
	// 255, and those that arrive with less than what Multihop hops leave of
	// that are dropped by the kernel. The peer must do likewise.
	TTLSecurity bool
	// Families are those that the session carries. 0: both.
	Families Families
	// Siblings has the session tell of other hosts' paths to the VIPs: the peer
	// is asked for all paths (RFC 7911), not its best one alone.
	Siblings bool
	// PrefixLimit is how many different prefixes that are no VIPs the peer may
	// announce in one session before the log and PeerStatus warn of it, to
	// within some percent; at most MaxPrefixLimit. 0: any number. The session
	// goes on: nothing is kept of them, and its end would withdraw the VIPs.
	PrefixLimit int
	// Password is the TCP MD5 key of RFC 2385, at most 80 bytes. Empty: none.
	Password string
	// HoldTime is how long either side may be silent before the session ends,
	// in whole seconds from 3 s on. The smaller of both sides' counts; a third
	// of it is the interval of keepalives. 0: 90 s.
	HoldTime time.Duration
	// GracefulRestart is how long the peer is asked to keep our routes after
	// the session was lost without a NOTIFICATION (RFC 4724), in whole seconds
	// up to MaxGracefulRestart. 0: it is not asked.
	GracefulRestart time.Duration
	// Attributes are those of the routes that this peer is sent and that do
	// not set them themselves.
	Attributes Attributes
}

// Attributes are what is said of a route besides its prefix. A nil pointer or
// list, or an invalid address, is not set. On the way to a peer the route's own
// attributes come first, each by itself; then the peer's; and where neither
// sets one, what is said with each of them below.
type Attributes struct {
	// Communities are those of RFC 1997; otherwise none. A list that is empty
	// and not nil is set too: it keeps the peer's away.
	Communities []uint32
	// LargeCommunities are those of RFC 8092, in the order global
	// administrator, local data 1, local data 2; otherwise none. An empty list
	// counts as with Communities.
	LargeCommunities [][3]uint32
	// MED is the MULTI_EXIT_DISC of RFC 4271 section 5.1.4, the lower the
	// better; otherwise it is not sent, which most routers take for 0.
	MED *uint32
	// LocalPreference is the LOCAL_PREF of RFC 4271 section 5.1.5, the higher
	// the better, at least 1; otherwise 100. Internal peers alone hear of it.
	LocalPreference *uint32
	// Prepend is how many times the own AS stands in the path besides the one
	// time it must, at most MaxPrepend; otherwise 0. External peers alone are
	// sent it: an internal one would take its own AS for a loop.
	Prepend *int
	// NextHop4 and NextHop6 are the next hops of IPv4 and of IPv6 routes;
	// otherwise an address of this host on the way to the peer.
	NextHop4, NextHop6 netip.Addr
}

// MaxPrepend bounds Attributes.Prepend. Paths of the Internet are four to five
// long, and many networks drop what is much longer.
const MaxPrepend = 16

// MaxPrefixLimit bounds Peer.PrefixLimit: the table of the Internet has about
// as many.
const MaxPrefixLimit = 1000000

// Route is one announced prefix with its attributes.
type Route struct {
	Prefix netip.Prefix
	// Attributes are the route's own. What they leave unset is each peer's to
	// set (Peer.Attributes).
	Attributes
	// Fingerprint is said to siblings, with the router ID, in two large
	// communities besides those of the attributes, whoever has set those
	// (FingerprintTag, RouterTag). Nil: neither is said.
	Fingerprint *uint32
	// Draining adds GracefulShutdown to the communities, whoever has set
	// those.
	Draining bool
}

// PeerStatus is what is known of one session.
type PeerStatus struct {
	Name    string
	Address netip.Addr
	AS      uint32
	// State is the FSM state of RFC 4271 section 8.2.2 in lower case: idle
	// (stopped), connect (calling, or waiting to call again), active (waiting
	// for a passive peer to call), opensent, openconfirm, established.
	State string
	// Since is when State was entered. An attempt that fails does not set
	// it anew: a peer that refuses every call is in connect since the session
	// was lost, not since the last refusal.
	Since time.Time
	// Advertised counts the routes that the peer has from us: those of the set
	// whose address family it speaks.
	Advertised int
	// Received is what came from the peer in this session.
	Received Received
	// Attributes are the peer's own.
	Attributes Attributes
	// GracefulRestartAsked is the peer's own: how long it is asked to keep the
	// routes.
	GracefulRestartAsked time.Duration
	// GracefulRestart is how long the peer has agreed to keep the routes after
	// the session was lost without a NOTIFICATION. 0: it drops them at once, or
	// there is no session.
	GracefulRestart time.Duration
	// LastError is why the session is not up, where known.
	LastError string
}
