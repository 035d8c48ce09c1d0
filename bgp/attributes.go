package bgp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// family is the address family of the route.
func (r Route) family() bgp.Family {
	if r.Prefix.Addr().Is6() {
		return bgp.RF_IPv6_UC
	}
	return bgp.RF_IPv4_UC
}

// path is the announcement with GoBGP's types. GoBGP adds what depends on the
// session: AS_PATH, and LOCAL_PREF 100 on internal ones.
func (a announcement) path() (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(a.Prefix)
	if err != nil {
		return nil, fmt.Errorf("encoding BGP route %s: %w", a.Prefix, err)
	}
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP)}
	family := a.family()
	if family == bgp.RF_IPv6_UC {
		reach, err := bgp.NewPathAttributeMpReachNLRI(family, []bgp.PathNLRI{{NLRI: nlri}}, a.nextHop)
		if err != nil {
			return nil, fmt.Errorf("encoding BGP route %s: %w", a.Prefix, err)
		}
		attrs = append(attrs, reach)
	} else {
		hop, err := bgp.NewPathAttributeNextHop(a.nextHop)
		if err != nil {
			return nil, fmt.Errorf("encoding BGP route %s: %w", a.Prefix, err)
		}
		attrs = append(attrs, hop)
	}
	if len(a.Communities) > 0 {
		attrs = append(attrs, bgp.NewPathAttributeCommunities(slices.Clone(a.Communities)))
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
	for _, attr := range p.Attrs {
		switch v := attr.(type) {
		case *bgp.PathAttributeNextHop:
			a.nextHop = v.Value
		case *bgp.PathAttributeMpReachNLRI:
			a.nextHop = v.Nexthop
		case *bgp.PathAttributeCommunities:
			a.Communities = slices.Sorted(slices.Values(v.Value))
		}
	}
	if !a.nextHop.IsValid() {
		// What is listed without a next hop is like nothing that is wanted,
		// and so is put right.
		a.nextHop = netip.Addr{}
	}
	return a, nil
}
