package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// found says what a device with a name of ours decapsulates.
func found(link netlink.Link) foundTunnel {
	f := foundTunnel{name: link.Attrs().Name, up: link.Attrs().Flags&net.FlagUp != 0}
	e, ok := decapsulates(link)
	if ok {
		f.endpoint = e
	}
	return f
}

// decapsulates tells what a tunnel device takes in. It returns false where the
// device is of another sort than ours are.
func decapsulates(link netlink.Link) (endpoint, bool) {
	var local, remote net.IP
	var e endpoint
	var plain bool
	anyone := netip.IPv4Unspecified()
	switch l := link.(type) {
	case *netlink.Iptun:
		e.kind, local, remote = kindIPIP, l.Local, l.Remote
		plain = l.EncapType == 0 && !l.FlowBased && (l.Proto == unix.IPPROTO_IPIP || l.Proto == 0)
	case *netlink.Sittun:
		e.kind, local, remote = kindSIT, l.Local, l.Remote
		plain = l.EncapType == 0 && (l.Proto == unix.IPPROTO_IPV6 || l.Proto == 0)
	case *netlink.Ip6tnl:
		e.kind, local, remote, anyone = kindTNL6, l.Local, l.Remote, netip.IPv6Unspecified()
		plain = l.EncapType == 0 && !l.FlowBased && l.Proto == 0
	case *netlink.Gretun:
		e.kind, local, remote = kindGRE, l.Local, l.Remote
		if l.Type() == "ip6gre" {
			e.kind, anyone = kindGRE6, netip.IPv6Unspecified()
		}
		plain = l.EncapType == 0 && !l.FlowBased && l.IFlags == 0
	default:
		return e, false
	}
	for _, a := range []struct {
		from net.IP
		to   *netip.Addr
	}{{local, &e.local}, {remote, &e.remote}} {
		addr, ok := netip.AddrFromSlice(a.from)
		if !ok {
			addr = anyone
		}
		*a.to = addr
	}
	return e, plain
}

// link is the device to make. Only the way in is used, so what is about the way
// out is left as the kernel has it.
func (e endpoint) link() netlink.Link {
	attrs := netlink.LinkAttrs{Name: e.name()}
	local, remote := net.IP(e.local.AsSlice()), net.IP(e.remote.AsSlice())
	switch e.kind {
	case kindIPIP:
		return &netlink.Iptun{LinkAttrs: attrs, Local: local, Remote: remote, PMtuDisc: 1, Proto: unix.IPPROTO_IPIP}
	case kindSIT:
		return &netlink.Sittun{LinkAttrs: attrs, Local: local, Remote: remote, PMtuDisc: 1, Proto: unix.IPPROTO_IPV6}
	case kindTNL6:
		return &netlink.Ip6tnl{LinkAttrs: attrs, Local: local, Remote: remote}
	default:
		return &netlink.Gretun{LinkAttrs: attrs, Local: local, Remote: remote, PMtuDisc: 1}
	}
}

// applyTunnels makes the tunnel devices equal to the wanted ones, with their
// sysctls, and names those that are up.
func (d *Decapsulator) applyTunnels(u underlay, w desired, changes *[]string) (up []string, _ error) {
	wanted := w.endpoints
	ops := diffTunnels(u.tunnels, wanted)
	// A device that could not be made need not be set up.
	failed := make(map[string]bool)
	var errs []error
	do := func(verbs ...tunnelVerb) {
		for _, op := range ops {
			if !slices.Contains(verbs, op.do) || failed[op.name] {
				continue
			}
			if err := d.applyTunnel(op); err != nil {
				failed[op.name] = true
				errs = append(errs, fmt.Errorf("applying %q: %w", op, err))
				continue
			}
			*changes = append(*changes, op.String())
		}
	}
	do(removeTunnel, addTunnel)
	// Before they are up, so that no packet comes in under others.
	var devices []string
	for _, e := range wanted {
		devices = append(devices, e.name())
	}
	present, _, err := readSysctls(procSys, decapKeys(nil, devices))
	errs = append(errs, err)
	var needed []Sysctl
	for _, device := range devices {
		if _, ok := present[confKey(device, keyRPFilter)]; ok {
			needed = append(needed, tunnelSysctls(device, present)...)
		}
	}
	done, err := applySysctls(procSys, needed)
	errs = append(errs, err)
	for _, c := range done {
		*changes = append(*changes, "set "+c.String())
	}
	do(raiseTunnel)
	// What was changed, or was given other sysctls, which make and unmake
	// addresses, is not as it was listed.
	changed := len(ops) > 0 || len(done) > 0
	for _, e := range wanted {
		if failed[e.name()] {
			continue
		}
		link := u.link(e.name())
		var addresses []netlink.Addr
		if changed || link == nil {
			var err error
			if link, addresses, err = d.lookAgain(e); err != nil {
				errs = append(errs, err)
				continue
			}
		} else {
			addresses = u.on(link.Attrs().Index)
		}
		if link.Attrs().Flags&net.FlagUp != 0 {
			up = append(up, e.name())
		}
		errs = append(errs, d.anchor(e, link, addresses, w.anchor, changes))
	}
	return up, errors.Join(errs...)
}

// lookAgain lists a device that may have been changed.
func (d *Decapsulator) lookAgain(e endpoint) (netlink.Link, []netlink.Addr, error) {
	link, err := d.host.handle.LinkByName(e.name())
	if err != nil {
		return nil, nil, fmt.Errorf("looking for device %s: %w", e.name(), err)
	}
	listed, err := d.host.handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, nil, fmt.Errorf("listing addresses of %s: %w", e.name(), err)
	}
	return link, listed, nil
}

// anchor gives a device the address of one VIP. A packet that comes in by a device
// without any IPv4 address passes no reverse path filter, not even the loose one
// (fib_frontend.c, __fib_validate_source, no_addr), and "all" may have one that is
// not ours to change. The VIP is local already, so that one more of it says
// nothing new.
//
// Other addresses are taken away: for sit the kernel makes one up,
// ::192.0.2.139/96, whenever the device is set up (addrconf.c, add_v4_addrs).
func (d *Decapsulator) anchor(e endpoint, link netlink.Link, listed []netlink.Addr, wanted netip.Addr, changes *[]string) error {
	there := false
	for _, l := range listed {
		addr, _ := netip.AddrFromSlice(l.IP)
		addr = addr.Unmap()
		if bits, _ := l.Mask.Size(); addr == wanted && e.kind != kindSIT && bits == addr.BitLen() && l.Scope == unix.RT_SCOPE_HOST {
			there = true
			continue
		}
		if err := d.host.handle.AddrDel(link, &l); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("removing address %s from device %s: %w", l.IPNet, e.name(), explain(err))
		}
		*changes = append(*changes, fmt.Sprintf("remove address %s from %s", l.IPNet, e.name()))
	}
	if there || !wanted.IsValid() || e.kind == kindSIT {
		return nil
	}
	a := address(wanted)
	a.Scope = unix.RT_SCOPE_HOST
	if err := d.host.handle.AddrAdd(link, a); err != nil {
		return fmt.Errorf("giving device %s the address %s: %w", e.name(), wanted, explain(err))
	}
	*changes = append(*changes, fmt.Sprintf("add address %s to %s", a.IPNet, e.name()))
	return nil
}

func (d *Decapsulator) applyTunnel(op tunnelOp) error {
	h := d.host.handle
	if op.do == addTunnel {
		err := h.LinkAdd(op.endpoint.link())
		switch {
		case errors.Is(err, unix.EOPNOTSUPP):
			k := kinds[op.endpoint.kind]
			return fmt.Errorf(`this kernel has no %s devices; load them with "modprobe %s": %w`, k.link, k.module, err)
		case errors.Is(err, unix.EEXIST):
			if other := d.rival(op.endpoint); other != "" {
				return fmt.Errorf("device %s decapsulates the same: delete it, or take the mode out: %w", other, err)
			}
		}
		return explain(err)
	}
	link, err := h.LinkByName(op.name)
	if errors.As(err, &netlink.LinkNotFoundError{}) && op.do == removeTunnel {
		return nil
	}
	if err != nil {
		return err
	}
	if op.do == removeTunnel {
		return explain(h.LinkDel(link))
	}
	return explain(h.LinkSetUp(link))
}

// rival names the device that takes in what an endpoint would.
func (d *Decapsulator) rival(e endpoint) string {
	links, err := d.host.handle.LinkList()
	if err != nil {
		return ""
	}
	for _, link := range links {
		if other, _ := decapsulates(link); other == e {
			return link.Attrs().Name
		}
	}
	return ""
}

// applyListeners opens the wanted GUE ports, and closes those that were opened
// here and are wanted no longer.
func (d *Decapsulator) applyListeners(wanted []gueListener, changes *[]string) error {
	if len(wanted) == 0 && len(d.noted.GUE) == 0 {
		return nil
	}
	listed, err := listPorts()
	switch {
	case errors.Is(err, errNoFOU) && len(wanted) == 0:
		d.noted.GUE = nil
		return nil
	case errors.Is(err, errNoFOU):
		return fmt.Errorf("opening %s: %w", wanted[0], err)
	case err != nil:
		return fmt.Errorf("listing GUE ports: %w", explain(err))
	}
	var errs []error
	is := func(g gueListener) (there, gue bool) {
		i := slices.IndexFunc(listed, func(p openPort) bool { return p.gueListener == g })
		return i >= 0, i >= 0 && listed[i].gue
	}
	for _, g := range slices.Clone(d.noted.GUE) {
		if slices.Contains(wanted, g) {
			continue
		}
		if there, gue := is(g); there && gue {
			if err := g.close(); err != nil {
				errs = append(errs, fmt.Errorf("closing %s: %w", g, explain(err)))
				continue
			}
			*changes = append(*changes, "close "+g.String())
		}
		d.noted.GUE = slices.DeleteFunc(d.noted.GUE, func(n gueListener) bool { return n == g })
	}
	for _, g := range wanted {
		there, gue := is(g)
		switch {
		case there && gue:
			continue
		case there:
			errs = append(errs, fmt.Errorf("opening %s: the port takes other UDP encapsulation (ip fou show): choose another, or close it", g))
			continue
		}
		if !slices.Contains(d.noted.GUE, g) {
			d.noted.GUE = append(d.noted.GUE, g)
			if err := d.note(); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		err := g.open()
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			errs = append(errs, fmt.Errorf("opening %s: another program has the UDP port: %w", g, err))
		case err != nil:
			errs = append(errs, fmt.Errorf("opening %s: %w", g, explain(err)))
		default:
			*changes = append(*changes, "open "+g.String())
		}
	}
	return errors.Join(errs...)
}
