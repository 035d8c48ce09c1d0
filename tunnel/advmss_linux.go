package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// limitSegments keeps the routes of the main table from asking users for
// segments that the underlay cannot carry once they are encapsulated.
//
// The routes stay where they are, and whose they are: a copy for answers from
// the VIPs, in a table of its own, would point at a dead router as soon as
// nobody keeps it. Where a routing daemon writes one anew, it is limited again.
func (d *Decapsulator) limitSegments(u underlay, mss4, mss6 int, a *Applied) error {
	if mss4 == 0 && mss6 == 0 && len(d.noted.MSS) == 0 {
		return nil
	}
	routes, err := d.routes(u, a)
	if err != nil {
		return err
	}
	var listed []routeMSS
	for _, r := range routes {
		listed = append(listed, r.routeMSS)
	}
	ops, after := diffMSS(listed, d.noted.MSS, mss4, mss6)
	if !slices.Equal(after, d.noted.MSS) {
		// What is set back now stays noted until it is.
		pending := slices.Clone(after)
		for _, n := range d.noted.MSS {
			stays := slices.ContainsFunc(after, func(p notedMSS) bool { return p.Route == n.Route })
			if gone := !slices.ContainsFunc(listed, func(r routeMSS) bool { return r.key == n.Route }); !stays && !gone {
				pending = append(pending, n)
			}
		}
		d.noted.MSS = pending
		if err := d.note(); err != nil {
			return err
		}
	}
	var errs []error
	for _, op := range ops {
		i := slices.IndexFunc(routes, func(r kernelRoute) bool { return r.key == op.key })
		if err := d.setMSS(routes[i].route, op.to); err != nil {
			errs = append(errs, fmt.Errorf("applying %q: %w", op, explain(err)))
			continue
		}
		a.Changes = append(a.Changes, op.String())
	}
	if len(errs) == 0 && !slices.Equal(after, d.noted.MSS) {
		d.noted.MSS = after
		errs = append(errs, d.note())
	}
	return errors.Join(errs...)
}

// kernelRoute is a route with what the kernel says of it.
type kernelRoute struct {
	routeMSS
	route netlink.Route
}

// routes lists the routes of the main table that answers may take.
func (d *Decapsulator) routes(u underlay, a *Applied) ([]kernelRoute, error) {
	mtus := make(map[int]int, len(u.links))
	for _, link := range u.links {
		if name := link.Attrs().Name; name != "lo" && name != Device && !ours(name) {
			mtus[link.Attrs().Index] = link.Attrs().MTU
		}
	}
	listed, err := d.host.handle.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	if len(listed) > maxRoutes {
		return nil, fmt.Errorf("limiting segments: the main table has %d routes, and at most %d are looked after: have the routing daemon set advmss, or HAProxy mss", len(listed), maxRoutes)
	}
	var all []kernelRoute
	for _, r := range listed {
		k := kernelRoute{route: r, routeMSS: routeMSS{advmss: r.AdvMSS}}
		k.key = routeKey{Priority: r.Priority, Tos: r.Tos, Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
		if r.Family == netlink.FAMILY_V6 {
			k.key.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if r.Dst != nil {
			if addr, ok := netip.AddrFromSlice(r.Dst.IP); ok {
				ones, _ := r.Dst.Mask.Size()
				// The library writes the default of IPv4 as one of IPv6.
				if r.Family == netlink.FAMILY_V4 {
					addr = addr.Unmap()
				}
				k.key.Dst = netip.PrefixFrom(addr, ones)
			}
		}
		dst := k.key.Dst.Addr()
		if r.Type != unix.RTN_UNICAST || dst.IsMulticast() || dst.IsLinkLocalUnicast() || r.Table != unix.RT_TABLE_MAIN {
			continue
		}
		// The widest way counts where there are several.
		mtu := mtus[r.LinkIndex]
		for _, hop := range r.MultiPath {
			mtu = max(mtu, mtus[hop.LinkIndex])
		}
		if mtu == 0 {
			continue
		}
		if r.MTU != 0 {
			mtu = r.MTU
		}
		k.derived = mtu - overTCP4
		if dst.Is6() {
			k.derived = mtu - overTCP6
		}
		// To write these back would be to make others of them.
		switch {
		case r.Protocol == unix.RTPROT_RA || r.Protocol == unix.RTPROT_KERNEL && r.Expires > 0:
			a.Unlimited = append(a.Unlimited, k.key.String()+": the kernel keeps it after router advertisements")
			continue
		case r.Encap != nil:
			a.Unlimited = append(a.Unlimited, k.key.String()+": it encapsulates")
			continue
		}
		all = append(all, k)
	}
	return all, nil
}

// setMSS writes a route anew with another advmss, 0 for none.
func (d *Decapsulator) setMSS(r netlink.Route, mss int) error {
	r.AdvMSS = mss
	// What a listing adds about the moment is no part of a route.
	r.Flags &= int(netlink.FLAG_ONLINK)
	for _, hop := range r.MultiPath {
		hop.Flags &= int(netlink.FLAG_ONLINK)
	}
	r.CacheInfo, r.Expires = nil, 0
	if r.NHID == 0 {
		return d.host.handle.RouteChange(&r)
	}
	return setMSSByNexthop(r)
}

// setMSSByNexthop is setMSS for a route that has a nexthop object, as FRR makes
// them. For IPv6 the kernel takes no device beside it (route.c,
// rtm_to_fib6_config), not even none, and the library always names one. For IPv4
// it takes a route without metrics for one that it knows with them
// (fib_semantics.c, fib_find_info_nh), so that none has to be said as 0.
func setMSSByNexthop(r netlink.Route) error {
	ones, _ := r.Dst.Mask.Size()
	address := func(ip net.IP) []byte {
		if r.Family == netlink.FAMILY_V4 {
			return ip.To4()
		}
		return ip.To16()
	}
	message := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: uint8(r.Family), Dst_len: uint8(ones), Tos: uint8(r.Tos), Table: unix.RT_TABLE_MAIN,
		Protocol: uint8(r.Protocol), Scope: uint8(r.Scope), Type: uint8(r.Type),
	}}
	request := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.RTA_DST, address(r.Dst.IP)))
	request.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(r.Priority))))
	request.AddData(nl.NewRtAttr(netlink.RTA_NH_ID, nl.Uint32Attr(r.NHID)))
	if r.Src != nil {
		request.AddData(nl.NewRtAttr(unix.RTA_PREFSRC, address(r.Src)))
	}
	metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
	for _, m := range []struct{ metric, value int }{{unix.RTAX_MTU, r.MTU}, {unix.RTAX_ADVMSS, r.AdvMSS}, {unix.RTAX_INITCWND, r.InitCwnd}} {
		if m.value > 0 || m.metric == unix.RTAX_ADVMSS {
			metrics.AddRtAttr(m.metric, nl.Uint32Attr(uint32(m.value)))
		}
	}
	request.AddData(metrics)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
