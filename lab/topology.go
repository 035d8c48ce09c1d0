package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Reflector names the program that the route reflectors run.
type Reflector string

// The reflectors. GoBGP's drop the routes of a peer that is gone at once,
// BIRD's keep them for as long as the peer's graceful restart asks.
const (
	GoBGP Reflector = "gobgp"
	BIRD  Reflector = "bird"
)

// Balancer names what the LB4 hosts run.
type Balancer string

// The balancers: this project's daemon, and what is put together in its
// place from Debian's packages, to compare with.
const (
	LB4D       Balancer = "lb4d"
	Keepalived Balancer = "keepalived" // with ExaBGP
)

// Sizes say how many hosts of each kind a lab has.
type Sizes struct {
	Routers    int
	Reflectors int
	LB4        int
	LB7        int
	Servers    int
	// Users is the number of addresses that users have, in each family.
	Users int
}

// DefaultSizes are large enough to show every effect (a change of ECMP among
// three, a rehash among four) and small enough for one slow processor.
var DefaultSizes = Sizes{Routers: 2, Reflectors: 2, LB4: 3, LB7: 4, Servers: 3, Users: 200}

// FullSizes are those of a small real installation.
var FullSizes = Sizes{Routers: 2, Reflectors: 2, LB4: 7, LB7: 13, Servers: 10, Users: 200}

// Validate tells what is out of range. The bounds are those of the address
// plan.
func (s Sizes) Validate() error {
	var errs []error
	check := func(what string, n, most int) {
		if n < 1 || n > most {
			errs = append(errs, fmt.Errorf("sizing the lab: %d %s, not 1 to %d", n, what, most))
		}
	}
	check("routers", s.Routers, 8)
	check("route reflectors", s.Reflectors, 8)
	check("LB4 hosts", s.LB4, 64)
	check("LB7 hosts", s.LB7, 64)
	check("servers", s.Servers, 200)
	check("user addresses", s.Users, 254)
	if n := s.Routers + s.Reflectors + s.LB4 + s.LB7; n > 120 {
		errs = append(errs, fmt.Errorf("sizing the lab: %d routers, reflectors, LB4 and LB7 hosts together, not at most 120", n))
	}
	return errors.Join(errs...)
}

// Intervals of checks. They are those that the promises of a lab rest on,
// stretched where a large lab would have its one processor do little else.
const (
	checksPerSecond       = 50 // by all LB4 hosts
	serverChecksPerSecond = 40 // by all HAProxys
)

// CheckInterval is how often an LB4 host checks each LB7 host, in each family.
func (s Sizes) CheckInterval() time.Duration {
	return spacing(2*s.LB4*s.LB7, checksPerSecond, time.Second)
}

// serverInterval is how often an HAProxy checks a server, and asks its agent.
func (s Sizes) serverInterval() time.Duration {
	return spacing(2*s.LB7*s.Servers, serverChecksPerSecond, 2*time.Second)
}

// spacing is the interval, in whole seconds, at which n checks are so many a
// second in all.
func spacing(n, perSecond int, least time.Duration) time.Duration {
	return max(least, time.Duration((n+perSecond-1)/perSecond)*time.Second)
}

// Role is what a host does.
type Role string

// The roles, in the order in which a user's packet meets them.
const (
	RoleUsers     Role = "users"
	RoleInternet  Role = "internet"
	RoleRouter    Role = "router"
	RoleReflector Role = "reflector"
	RoleLB4       Role = "lb4"
	RoleLB7       Role = "lb7"
	RoleServer    Role = "server"
)

// Segment is one Ethernet: a bridge in the lab.
type Segment struct {
	Name string
	// MTU of the bridge and all that is on it, in octets.
	MTU int
}

// Topology is everything that a lab consists of, in the order in which it is
// made.
type Topology struct {
	Sizes     Sizes
	Reflector Reflector
	Balancer  Balancer
	Segments  []Segment
	Hosts     []Host
	// VIPs are the service addresses, IPv4 first.
	VIPs []netip.Addr
	// Ports that the VIPs serve, all TCP.
	Ports []uint16
	// Sources are the users' addresses, IPv4 first.
	Sources []netip.Addr
}

// Host is one machine of the lab: a network namespace, a set of directories
// of its own, and what runs in it.
type Host struct {
	Name string
	Role Role
	// Address and Address6 are those by which other hosts know it; invalid
	// where it has none of that family.
	Address, Address6 netip.Addr
	Links             []Link
	// Loopback are addresses on lo.
	Loopback []netip.Prefix
	Routes   []Route
	// Sysctls are set before any device but lo exists, so that the "default"
	// ones reach each device.
	Sysctls []Sysctl
	// Directories are the paths that are the host's own. Everything else of
	// the file system is shared by all.
	Directories []string
	// Files are written below Directories before anything runs.
	Files []File
	// Processes are the programs that run on the host.
	Processes []Process
	// Servers are what the lab itself serves on the host.
	Servers []Server
}

// Link attaches a host to a segment.
type Link struct {
	Device    string
	Segment   string
	Addresses []netip.Prefix
}

// Route is a static route; with several next hops, flows are spread over
// them.
type Route struct {
	To  netip.Prefix
	Via []netip.Addr
}

// Sysctl is one kernel setting of a host, by its path below /proc/sys.
type Sysctl struct {
	Key, Value string
}

// File is a file below one of a host's own directories.
type File struct {
	Path    string
	Content string
}

// Process is a program that runs on a host, in the foreground.
type Process struct {
	Name string
	Argv []string
}

// ServerKind is what a Server does.
type ServerKind string

// The kinds of server.
const (
	// Origin answers users' requests, behind the PROXY protocol.
	Origin ServerKind = "origin"
	// Agent answers HAProxy's agent checks out of a file, as lb7d -agent-check
	// does.
	Agent ServerKind = "agent"
)

// Server is something that the lab itself serves on a host, in its own
// process, because starting a program for each is slow.
type Server struct {
	Kind   ServerKind
	Listen netip.AddrPort
	// File is what an Agent answers with, as the host sees it.
	File string
}

// Host returns the host of that name.
func (t *Topology) Host(name string) (*Host, bool) {
	for i := range t.Hosts {
		if t.Hosts[i].Name == name {
			return &t.Hosts[i], true
		}
	}
	return nil, false
}

// ByRole returns the hosts of a role, in order.
func (t *Topology) ByRole(role Role) []*Host {
	var hosts []*Host
	for i := range t.Hosts {
		if t.Hosts[i].Role == role {
			hosts = append(hosts, &t.Hosts[i])
		}
	}
	return hosts
}

// vipSet is the set of service addresses.
func (t *Topology) vipSet() map[netip.Addr]bool {
	set := make(map[netip.Addr]bool)
	for _, v := range t.VIPs {
		set[v] = true
	}
	return set
}

// NewTopology lays a lab out. The same arguments give the same lab.
func NewTopology(s Sizes, rr Reflector, b Balancer) (*Topology, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if rr != GoBGP && rr != BIRD {
		return nil, fmt.Errorf("choosing the route reflector: %q is neither %q nor %q", rr, GoBGP, BIRD)
	}
	if b != LB4D && b != Keepalived {
		return nil, fmt.Errorf("choosing the balancer: %q is neither %q nor %q", b, LB4D, Keepalived)
	}
	t := &Topology{
		Sizes:     s,
		Reflector: rr,
		Balancer:  b,
		Segments: []Segment{
			{Name: segmentUsers, MTU: 1500},
			{Name: segmentEdge, MTU: 1500},
			// The outer header of a tunnelled packet fits: 40 octets for IPv6.
			{Name: segmentInfra, MTU: 1600},
			{Name: segmentServers, MTU: 1500},
		},
		VIPs:  both(vips()),
		Ports: []uint16{80},
	}
	for i := range s.Users {
		t.Sources = append(t.Sources, userAddr(i+1))
	}
	t.Sources = both(t.Sources)

	t.Hosts = append(t.Hosts, t.users(), t.internet())
	for i := range s.Routers {
		t.Hosts = append(t.Hosts, t.router(i+1))
	}
	for i := range s.Reflectors {
		t.Hosts = append(t.Hosts, t.reflector(i+1))
	}
	for i := range s.LB4 {
		t.Hosts = append(t.Hosts, t.lb4(i+1))
	}
	for i := range s.LB7 {
		t.Hosts = append(t.Hosts, t.lb7(i+1))
	}
	for i := range s.Servers {
		t.Hosts = append(t.Hosts, t.server(i+1))
	}
	if err := t.configure(); err != nil {
		return nil, err
	}
	return t, nil
}
