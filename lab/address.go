package lab

import (
	"fmt"
	"net/netip"
	"slices"
)

// The segments of the lab.
const (
	segmentUsers   = "users"   // users, internet: 192.0.2.0/29
	segmentEdge    = "edge"    // internet, routers: 192.0.2.0/27
	segmentInfra   = "infra"   // routers, reflectors, LB4, LB7: 192.0.2.128/25
	segmentServers = "servers" // LB7, servers: 2001:db8:1::/64, IPv6 only
)

// Prefixes of the plan. All but the servers' segment have an IPv6 twin, which
// carries the IPv4 address in its last 32 bits: 2001:db8::192.0.2.1.
var (
	userPrefix  = netip.MustParsePrefix("203.0.113.0/24")
	usersPrefix = netip.MustParsePrefix("192.0.2.0/29")
	edgePrefix  = netip.MustParsePrefix("192.0.2.0/27")
	infraPrefix = netip.MustParsePrefix("192.0.2.128/25")
	vipPrefix   = netip.MustParsePrefix("198.51.100.0/24")

	default4 = netip.MustParsePrefix("0.0.0.0/0")
	default6 = netip.MustParsePrefix("::/0")
)

// vipCount is the number of service addresses in each family.
const vipCount = 4

func vips() []netip.Addr {
	var all []netip.Addr
	for i := range vipCount {
		all = append(all, at(vipPrefix, i+1))
	}
	return all
}

func userAddr(i int) netip.Addr { return at(userPrefix, i) }

// Positions of hosts in the infrastructure segment: routers first, then LB4,
// then LB7, all counted up from 129; reflectors counted down from 255.
func (s Sizes) routerAddr(i int) netip.Addr    { return at(infraPrefix, 1+i) }
func (s Sizes) lb4Addr(i int) netip.Addr       { return at(infraPrefix, 1+s.Routers+i) }
func (s Sizes) lb7Addr(i int) netip.Addr       { return at(infraPrefix, 1+s.Routers+s.LB4+i) }
func (s Sizes) reflectorAddr(i int) netip.Addr { return at(infraPrefix, 127-i) }

// edgeAddr is a router's address towards the users.
func edgeAddr(i int) netip.Addr { return at(edgePrefix, 9+i) }

// The addresses of the servers' segment carry the number as it reads in
// decimal, so that S10 is ::10.
func lb7InnerAddr(i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:1:0:1::%d", i))
}

func serverAddr(i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:1:0:2::%d", i))
}

// at is the address at a distance from the start of an IPv4 prefix.
func at(p netip.Prefix, offset int) netip.Addr {
	b := p.Masked().Addr().As4()
	b[3] += byte(offset)
	return netip.AddrFrom4(b)
}

// twin is the IPv6 address that stands for an IPv4 address in the lab.
func twin(a netip.Addr) netip.Addr {
	b := [16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8}
	v4 := a.As4()
	copy(b[12:], v4[:])
	return netip.AddrFrom16(b)
}

// twinPrefix is the IPv6 twin of an IPv4 prefix.
func twinPrefix(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(twin(p.Addr()), p.Bits()+96)
}

// both appends to IPv4 addresses their IPv6 twins.
func both(addrs []netip.Addr) []netip.Addr {
	all := slices.Clone(addrs)
	for _, a := range addrs {
		all = append(all, twin(a))
	}
	return all
}

// on is an address in a prefix, and its twin.
func on(a netip.Addr, p netip.Prefix) []netip.Prefix {
	v4 := netip.PrefixFrom(a, p.Bits())
	return []netip.Prefix{v4, twinPrefix(v4)}
}

// single turns addresses into /32 and /128.
func single(addrs []netip.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addrs {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	return all
}

// family keeps the addresses of one family.
func family(addrs []netip.Addr, v6 bool) []netip.Addr {
	var kept []netip.Addr
	for _, a := range addrs {
		if a.Is6() == v6 {
			kept = append(kept, a)
		}
	}
	return kept
}

// dualRoute is a route in both families.
func dualRoute(to netip.Prefix, via ...netip.Addr) []Route {
	var via6 []netip.Addr
	for _, a := range via {
		via6 = append(via6, twin(a))
	}
	to6 := twinPrefix(to)
	if to == default4 {
		to6 = default6
	}
	return []Route{{To: to, Via: via}, {To: to6, Via: via6}}
}
