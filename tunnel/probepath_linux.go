package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ProbePath finds out by which devices the members of the probes are reached,
// from which addresses they are probed, and what the host needs for the answers
// to come in. It changes nothing.
//
// A probe that is not possible is left out of Path.Ways, and the error joins one
// line for each reason; the rest of the Path is good.
func (h *Host) ProbePath(probes []Probe) (Path, error) {
	p := Path{Ways: make(map[Probe]Way, len(probes)), Faults: map[Probe]error{}}
	vips := make(map[netip.Addr]bool, len(probes))
	for _, probe := range probes {
		vips[probe.VIP] = true
	}
	devices := make(map[string]bool)
	routes := make(map[netip.Addr]memberRoute)
	links := make(map[int]netlink.Link)
	var errs []error
	for _, probe := range probes {
		r, known := routes[probe.Member]
		if !known {
			r = h.routeTo(probe.Member, links)
			routes[probe.Member] = r
			if r.err != nil {
				errs = append(errs, r.err)
			}
		}
		if r.err != nil {
			p.Faults[probe] = r.err
			continue
		}
		way, err := h.way(probe, r, vips)
		if err != nil {
			p.Faults[probe] = err
			errs = append(errs, err)
			continue
		}
		p.Ways[probe] = way
		if probe.VIP.Is4() {
			devices[way.Device] = true
		}
	}
	var err error
	p.Sysctls, err = pathSysctls(procSys, slices.Sorted(maps.Keys(devices)))
	return p, errors.Join(append(errs, err)...)
}

// memberRoute is how the kernel reaches a member.
type memberRoute struct {
	link netlink.Link
	mtu  int
	src  netip.Addr
	err  error
}

// routeTo asks the kernel. links are the devices that were asked for before, of
// which there are fewer than members.
func (h *Host) routeTo(member netip.Addr, links map[int]netlink.Link) memberRoute {
	fail := func(err error) memberRoute {
		return memberRoute{err: fmt.Errorf("looking for the route to member %s: %w", member, err)}
	}
	found, err := h.handle.RouteGet(member.AsSlice())
	switch {
	case err != nil:
		return fail(err)
	case len(found) == 0:
		return fail(errors.New("the kernel names none"))
	case found[0].Type == unix.RTN_LOCAL:
		return fail(errors.New("it is an address of this host"))
	}
	link, asked := links[found[0].LinkIndex]
	if !asked {
		if link, err = h.handle.LinkByIndex(found[0].LinkIndex); err != nil {
			return fail(err)
		}
		links[found[0].LinkIndex] = link
	}
	r := memberRoute{link: link, mtu: found[0].MTU}
	if r.mtu == 0 {
		r.mtu = link.Attrs().MTU
	}
	if src, ok := netip.AddrFromSlice(found[0].Src); ok {
		r.src = src.Unmap()
	}
	return r
}

// way chooses the address to probe from: the one from which this host speaks to
// the member, or, where that is of the other family than the VIP, the first of
// the same device that is good for it.
func (h *Host) way(probe Probe, r memberRoute, vips map[netip.Addr]bool) (Way, error) {
	way := Way{Device: r.link.Attrs().Name, MTU: r.mtu}
	if r.src.IsValid() && r.src.Is4() == probe.VIP.Is4() && !vips[r.src] {
		way.Source = r.src
		return way, nil
	}
	family, name := netlink.FAMILY_V4, "IPv4"
	if probe.VIP.Is6() {
		family, name = netlink.FAMILY_V6, "IPv6"
	}
	listed, err := h.handle.AddrList(r.link, family)
	if err != nil {
		return Way{}, fmt.Errorf("listing addresses of %s: %w", way.Device, err)
	}
	const unfit = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED | unix.IFA_F_TEMPORARY
	for _, l := range listed {
		addr, ok := netip.AddrFromSlice(l.IP)
		addr = addr.Unmap()
		// For IPv4 the flag of "temporary" means a secondary address.
		bad := l.Flags & unfit
		if addr.Is4() {
			bad &^= unix.IFA_F_SECONDARY
		}
		if ok && addr.IsGlobalUnicast() && l.Scope == unix.RT_SCOPE_UNIVERSE && bad == 0 && !vips[addr] {
			way.Source = addr
			return way, nil
		}
	}
	return Way{}, fmt.Errorf("choosing an address to probe %s through member %s from: device %s has no %s address but VIPs; give it one, or set via = \"direct\"",
		probe.VIP, probe.Member, way.Device, name)
}
