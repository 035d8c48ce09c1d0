// Package control shows what the daemon knows: over HTTP on a unix socket to
// lbctl, and over TCP to whoever scrapes /metrics or asks /healthz.
//
// The daemon publishes one immutable Status after each pass; everything here
// is read from the latest one. So status, metrics and health never disagree
// with one another.
package control

import (
	"net"
	"strconv"
	"time"
)

// Status is all that the daemon tells of itself, as GET /v1/status answers
// it. Times are RFC 3339; every "reason" is the same sentence that the log
// has.
type Status struct {
	Version string    `json:"version"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Updated time.Time `json:"updated"`
	// State is starting (before the first complete pass), running or
	// stopping.
	State string `json:"state"`
	// Summary is one sentence, the same that systemctl status shows.
	Summary     string      `json:"summary"`
	Config      ConfigFile  `json:"config"`
	Maintenance Maintenance `json:"maintenance"`
	// LastDrain is how the last drain of VIPs went; nil: there was none.
	LastDrain *DrainReport `json:"last_drain,omitempty"`
	VIPs      []VIP        `json:"vips"`
	Services  []Service    `json:"services"`
	Members   []Member     `json:"members"`
	Peers     []Peer       `json:"peers"`
	// Errors are the operations that failed in the last pass; they are
	// retried in the next.
	Errors   []string `json:"errors,omitempty"`
	Counters Counters `json:"counters"`
}

func (st *Status) summary() string { return st.Summary }

// ConfigFile tells which configuration is in force.
type ConfigFile struct {
	Path   string    `json:"path"`
	Loaded time.Time `json:"loaded"`
	// Error is why the last reload was refused; empty when it succeeded. The
	// configuration loaded before it is still in force.
	Error   string    `json:"error,omitempty"`
	ErrorAt time.Time `json:"error_at,omitzero"`
}

// Maintenance tells of the maintenance file.
type Maintenance struct {
	Path    string    `json:"path"`
	Present bool      `json:"present"`
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason,omitempty"` // what the file says
	// Until is when the file ceases to count, and By who wrote it, as far as it
	// says so.
	Until time.Time `json:"until,omitzero"`
	By    string    `json:"by,omitempty"`
	// HeldUntil is until when a file that is away counts as there, because it
	// came and went before.
	HeldUntil time.Time `json:"held_until,omitzero"`
	Error     string    `json:"error,omitempty"`
	// Services are the files of services; ServicesError is why not all of them
	// could be looked at.
	Services      []ServiceMaintenance `json:"services,omitempty"`
	ServicesError string               `json:"services_error,omitempty"`
}

// ServiceMaintenance is the maintenance file of one service, which is present.
type ServiceMaintenance struct {
	Service   string    `json:"service"`
	Path      string    `json:"path"`
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason,omitempty"`
	Until     time.Time `json:"until,omitzero"`
	By        string    `json:"by,omitempty"`
	HeldUntil time.Time `json:"held_until,omitzero"`
	Error     string    `json:"error,omitempty"`
	// Unknown tells that there is no such service, so that the file does
	// nothing.
	Unknown bool `json:"unknown,omitempty"`
}

// VIP is one service address.
type VIP struct {
	Address   string `json:"address"`
	Announced bool   `json:"announced"`
	// State is announced, draining (announced with GRACEFUL_SHUTDOWN) or
	// withdrawn.
	State    string    `json:"state"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Services []string  `json:"services"`
	// Attributes are what its services say of its route, as in "med 50"; what
	// they do not say is the peer's.
	Attributes string `json:"attributes,omitempty"`
	// Fingerprint is that of the tables of all services on the VIP; empty where
	// one of them is not known. Hosts that have the same send each flow to the
	// same member.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Siblings are the other hosts that announce it.
	Siblings []Sibling `json:"siblings,omitempty"`
	// SiblingsKnown tells what Siblings are worth: all (there are no others),
	// some (the peers tell of the best path alone) or none (no session is up
	// that would tell).
	SiblingsKnown string `json:"siblings_known"`
	// TablesDiffer tells that a sibling has had other tables for longer than
	// siblings_settle.
	TablesDiffer bool `json:"tables_differ"`
	// Failing is how far it reaches that members keep the VIP from being
	// announced: here (siblings announce it), everywhere (none does) or unknown;
	// empty: they do not.
	Failing string `json:"failing,omitempty"`
	// Failures is how often its checks have failed lately, and HeldUntil until
	// when it is held down for that; zero: it is not.
	Failures  int       `json:"recent_failures"`
	HeldUntil time.Time `json:"held_until,omitzero"`
	// Flows and Packets are what IPVS has counted since it has the VIP's
	// services, up to two seconds ago.
	Flows   uint64 `json:"flows"`
	Packets uint64 `json:"packets"`
	// Drain tells how far the VIP's drain has come; nil: it is in none.
	Drain *VIPDrain `json:"drain,omitempty"`
}

// VIPDrain is the drain of one VIP.
type VIPDrain struct {
	// Phase is draining (announced with GRACEFUL_SHUTDOWN) or lingering
	// (withdrawn, and late packets are counted).
	Phase string    `json:"phase"`
	Since time.Time `json:"since"`
	// Deadline is when it is withdrawn at the latest, Withdrawn when it was.
	Deadline  time.Time `json:"deadline"`
	Withdrawn time.Time `json:"withdrawn,omitzero"`
	// PacketsPerSecond are those that still come.
	PacketsPerSecond float64 `json:"packets_per_second"`
	// LatePackets came after the withdrawal, at most: those of two seconds
	// before it may be among them, as the kernel counts in such steps.
	LatePackets uint64 `json:"late_packets"`
}

// DrainReport is what became of the VIPs that drained at the same time.
type DrainReport struct {
	Ended time.Time `json:"ended"`
	VIPs  int       `json:"vips"`
	// Seconds from the first GRACEFUL_SHUTDOWN to the last withdrawal.
	Seconds float64 `json:"seconds"`
	// Early were withdrawn before drain_time was over because no packet came
	// any more; Returned were announced again instead.
	Early    int `json:"early"`
	Returned int `json:"returned"`
	// LatePackets as in VIPDrain.
	LatePackets uint64 `json:"late_packets"`
}

// Sibling is another host that announces a VIP.
type Sibling struct {
	// RouterID is empty where nobody says it. NextHop may be a router's then.
	RouterID string    `json:"router_id,omitempty"`
	NextHop  string    `json:"next_hop"`
	Since    time.Time `json:"since"`
	// State is announced, or draining: with GRACEFUL_SHUTDOWN.
	State string `json:"state"`
	// Tables tells how its tables compare with ours: agree, differ or unknown.
	Tables      string   `json:"tables"`
	Fingerprint string   `json:"fingerprint,omitempty"`
	Peers       []string `json:"peers"` // addresses of those that tell of it
}

// Service is one service of the configuration.
type Service struct {
	Name       string    `json:"name"`
	Forwarding bool      `json:"forwarding"`
	Reason     string    `json:"reason"`
	Since      time.Time `json:"since"`
	VIPs       []string  `json:"vips"`
	Ports      []string  `json:"ports"` // 80/tcp
	Pool       string    `json:"pool"`
	Up         int       `json:"up"`     // members up, of the worst address family in use
	Quorum     int       `json:"quorum"` // members that must be up
	// QuorumRestore is how many must be up before a service that has ceased to
	// forward does so again.
	QuorumRestore int `json:"quorum_restore"`
	Members       int `json:"members"` // members in the pool
	// Tables are the Maglev tables that the kernel has for the service, one
	// for each VIP and port; none where its scheduler is another.
	Tables []Table `json:"tables,omitempty"`
}

// Table is the Maglev table of one VIP and port.
type Table struct {
	VIP      string `json:"vip"`
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"` // tcp or udp
	// Fingerprint is the same on all hosts that send flows to the same
	// members. Its first half is that of the slots, the second that of the
	// members that take new flows as well.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Error is why nobody can know the table; empty where there is a
	// Fingerprint.
	Error string `json:"error,omitempty"`
}

// Service names what the table is of: 198.51.100.1:80/tcp, or
// [2001:db8::1]:80/tcp.
func (t *Table) Service() string {
	return net.JoinHostPort(t.VIP, strconv.Itoa(int(t.Port))) + "/" + t.Protocol
}

// Member is one address of one member of a pool.
type Member struct {
	Pool    string `json:"pool"`
	Name    string `json:"name"`
	Address string `json:"address"`
	// VIPFamily is ipv4 or ipv6: that of the VIPs whose packets go to the
	// address. It is the other one than the address's where the member has no
	// address of theirs.
	VIPFamily string `json:"vip_family"`
	// State is unknown, up, draining or down.
	State  string    `json:"state"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	// Drained is the operator's drain, also while the member is down; nil:
	// there is none.
	Drained *Drain `json:"drained,omitempty"`
	// Weight is what the kernel has now; ConfiguredWeight is that of the
	// configuration.
	Weight           int `json:"weight"`
	ConfiguredWeight int `json:"configured_weight"`
	// CheckedVIP is the VIP to which the member is checked through the tunnel;
	// empty: it is checked at its own address.
	CheckedVIP string `json:"checked_vip,omitempty"`
	// FullSize tells whether full-size packets get through the tunnel: ok,
	// failed or unknown; empty where the check does not go through it.
	FullSize string `json:"full_size,omitempty"`
	// FullSizeAnswer is what was found of that last, in words.
	FullSizeAnswer string `json:"full_size_answer,omitempty"`
	// Warning is what is wrong with the member although it is not down; empty:
	// nothing.
	Warning string `json:"warning,omitempty"`
	// LastAnswer is the last check's answer in words.
	LastAnswer    string    `json:"last_answer"`
	LastCheck     time.Time `json:"last_check,omitzero"`
	LatencyMicros int64     `json:"latency_us"`
	Checks        uint64    `json:"checks"`
	ChecksFailed  uint64    `json:"checks_failed"`
	// ActiveFlows and InactiveFlows are IPVS's connections to this address,
	// summed over the services of the pool.
	ActiveFlows   int `json:"active_flows"`
	InactiveFlows int `json:"inactive_flows"`
}

// Peer is one BGP neighbour.
type Peer struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	AS      uint32    `json:"as"`
	State   string    `json:"state"` // idle, connect, active, opensent, openconfirm, established
	Since   time.Time `json:"since"`
	// Advertised counts the routes that the peer has from us.
	Advertised int `json:"advertised"`
	// Attributes are those of all routes that do not set them themselves.
	Attributes string `json:"attributes,omitempty"`
	// GracefulRestartAsked is how long, in seconds, the peer is asked to keep
	// the routes of an lb4d that has gone without a word; GracefulRestart is
	// what it has agreed to, 0 where it has not or where there is no session.
	GracefulRestartAsked int    `json:"graceful_restart_asked_seconds"`
	GracefulRestart      int    `json:"graceful_restart_seconds"`
	LastError            string `json:"last_error,omitempty"`
	// Received is what came from the peer in this session.
	Received Received `json:"received"`
	// BFD is how the way to the peer is watched; nil: by the hold time alone.
	BFD *BFD `json:"bfd,omitempty"`
}

// BFD is the session that watches the way to a peer.
type BFD struct {
	// State is down, init or up; Remote is what the peer last told of itself,
	// admindown where it has told nothing.
	State  string    `json:"state"`
	Remote string    `json:"remote_state"`
	Since  time.Time `json:"since"`
	// IntervalMillis is from one packet of ours to the next, at most.
	// DetectionMillis is how long the peer may be silent; 0: it is not there.
	IntervalMillis  float64 `json:"interval_ms"`
	DetectionMillis float64 `json:"detection_ms"`
	// Failures counts how often the way broke. Flapping: three times within five
	// minutes, until there are five without.
	Failures  uint64 `json:"failures"`
	Flapping  bool   `json:"flapping"`
	LastError string `json:"last_error,omitempty"`
}

// Received is what came from a peer.
type Received struct {
	// Paths counts the siblings' paths that are kept.
	Paths int `json:"paths"`
	// Ignored counts the announcements of other prefixes, of which nothing is
	// kept, and Malformed the messages that could not be read to their end.
	Ignored   uint64 `json:"ignored"`
	Malformed uint64 `json:"malformed"`
	// OverLimit tells that there were more different prefixes than
	// prefix_limit.
	OverLimit bool `json:"over_limit"`
}

// Counters count since the start of the process.
type Counters struct {
	Passes        uint64 `json:"passes"`
	PassesFailed  uint64 `json:"passes_failed"`
	KernelWrites  uint64 `json:"kernel_writes"` // IPVS, address and sysctl operations issued
	Announcements uint64 `json:"announcements"`
	Withdrawals   uint64 `json:"withdrawals"`
	Reloads       uint64 `json:"reloads"`
	ReloadsFailed uint64 `json:"reloads_failed"`
	// LastPassMicros is how long the last pass took.
	LastPassMicros int64 `json:"last_pass_us"`
}
