package bgp

import (
	"cmp"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nextHops are the addresses of this host that routes name as their next hop
// where the session itself does not say.
//
// A session carries both address families, but its local address is of one.
// Left to itself GoBGP would send IPv6 routes over an IPv4 session with a next
// hop of ::ffff:192.0.2.1, which no router can use, and IPv4 routes over an
// IPv6 session with an IPv6 next hop (RFC 8950), which not every router
// understands.
type nextHops struct {
	v4, v6 netip.Addr
	// foreign is a peer that makes an IPv6 next hop necessary.
	foreign netip.Addr
}

// newNextHops finds the addresses: for each family the one that the kernel
// sends from towards a peer of that family or, where there is no such peer, a
// global one on the interface that leads to a peer of the other. None is one
// of those that skip names, the announced addresses themselves.
func newNextHops(peers []Peer, skip func(netip.Addr) bool) nextHops {
	peers = slices.SortedFunc(slices.Values(peers), func(a, b Peer) int { return a.Address.Compare(b.Address) })
	// Unspecified, GoBGP puts the local end of each session in its place.
	h := nextHops{v4: netip.IPv4Unspecified(), v6: netip.IPv6Unspecified()}
	for _, p := range peers {
		if (p.Address.Is4() || p.Address.IsLinkLocalUnicast()) && p.families()&IPv6 != 0 && !p.Attributes.NextHop6.IsValid() {
			h.foreign = cmp.Or(h.foreign, p.Address)
		}
	}
	if h.foreign.IsValid() {
		h.v6 = localAddress(peers, netip.Addr.Is6, skip)
	}
	if slices.ContainsFunc(peers, func(p Peer) bool {
		return p.Address.Is6() && p.families()&IPv4 != 0 && !p.Attributes.NextHop4.IsValid()
	}) {
		if v4 := localAddress(peers, netip.Addr.Is4, skip); v4.IsValid() {
			h.v4 = v4
		}
		// A host with IPv6 alone has RFC 8950, and peers chosen for it.
	}
	return h
}

// of is the next hop for a route to an address; invalid where there is none.
func (h nextHops) of(address netip.Addr) netip.Addr {
	if address.Is4() {
		return h.v4
	}
	return h.v6
}

// nextHopAge bounds how long next hops are used before the kernel is asked
// again. The routes are set every second, and the kernel's answer takes longer
// than all the rest of that.
const nextHopAge = 5 * time.Second

// hopCache remembers the next hops.
type hopCache struct {
	hops  nextHops
	until time.Time
	// moved is set, from any goroutine, when a session came up or went: then
	// addresses and routes may well have changed.
	moved atomic.Bool
}

// stale has the next look-up ask the kernel.
func (c *hopCache) stale() { c.until = time.Time{} }

// lookUp is newNextHops for the routes given, or what that said a moment ago.
func (c *hopCache) lookUp(peers []Peer, routes []Route) nextHops {
	if c.moved.Swap(false) || time.Now().After(c.until) {
		vips := make(map[netip.Addr]bool, len(routes))
		for _, r := range routes {
			vips[r.Prefix.Addr()] = r.Prefix.IsSingleIP()
		}
		c.hops = newNextHops(peers, func(a netip.Addr) bool { return vips[a] })
		c.until = time.Now().Add(nextHopAge)
		if !c.hops.v6.IsValid() {
			c.stale() // routes wait for one to come
		}
	}
	return c.hops
}

// localAddress is an address of this host in the family that is asks for.
func localAddress(peers []Peer, is func(netip.Addr) bool, skip func(netip.Addr) bool) netip.Addr {
	for _, p := range peers {
		if is(p.Address) && !p.Address.IsLinkLocalUnicast() {
			if source, _ := route(p.Address); usable(source) && !skip(source) {
				return source
			}
		}
	}
	for _, p := range peers {
		if _, link := route(p.Address); link != 0 {
			if found := addressOn(link, is, skip); found.IsValid() {
				return found
			}
		}
	}
	return netip.Addr{}
}

// usable reports whether others can send packets to an address.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !a.IsMulticast()
}

// route asks the kernel how it would send to an address: from which one, and
// over which interface. Both are zero where it has no route.
func route(to netip.Addr) (source netip.Addr, link int) {
	if to.Zone() != "" {
		l, err := netlink.LinkByName(to.Zone())
		if err != nil {
			return netip.Addr{}, 0
		}
		return netip.Addr{}, l.Attrs().Index
	}
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return netip.Addr{}, 0
	}
	source, _ = netip.AddrFromSlice(routes[0].Src)
	return source.Unmap(), routes[0].LinkIndex
}

// addressOn is the best global address on an interface: one that stays before
// one that the kernel is about to give up, then the lowest, so that it is the
// same each time.
func addressOn(link int, is func(netip.Addr) bool, skip func(netip.Addr) bool) netip.Addr {
	l, err := netlink.LinkByIndex(link)
	if err != nil {
		return netip.Addr{}
	}
	addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return netip.Addr{}
	}
	// An address is not the host's until duplicate detection has passed
	// (RFC 4862 section 5.4), and a temporary one goes away (RFC 8981).
	const unfit = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_TEMPORARY
	type candidate struct {
		address    netip.Addr
		deprecated int
	}
	var fit []candidate
	for _, a := range addresses {
		address, ok := netip.AddrFromSlice(a.IP)
		address = address.Unmap()
		if !ok || !is(address) || !usable(address) || address.IsLoopback() || skip(address) ||
			a.Scope != unix.RT_SCOPE_UNIVERSE || a.Flags&unfit != 0 {
			continue
		}
		fit = append(fit, candidate{address, a.Flags & unix.IFA_F_DEPRECATED})
	}
	if len(fit) == 0 {
		return netip.Addr{}
	}
	return slices.MinFunc(fit, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.deprecated, b.deprecated), a.address.Compare(b.address))
	}).address
}
