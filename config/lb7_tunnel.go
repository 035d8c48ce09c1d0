package config

import (
	"net/netip"
	"slices"
)

const (
	// maxTunnelVIPs bounds the addresses of a host, maxTunnelEnds those of
	// the outer headers on each side.
	maxTunnelVIPs = 1024
	maxTunnelEnds = 256
	// minUnderlay is the least that any host takes (RFC 791, section 3.1),
	// maxUnderlay what an IPv4 packet can be.
	minUnderlay, maxUnderlay = 576, 65535
)

// TunnelMode is what the LB4 hosts send.
type TunnelMode string

// The modes of [tunnel].
const (
	ModeIPIP   TunnelMode = "ipip"
	ModeIP6IP6 TunnelMode = "ip6ip6"
	ModeGUE    TunnelMode = "gue"
	ModeGRE    TunnelMode = "gre"
)

// tunnelModes are the values of tunnel.modes.
var tunnelModes = []string{string(ModeIPIP), string(ModeIP6IP6), string(ModeGUE), string(ModeGRE)}

// Tunnel takes packets for VIPs out of the tunnels of the LB4 hosts.
type Tunnel struct {
	VIPs  []netip.Addr
	Modes []TunnelMode
	// Local are the addresses that the LB4 hosts send to; none: all that the
	// host has.
	Local []netip.Addr
	// Sources are the addresses that they send from; none: anybody's.
	Sources []netip.Addr
	GUEPort uint16
	// MTU of the network between the LB4 hosts and this one, in bytes; 0: as
	// its devices say.
	MTU int
	// KeepRoutes leaves the advmss of routes alone.
	KeepRoutes bool
}

// rawTunnel is [tunnel].
type rawTunnel struct {
	table
	vips       texts
	modes      texts
	local      texts
	sources    texts
	guePort    number
	mtu        number
	keepRoutes boolean
}

func (r *rawTunnel) fields() []field {
	return []field{
		{"vips", &r.vips, `["198.51.100.1", "2001:db8::c633:6401"]`},
		{"modes", &r.modes, `["ipip", "ip6ip6"]`},
		{"local", &r.local, `["192.0.2.139"]`},
		{"sources", &r.sources, `["192.0.2.132"]`},
		{"gue_port", &r.guePort, "6080"},
		{"mtu", &r.mtu, "1500"},
		{"keep_routes", &r.keepRoutes, "true"},
	}
}

// tunnel validates [tunnel].
func (c *checker) tunnel(r *rawTunnel) *Tunnel {
	t := &Tunnel{
		VIPs:       c.hostAddresses(r.vips, maxTunnelVIPs),
		Modes:      c.tunnelModes(r),
		Local:      c.hostAddresses(r.local, maxTunnelEnds),
		Sources:    c.hostAddresses(r.sources, maxTunnelEnds),
		GUEPort:    uint16(c.integer(r.guePort, defaultGUEPort, 1, 65535)),
		MTU:        int(c.integer(r.mtu, 0, minUnderlay, maxUnderlay)),
		KeepRoutes: truth(r.keepRoutes, false),
	}
	if !r.vips.present {
		c.fault(r.child("vips"), `is missing; write the addresses that users connect to, such as vips = ["198.51.100.1"]`)
	}
	if r.vips.ok && len(r.vips.values) == 0 {
		c.fault(r.vips.place, "the list is empty; write the addresses that users connect to, or leave [tunnel] out (lb7d -teardown removes what it made)")
	}
	if r.modes.ok && len(t.Modes) > 0 && !slices.Contains(t.Modes, ModeGUE) {
		c.misplaced(`without "gue" in modes`, r.guePort.given)
	}
	for _, ends := range []struct {
		key   string
		given texts
		all   []netip.Addr
	}{{"local", r.local, t.Local}, {"sources", r.sources, t.Sources}} {
		if ends.given.ok && len(ends.given.values) == 0 {
			c.fault(ends.given.place, "the list is empty; write addresses, or leave the key out")
		}
		for _, one := range ends.given.values {
			if a, err := netip.ParseAddr(one.value); one.ok && err == nil && slices.Contains(t.VIPs, a) {
				c.fault(one.place, "%s is one of vips, and an outer header has the hosts' own addresses; write those", quote(one.value))
			}
		}
		c.tunnelFamilies(t.Modes, ends.key, ends.given, ends.all)
	}
	return t
}

// tunnelFamilies tells of modes that the addresses of outer headers, where they
// are written, leave without one.
func (c *checker) tunnelFamilies(modes []TunnelMode, key string, given texts, all []netip.Addr) {
	if len(all) == 0 || len(all) < len(given.values) {
		return // none, or faulty ones
	}
	for _, m := range []struct {
		mode   TunnelMode
		family string
		has    bool
	}{
		{ModeIPIP, "IPv4", slices.ContainsFunc(all, netip.Addr.Is4)},
		{ModeIP6IP6, "IPv6", slices.ContainsFunc(all, netip.Addr.Is6)},
	} {
		if slices.Contains(modes, m.mode) && !m.has {
			c.fault(given.place, "has no %s address, which mode %q has in its outer header; add one to %s, or take the mode out of modes", m.family, m.mode, key)
		}
	}
}

// tunnelModes are the modes, each once.
func (c *checker) tunnelModes(r *rawTunnel) []TunnelMode {
	if !r.modes.present {
		c.fault(r.child("modes"), `is missing; write what the LB4 hosts send: some of "ipip", "ip6ip6", "gue" and "gre", such as modes = ["ipip"]`)
	}
	if r.modes.ok && len(r.modes.values) == 0 {
		c.fault(r.modes.place, `the list is empty; write what the LB4 hosts send: some of "ipip", "ip6ip6", "gue" and "gre"`)
	}
	var all []TunnelMode
	for _, one := range r.modes.values {
		m := TunnelMode(one.value)
		switch {
		case !one.ok:
		case !slices.Contains(tunnelModes, one.value):
			c.fault(one.place, `%s is not known; write "ipip", "ip6ip6", "gue" or "gre"`, quote(one.value))
		case slices.Contains(all, m):
			c.fault(one.place, "%s is in the list twice; leave one of them out", quote(one.value))
		default:
			all = append(all, m)
		}
	}
	return all
}

// hostAddresses are addresses by which others reach a host, each once.
func (c *checker) hostAddresses(t texts, most int) []netip.Addr {
	if len(t.values) > most {
		c.fault(t.place, "there are %d addresses; write at most %d", len(t.values), most)
		return nil
	}
	var all []netip.Addr
	for _, one := range t.values {
		a, ok := c.address(one)
		switch {
		case !ok:
		case a.IsLoopback():
			c.fault(one.place, "%s is a loopback address; write one that other hosts can reach", quote(one.value))
		case slices.Contains(all, a):
			c.fault(one.place, "%s is in the list twice; leave one of them out", quote(one.value))
		default:
			all = append(all, a)
		}
	}
	return all
}
