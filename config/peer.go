package config

import (
	"math"
	"net/netip"
	"slices"
	"strings"
)

// peers validates every [bgp.peer.NAME], sorted by name.
func (c *checker) peers(bgp *rawBGP, b BGP, names communityNames) []Peer {
	raw := bgp.peers
	if raw.ok && len(raw.entries) == 0 || !raw.present {
		c.fault(bgp.child("peer"), `there is no peer, so nothing can be announced; write [bgp.peer.rr1] with address = "192.0.2.254"`)
		return nil
	}
	if len(raw.entries) > maxPeers {
		c.fault(raw.place, "there are %d peers; write at most %d", len(raw.entries), maxPeers)
		return nil
	}
	var peers []Peer
	seen := make(map[netip.Addr]place)
	for _, r := range raw.entries {
		if !r.ok {
			continue
		}
		p := Peer{
			Name:            r.name,
			Port:            int(c.integer(r.port, defaultBGPPort, 1, math.MaxUint16)),
			AS:              c.as(r.as, b.AS),
			HoldTime:        c.holdTime(r.holdTime, b.HoldTime),
			GracefulRestart: c.gracefulRestart(r.gracefulRestart, b.GracefulRestart),
			Siblings:        truth(r.siblings, b.Siblings),
			PrefixLimit:     int(c.integer(r.prefixLimit, int64(b.PrefixLimit), 0, maxPrefixLimit)),
			BFD:             c.bfd(&r.bfd),
			Password:        c.password(r.passwordFile, peerPassword),
		}
		p.Attributes = c.peerAttributes(r, p, b, names)
		p.Multihop, p.TTLSecurity = c.hops(r, p, b)
		p.Passive = c.passive(r, b)
		p.IPv4, p.IPv6 = c.carried(r.families)
		if !r.address.present {
			c.fault(r.child("address"), `is missing; write the address of the peer, such as address = "192.0.2.254"`)
		}
		if a, ok := c.address(r.address); ok {
			p.Address = a
			first, twice := seen[a]
			switch {
			case twice:
				c.fault(r.address.place, "%s is the address of %s in line %d already; one session with a router is enough", a, first.key, first.line)
			case a == b.RouterID:
				c.fault(r.address.place, "%s is this host's own, by bgp.router_id in line %d; write the address of the router", a, bgp.routerID.line)
			default:
				seen[a] = r.place
			}
		}
		p.Source = c.source(r, p.Address)
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(x, y Peer) int { return strings.Compare(x.Name, y.Name) })
	return peers
}

// peerAttributes are the peer's, and those of [bgp] where it has none.
func (c *checker) peerAttributes(r *rawPeer, p Peer, b BGP, names communityNames) Attributes {
	internal := p.AS == b.AS
	if r.localPreference.ok && !internal {
		c.fault(r.localPreference.place, "this peer is in AS %d, and only peers in our own, AS %d, are told a local preference; leave it out, or write med or prepend", p.AS, b.AS)
	}
	if r.prepend.ok && r.prepend.value > 0 && internal {
		c.fault(r.prepend.place, "this peer is in our own AS %d and would take the longer path for a loop; leave it out, or write local_preference", b.AS)
	}
	return c.attributes(&r.rawAttributes, names).over(b.Attributes)
}

// hops is how far away a peer may be, and whether its packets are held to that.
func (c *checker) hops(r *rawPeer, p Peer, b BGP) (multihop int, security bool) {
	multihop, security = int(c.integer(r.multihop, int64(b.Multihop), 1, maxMultihop)), b.TTLSecurity
	if r.ttlSecurity.ok {
		security = r.ttlSecurity.value
	}
	if r.multihop.ok && !security && p.AS == b.AS {
		c.fault(r.multihop.place, "this peer is in our own AS %d and may be any number of hops away; leave it out, or write ttl_security = true too", b.AS)
	}
	return multihop, security
}

// passive is whether it is left to the peer to call.
func (c *checker) passive(r *rawPeer, b BGP) bool {
	if !r.passive.value {
		return false
	}
	if b.ListenPort == 0 {
		c.fault(r.passive.place, "the peer has no port to call at; write listen_port = 179 under [bgp], or leave it out")
	}
	if r.port.present {
		c.fault(r.port.place, "passive = true in line %d keeps this port from being called; leave one of them out", r.passive.line)
	}
	return true
}

// source is the local address of the session with the peer at an address.
func (c *checker) source(r *rawPeer, peer netip.Addr) netip.Addr {
	a, ok := c.address(r.sourceAddress)
	switch {
	case !ok || !peer.IsValid():
	case a == peer:
		c.fault(r.sourceAddress.place, "%s is the peer's; write one of this host", quote(r.sourceAddress.value))
	case a.Is4() != peer.Is4():
		c.fault(r.sourceAddress.place, "%s cannot call %s, which is of the other address family; write one of the same", quote(r.sourceAddress.value), peer)
	default:
		return a
	}
	return netip.Addr{}
}

// carried are the address families of a session.
func (c *checker) carried(t texts) (v4, v6 bool) {
	if !t.ok {
		return true, true
	}
	if len(t.values) == 0 {
		c.fault(t.place, `the list is empty; write ["ipv4"], ["ipv6"], or leave the key out for both`)
	}
	for _, one := range t.values {
		if !one.ok {
			continue
		}
		family, known := map[string]*bool{"ipv4": &v4, "ipv6": &v6}[one.value]
		switch {
		case !known:
			c.fault(one.place, `%s is no address family; write "ipv4" or "ipv6"`, quote(one.value))
		case *family:
			c.fault(one.place, "%s is in the list twice; leave one of them out", quote(one.value))
		default:
			*family = true
		}
	}
	return v4, v6
}
