package bgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// A marker says of a path in GoBGP's table that the route itself has set an
// attribute, so that the peer's does not count. It is an extended community, a
// route target of AS 0, which nobody can have (RFC 7607). The export policy
// asks for it, and takes it away again: no peer ever sees one.
type marker uint32

const (
	setsCommunities marker = 1 + iota
	setsLargeCommunities
	setsMED
	setsLocalPreference
	setsPrepend
	setsNextHop
	// prepends is the first of MaxPrepend markers: the AS is to be prepended
	// once, twice and so on. In the path itself it would make GoBGP, and every
	// internal peer, believe in a loop.
	prepends
)

// times is the marker for a route that prepends n times, n from 1 on.
func (m marker) times(n int) marker { return m + marker(n) - 1 }

// markers are those of one path, a bit for each.
type markers uint64

func (s markers) has(m marker) bool { return s&(1<<m) != 0 }

func (m marker) extended() bgp.ExtendedCommunityInterface {
	return bgp.NewTwoOctetAsSpecificExtended(bgp.EC_SUBTYPE_ROUTE_TARGET, 0, uint32(m), true)
}

// String is the marker as GoBGP's policies name it.
func (m marker) String() string { return fmt.Sprintf("rt:0:%d", uint32(m)) }

// family is the address family of the route.
func (r Route) family() bgp.Family {
	if r.Prefix.Addr().Is6() {
		return bgp.RF_IPv6_UC
	}
	return bgp.RF_IPv4_UC
}

// path is the announcement with GoBGP's types. GoBGP adds what depends on the
// session: AS_PATH, LOCAL_PREF 100 on internal ones, and what the export policy
// says.
func (a announcement) path() (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(a.Prefix)
	if err != nil {
		return nil, fmt.Errorf("encoding BGP route %s: %w", a.Prefix, err)
	}
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)}
	var marks []bgp.ExtendedCommunityInterface
	mark := func(set bool, m marker) {
		if set {
			marks = append(marks, m.extended())
		}
	}

	family := a.family()
	if family == bgp.RF_IPv6_UC {
		reach, err := bgp.NewPathAttributeMpReachNLRI(family, []bgp.PathNLRI{{NLRI: nlri}}, a.hop)
		if err != nil {
			return nil, fmt.Errorf("encoding BGP route %s: %w", a.Prefix, err)
		}
		attrs = append(attrs, reach)
	} else {
		hop, err := bgp.NewPathAttributeNextHop(a.hop)
		if err != nil {
			return nil, fmt.Errorf("encoding BGP route %s: %w", a.Prefix, err)
		}
		attrs = append(attrs, hop)
	}
	mark(a.nextHop(a.Prefix.Addr()).IsValid(), setsNextHop)

	communities := a.Communities
	if a.Draining {
		communities = append(slices.Clip(communities), GracefulShutdown)
	}
	if len(communities) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeCommunities(slices.Clone(communities)))
	}
	mark(a.Communities != nil, setsCommunities)

	if said := slices.Concat(a.LargeCommunities, a.tags); len(said) > 0 {
		large := make([]*bgp.LargeCommunity, len(said))
		for i, c := range said {
			large[i] = &bgp.LargeCommunity{ASN: c[0], LocalData1: c[1], LocalData2: c[2]}
		}
		attrs = append(attrs, bgp.NewPathAttributeLargeCommunities(large))
	}
	mark(a.LargeCommunities != nil, setsLargeCommunities)

	if a.MED != nil {
		attrs = append(attrs, bgp.NewPathAttributeMultiExitDisc(*a.MED))
		mark(true, setsMED)
	}
	if a.LocalPreference != nil {
		attrs = append(attrs, bgp.NewPathAttributeLocalPref(*a.LocalPreference))
		mark(true, setsLocalPreference)
	}
	if a.Prepend != nil {
		mark(true, setsPrepend)
		mark(*a.Prepend > 0, prepends.times(*a.Prepend))
	}
	if marks != nil {
		attrs = append(attrs, bgp.NewPathAttributeExtendedCommunities(marks))
	}
	return &apiutil.Path{Family: family, Nlri: nlri, Attrs: attrs}, nil
}

// announcementOf is the reverse of path.
func announcementOf(nlri bgp.NLRI, p *apiutil.Path) (announcement, error) {
	prefix, ok := nlri.(*bgp.IPAddrPrefix)
	if !ok {
		return announcement{}, fmt.Errorf("reading the BGP table: %s is no unicast prefix", nlri)
	}
	a := announcement{Route: Route{Prefix: prefix.Prefix}}
	var set markers
	for _, attr := range p.Attrs {
		switch v := attr.(type) {
		case *bgp.PathAttributeNextHop:
			a.hop = v.Value
		case *bgp.PathAttributeMpReachNLRI:
			a.hop = v.Nexthop
		case *bgp.PathAttributeCommunities:
			a.Communities = slices.Clone(v.Value)
			slices.Sort(a.Communities)
		case *bgp.PathAttributeLargeCommunities:
			for _, c := range v.Values {
				said := [3]uint32{c.ASN, c.LocalData1, c.LocalData2}
				if !isTag(said) {
					a.LargeCommunities = append(a.LargeCommunities, said)
					continue
				}
				a.tags = append(a.tags, said)
				if c.LocalData1 == FingerprintTag {
					a.Fingerprint = new(c.LocalData2)
				}
			}
		case *bgp.PathAttributeMultiExitDisc:
			a.MED = new(v.Value)
		case *bgp.PathAttributeLocalPref:
			a.LocalPreference = new(v.Value)
		case *bgp.PathAttributeExtendedCommunities:
			for _, c := range v.Value {
				if c, ok := c.(*bgp.TwoOctetAsSpecificExtended); ok {
					set |= 1 << c.LocalAdmin
				}
			}
		}
	}
	if i := slices.Index(a.Communities, GracefulShutdown); i >= 0 {
		a.Draining = true
		a.Communities = slices.Delete(a.Communities, i, i+1)
	}
	a.Communities = given(a.Communities, set.has(setsCommunities))
	a.LargeCommunities = given(a.LargeCommunities, set.has(setsLargeCommunities))
	if set.has(setsPrepend) {
		a.Prepend = new(0)
		for n := 1; n <= MaxPrepend; n++ {
			if set.has(prepends.times(n)) {
				a.Prepend = new(n)
			}
		}
	}
	if set.has(setsNextHop) {
		if a.Prefix.Addr().Is4() {
			a.NextHop4 = a.hop
		} else {
			a.NextHop6 = a.hop
		}
	}
	return a, nil
}

// given tells an empty list from none by whether it was set.
func given[T any](list []T, set bool) []T {
	if !set {
		return nil
	}
	if list == nil {
		return []T{}
	}
	return list
}

// announcement is a route as it stands in GoBGP's table.
type announcement struct {
	Route
	// hop is the next hop in the table. Where neither the route nor the peer
	// sets one it serves the sessions of the other address family, and those
	// on link-local addresses, and is unspecified where there are none; the
	// other sessions are sent their own local address (exportPolicy).
	hop netip.Addr
	// tags are the large communities that tell of the fingerprint.
	tags [][3]uint32
}

// tags are what a route with a fingerprint says besides its attributes.
func (o Options) tags(fingerprint *uint32) [][3]uint32 {
	if fingerprint == nil {
		return nil
	}
	id := o.RouterID.As4()
	return [][3]uint32{{o.AS, FingerprintTag, *fingerprint}, {o.AS, RouterTag, binary.BigEndian.Uint32(id[:])}}
}

func isTag(c [3]uint32) bool { return c[1] == FingerprintTag || c[1] == RouterTag }

// String is the prefix and what is said of it.
func (r Route) String() string {
	s := r.Prefix.String()
	if attributes := r.Attributes.String(); attributes != "" {
		s += " " + attributes
	}
	if r.Draining {
		s += " draining"
	}
	if r.Fingerprint != nil {
		s += fmt.Sprintf(" fingerprint %08x", *r.Fingerprint)
	}
	return s
}

// canonical is a copy of the route as the table lists it.
func (r Route) canonical() Route {
	r.Attributes, r.Fingerprint = r.Attributes.canonical(), copied(r.Fingerprint)
	if i := slices.Index(r.Communities, GracefulShutdown); i >= 0 {
		r.Draining, r.Communities = true, slices.Delete(r.Communities, i, i+1)
	}
	if r.Prefix.Addr().Is4() {
		r.NextHop6 = netip.Addr{}
	} else {
		r.NextHop4 = netip.Addr{}
	}
	return r
}

func (r Route) equal(o Route) bool {
	return r.Prefix == o.Prefix && r.Draining == o.Draining && sameValue(r.Fingerprint, o.Fingerprint) &&
		r.Attributes.Equal(o.Attributes)
}

func (a announcement) equal(b announcement) bool { return a.hop == b.hop && a.Route.equal(b.Route) }
