package lab

import (
	"fmt"
	"net/netip"
	"slices"
)

// plain are the settings of every host. Duplicate address detection and
// router advertisements would only delay the start. rp_filter is off, because
// answers leave by another way than questions come in (direct return).
var plain = []Sysctl{
	{"net/ipv4/conf/all/rp_filter", "0"},
	{"net/ipv4/conf/default/rp_filter", "0"},
	{"net/ipv6/conf/default/accept_dad", "0"},
	{"net/ipv6/conf/default/dad_transmits", "0"},
	{"net/ipv6/conf/default/accept_ra", "0"},
	{"net/ipv6/conf/default/autoconf", "0"},
}

// spread are the settings of a host with several next hops: flows are told
// apart by their ports too, and a dead next hop is avoided.
var spread = []Sysctl{
	{"net/ipv4/fib_multipath_hash_policy", "1"},
	{"net/ipv4/fib_multipath_use_neigh", "1"},
	{"net/ipv6/fib_multipath_hash_policy", "1"},
}

var forwarding = []Sysctl{
	{"net/ipv4/ip_forward", "1"},
	{"net/ipv6/conf/all/forwarding", "1"},
}

// userHost is where users' host sits between the internet and the users.
var (
	internetUserSide = at(usersPrefix, 1)
	internetEdgeSide = at(edgePrefix, 9)
	userHost         = at(usersPrefix, 2)
)

func (t *Topology) users() Host {
	return Host{
		Name: "users", Role: RoleUsers,
		Address: userHost, Address6: twin(userHost),
		Links:    []Link{{Device: "eth0", Segment: segmentUsers, Addresses: on(userHost, usersPrefix)}},
		Loopback: single(t.Sources),
		Routes:   dualRoute(default4, internetUserSide),
		// Many short flows from each address must not run out of ports.
		Sysctls: slices.Concat(plain, []Sysctl{{"net/ipv4/ip_local_port_range", "1024 65535"}}),
	}
}

func (t *Topology) internet() Host {
	var edge []netip.Addr
	for i := range t.Sizes.Routers {
		edge = append(edge, edgeAddr(i+1))
	}
	return Host{
		Name: "internet", Role: RoleInternet,
		Address: internetEdgeSide, Address6: twin(internetEdgeSide),
		Links: []Link{
			{Device: "eth0", Segment: segmentUsers, Addresses: on(internetUserSide, usersPrefix)},
			{Device: "eth1", Segment: segmentEdge, Addresses: on(internetEdgeSide, edgePrefix)},
		},
		// Static, where a provider would speak BGP: what is under test starts
		// behind the routers.
		Routes:  slices.Concat(dualRoute(userPrefix, userHost), dualRoute(vipPrefix, edge...)),
		Sysctls: slices.Concat(plain, spread, forwarding),
	}
}

func (t *Topology) router(i int) Host {
	a := t.Sizes.routerAddr(i)
	return Host{
		Name: fmt.Sprintf("R%d", i), Role: RoleRouter,
		Address: a, Address6: twin(a),
		Links: []Link{
			{Device: "eth0", Segment: segmentEdge, Addresses: on(edgeAddr(i), edgePrefix)},
			{Device: "eth1", Segment: segmentInfra, Addresses: on(a, infraPrefix)},
		},
		// The users' segment lies within the edge's, hence the second pair.
		Routes:      slices.Concat(dualRoute(default4, internetEdgeSide), dualRoute(usersPrefix, internetEdgeSide)),
		Sysctls:     slices.Concat(plain, spread, forwarding),
		Directories: []string{"/etc/bird", "/run/bird"},
		Processes:   []Process{birdProcess},
	}
}

var birdProcess = Process{Name: "bird", Argv: []string{"bird", "-f", "-c", "/etc/bird/bird.conf", "-s", "/run/bird/bird.ctl"}}

func (t *Topology) reflector(i int) Host {
	a := t.Sizes.reflectorAddr(i)
	h := Host{
		Name: fmt.Sprintf("RR%d", i), Role: RoleReflector,
		Address: a, Address6: twin(a),
		Links:   []Link{{Device: "eth0", Segment: segmentInfra, Addresses: on(a, infraPrefix)}},
		Sysctls: plain,
	}
	if t.Reflector == BIRD {
		h.Directories = []string{"/etc/bird", "/run/bird"}
		h.Processes = []Process{birdProcess}
	} else {
		h.Directories = []string{"/etc/gobgp"}
		h.Processes = []Process{{
			Name: "gobgpd",
			Argv: []string{"gobgpd", "--config-type", "yaml", "--config-file", "/etc/gobgp/gobgpd.yaml", "--log-plain"},
		}}
	}
	return h
}

// home is the way back to the users, by any router. Answers take it from the
// LB7 hosts, past the LB4 hosts; these need it for diagnosis only.
func (t *Topology) home() []Route {
	var routers []netip.Addr
	for i := range t.Sizes.Routers {
		routers = append(routers, t.Sizes.routerAddr(i+1))
	}
	return slices.Concat(dualRoute(userPrefix, routers...), dualRoute(usersPrefix, routers...))
}

func (t *Topology) lb4(i int) Host {
	if t.Balancer == Keepalived {
		return t.rival(i)
	}
	a := t.Sizes.lb4Addr(i)
	return Host{
		Name: fmt.Sprintf("LB4-%d", i), Role: RoleLB4,
		Address: a, Address6: twin(a),
		Links:   []Link{{Device: "eth0", Segment: segmentInfra, Addresses: on(a, infraPrefix)}},
		Routes:  t.home(),
		Sysctls: slices.Concat(plain, spread),
		// VIPs, IPVS and its settings are the daemon's to make.
		Directories: []string{"/etc/lb", "/run/lb", "/var/lib/lb"},
		Processes:   []Process{{Name: "lb4d", Argv: []string{"lb4d", "-config", "/etc/lb/lb4d.toml"}}},
	}
}

// agentPort is where HAProxy asks for agent checks.
const agentPort = 5555

func (t *Topology) lb7(i int) Host {
	a := t.Sizes.lb7Addr(i)
	return Host{
		Name: fmt.Sprintf("LB7-%d", i), Role: RoleLB7,
		Address: a, Address6: twin(a),
		Links: []Link{
			{Device: "eth0", Segment: segmentInfra, Addresses: on(a, infraPrefix)},
			{Device: "eth1", Segment: segmentServers, Addresses: []netip.Prefix{netip.PrefixFrom(lb7InnerAddr(i), 64)}},
		},
		Routes: t.home(),
		// HAProxy may listen on VIPs that lb7d is yet to add.
		Sysctls: slices.Concat(plain, spread, []Sysctl{
			{"net/ipv4/ip_nonlocal_bind", "1"},
			{"net/ipv6/ip_nonlocal_bind", "1"},
		}),
		Directories: []string{"/etc/lb", "/run/lb", "/var/lib/lb", "/etc/haproxy", "/run/haproxy"},
		// HAProxy wants it when it starts, and lb7d keeps it.
		Files: []File{{"/var/lib/lb/host.map", "host up\n"}},
		Processes: []Process{
			// Tunnels, VIPs and sysctls are lb7d's to make.
			{Name: "lb7d", Argv: []string{"lb7d", "-config", "/etc/lb/lb7d.toml"}},
			{Name: "haproxy", Argv: []string{"haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"}},
		},
	}
}

// originPort is where servers take requests from HAProxy.
const originPort = 88

func (t *Topology) server(i int) Host {
	a := serverAddr(i)
	return Host{
		Name: fmt.Sprintf("S%d", i), Role: RoleServer,
		Address6:    a,
		Links:       []Link{{Device: "eth0", Segment: segmentServers, Addresses: []netip.Prefix{netip.PrefixFrom(a, 64)}}},
		Sysctls:     plain,
		Directories: []string{"/etc/lb"},
		Servers: []Server{
			{Kind: Origin, Listen: netip.AddrPortFrom(a, originPort)},
			{Kind: Agent, Listen: netip.AddrPortFrom(a, agentPort), File: "/etc/lb/agent-check"},
		},
	}
}
