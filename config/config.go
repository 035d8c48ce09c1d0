// Package config turns an lb4d.toml file into a validated Config, or into one
// line per fault: where it is, what is wrong, and what would be right.
//
// The names of the keys are promises to users. The reference file in this
// package, reference.toml, says each key's unit, default and reason; a test
// loads it, so that it can never be out of date.
package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config is a complete and validated configuration: every default is filled
// in, every name that refers to something has been found.
type Config struct {
	// MaintenanceFile withdraws every VIP while it exists.
	MaintenanceFile string
	// StateDir holds what must survive a restart.
	StateDir string
	// CheckMark is the first of the CheckMarks firewall marks that the checks
	// through the tunnel have for their own.
	CheckMark uint32

	Control  Control
	BGP      BGP
	Pools    []Pool    // sorted by name
	Services []Service // sorted by name
	HTTP     HTTP
	Damping  Damping
}

// Pool finds a pool by its name.
func (c *Config) Pool(name string) (Pool, bool) {
	i, found := slices.BinarySearchFunc(c.Pools, name, func(p Pool, name string) int {
		return strings.Compare(p.Name, name)
	})
	if !found {
		return Pool{}, false
	}
	return c.Pools[i], true
}

// Control is the unix socket on which lbctl talks to the daemon.
type Control struct {
	Socket string
	// Group owns the socket where it is not empty and exists.
	Group string
}

// HTTP is the read-only listener for /metrics and /healthz.
type HTTP struct {
	Listen string // host:port; empty: off
}

// BGP is the local speaker and its peers.
type BGP struct {
	AS       uint32
	RouterID netip.Addr // an IPv4 address, RFC 4271 section 1.1
	// HoldTime, Multihop and TTLSecurity are those of the peers that have none
	// of their own.
	HoldTime    time.Duration
	Multihop    int
	TTLSecurity bool
	// ListenPort is the TCP port for sessions that the peer opens; 0: only
	// call out.
	ListenPort int
	// GracefulRestart is that of the peers that have none of their own.
	GracefulRestart time.Duration
	// DrainTime is the most that passes between GRACEFUL_SHUTDOWN (RFC 8326)
	// and the withdrawal; 0: withdraw at once.
	DrainTime time.Duration
	// DrainMED and DrainPrepend are the MED and the prepending of every route
	// that drains, besides GRACEFUL_SHUTDOWN; nil: as otherwise.
	DrainMED     *uint32
	DrainPrepend *int
	// Siblings has the routes tell of this host's tables, and is that of the
	// peers that have none of their own.
	Siblings bool
	// SiblingsSettle is how long the tables of hosts may differ before that is
	// told.
	SiblingsSettle time.Duration
	// PrefixLimit is that of the peers that have none of their own.
	PrefixLimit int
	// Attributes are those that neither a peer nor a service sets.
	Attributes Attributes
	Peers      []Peer // sorted by name
}

// Peer is one BGP neighbour.
type Peer struct {
	Name    string
	Address netip.Addr
	Port    int // 179 where left out
	AS      uint32
	// HoldTime is how long either side may be silent.
	HoldTime time.Duration
	// GracefulRestart is how long the peer is asked to keep the routes of a
	// daemon that has gone without a word (RFC 4724); 0: it is not asked.
	GracefulRestart time.Duration
	// Multihop is how many hops away the peer may be; 1: on a connected
	// network. It counts for external peers, and with TTLSecurity for all.
	Multihop int
	// TTLSecurity is the mechanism of RFC 5082.
	TTLSecurity bool
	// Source is the local address of the session, or invalid.
	Source netip.Addr
	// Passive leaves it to the peer to call.
	Passive bool
	// Siblings has the peer asked for the other hosts' paths to the VIPs.
	Siblings bool
	// PrefixLimit is how many other prefixes the peer may announce before it is
	// warned of; 0: any number.
	PrefixLimit int
	// BFD is how the way to the peer is watched; nil: by the hold time alone.
	BFD *BFD
	// IPv4 and IPv6 are the address families of the session, at least one.
	IPv4, IPv6 bool
	// Password is the TCP MD5 key (RFC 2385), read from password_file.
	Password Secret
	// Attributes are the peer's over those of BGP.
	Attributes Attributes
}

// BFD is Bidirectional Forwarding Detection (RFC 5880) with a peer.
type BFD struct {
	// Interval is the time between packets, both ways.
	Interval time.Duration
	// Multiplier is how many of them in a row may be lost.
	Multiplier int
	// Multihop: there may be routers in between, which is RFC 5883; without, the
	// peer is on a connected network, which is RFC 5881.
	Multihop bool
}

// Secret is a string that no log line, error or dump shows.
type Secret string

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(secret)"
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the secret from encoders, slog's included.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Encapsulation names how a packet travels from the LB4 host to a member.
type Encapsulation string

// The encapsulations. The outer header is of the family of the member's address,
// whatever that of the VIP.
const (
	// IPIP is a second IP header alone (RFC 2003, RFC 4213, RFC 2473).
	IPIP Encapsulation = "ipip"
	// GUE is Generic UDP Encapsulation (draft-ietf-intarea-gue).
	GUE Encapsulation = "gue"
	// GRE is Generic Routing Encapsulation (RFC 2784).
	GRE Encapsulation = "gre"
)

// Pool is a set of LB7 hosts that share one check.
type Pool struct {
	Name          string
	Encapsulation Encapsulation
	// GUEPort is the UDP port that GUE is sent to; 0 with the others.
	GUEPort uint16
	// PurgeAfter is how long a member fails without a break before its
	// destination is deleted; 0: never.
	PurgeAfter time.Duration
	Members    []Member // sorted by name
	Check      Check
}

// Member is one LB7 host. At least one of its addresses is valid.
type Member struct {
	Name     string
	Address  netip.Addr // IPv4, or invalid
	Address6 netip.Addr // IPv6, or invalid
	Weight   int
}

// CheckMarks is how many firewall marks the checks through the tunnel may use.
// As many ports are there for their datagrams, one for each.
const CheckMarks = 16384

// Via is the way of a check.
type Via string

// The ways.
const (
	// ViaTunnel leads to the VIP, through the encapsulation to the one member.
	ViaTunnel Via = "tunnel"
	// ViaDirect leads to the member's own address.
	ViaDirect Via = "direct"
)

// Check says how a member's health is asked.
type Check struct {
	// HTTP is the path of a GET request; empty: a TCP connect is enough.
	HTTP string
	// Host is the Host header; empty: the address that the check connects to.
	Host         string
	Port         uint16
	ExpectStatus []int // up
	DrainStatus  []int // draining
	Interval     time.Duration
	Timeout      time.Duration
	Rise         int // successes in a row until down becomes up
	Fall         int // failures in a row until up becomes down
	Via          Via
	// MTU is the size of the largest packets that users send, in bytes. With
	// MTURequired a member whose tunnel does not carry them fails its check.
	// Both count with ViaTunnel alone.
	MTU         int
	MTURequired bool
}

// Service is a set of VIPs and ports in front of one pool.
type Service struct {
	Name   string
	VIPs   []netip.Addr
	Ports  []Port
	Pool   string // the name of a Pool that exists
	Quorum Quorum
	// QuorumRestore is how many members must be up before a service that has
	// ceased to forward does so again; never less than Quorum.
	QuorumRestore Quorum
	Scheduler     string   // as ipvsadm -s names it: mh, wrr, ...
	Flags         []string // mh-port, mh-fallback, ...
	// Attributes are the service's own, of all its VIPs' routes. Services that
	// share a VIP have the same.
	Attributes Attributes
}

// Port is a transport port such as 80/tcp.
type Port struct {
	Number   uint16
	Protocol string // tcp or udp
}

// Quorum is how many members of a pool must be up. Exactly one of the fields
// is not zero.
type Quorum struct {
	Members int
	Percent int // 1 to 100
}

// Of is the number of members out of n that the quorum asks for: at least
// one, rounded up where it is a percentage.
func (q Quorum) Of(n int) int {
	if q.Percent > 0 {
		return max(1, (n*q.Percent+99)/100)
	}
	return max(1, q.Members)
}

// String is the quorum as it is written in the file: 2 or "50%".
func (q Quorum) String() string {
	if q.Percent > 0 {
		return fmt.Sprintf(`"%d%%"`, q.Percent)
	}
	return strconv.Itoa(q.Members)
}
