package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// switchName is the namespace that holds the bridges, so that they are on
// nobody's routing table.
const switchName = "switch"

// wiring is the lab's namespaces, joined.
type wiring struct {
	ether  *place
	places map[string]*place // by host
}

// wire makes the namespaces of all hosts and joins them as the topology says.
// Each host's own directories lie below root/NAME, where they must exist.
func wire(ctx context.Context, t *Topology, root string) (*wiring, error) {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return nil, fmt.Errorf("wiring the lab: %w", err)
	}
	w := &wiring{places: make(map[string]*place)}
	if err := w.open(t, root); err != nil {
		w.close()
		return nil, err
	}
	if err := w.connect(ctx, t); err != nil {
		w.close()
		return nil, fmt.Errorf("wiring the lab: %w", err)
	}
	return w, nil
}

func (w *wiring) open(t *Topology, root string) error {
	var err error
	if w.ether, err = openPlace(switchName, "", nil); err != nil {
		return err
	}
	for _, h := range t.Hosts {
		p, err := openPlace(h.Name, filepath.Join(root, h.Name), h.Directories)
		if err != nil {
			return err
		}
		w.places[h.Name] = p
	}
	return nil
}

func (w *wiring) close() {
	for _, p := range w.places {
		p.close()
	}
	if w.ether != nil {
		w.ether.close()
	}
}

func (w *wiring) connect(ctx context.Context, t *Topology) error {
	err := w.ether.do(func() error {
		// Bridges pass frames on; they need no addresses of their own.
		return setSysctls([]Sysctl{{"net/ipv6/conf/default/disable_ipv6", "1"}})
	})
	if err != nil {
		return fmt.Errorf("preparing the switch: %w", err)
	}
	mtu := make(map[string]int)
	bridges := make(map[string]netlink.Link)
	for _, s := range t.Segments {
		// Snooping would drop neighbour discovery until a querier shows up.
		snooping := false
		br := &netlink.Bridge{
			LinkAttrs:         netlink.LinkAttrs{Name: s.Name, MTU: s.MTU, Flags: net.FlagUp},
			MulticastSnooping: &snooping,
		}
		if err := w.ether.rtnl.LinkAdd(br); err != nil {
			return fmt.Errorf("adding the bridge %s: %w", s.Name, err)
		}
		mtu[s.Name], bridges[s.Name] = s.MTU, br
	}
	group, ctx := errgroup.WithContext(ctx)
	for i := range t.Hosts {
		h := &t.Hosts[i]
		group.Go(func() error {
			if err := w.host(ctx, h, mtu, bridges); err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// host gives a host its settings, devices, addresses and routes.
func (w *wiring) host(ctx context.Context, h *Host, mtu map[string]int, bridges map[string]netlink.Link) error {
	p := w.places[h.Name]
	if err := p.do(func() error { return setSysctls(h.Sysctls) }); err != nil {
		return err
	}
	lo, err := p.rtnl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := p.rtnl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("raising lo: %w", err)
	}
	if err := p.addAddresses(lo, h.Loopback); err != nil {
		return err
	}
	for i, l := range h.Links {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.plug(p, l, portName(h.Name, i), mtu[l.Segment], bridges[l.Segment]); err != nil {
			return fmt.Errorf("adding the link %s: %w", l.Device, err)
		}
	}
	for _, r := range h.Routes {
		if err := p.rtnl.RouteAdd(route(r)); err != nil {
			return fmt.Errorf("adding the route to %v via %v: %w", r.To, r.Via, err)
		}
	}
	return nil
}

// portName is the switch's end of a host's link.
func portName(host string, link int) string { return fmt.Sprintf("%s.%d", host, link) }

// plug connects a host to a bridge; port names the bridge's end.
func (w *wiring) plug(p *place, l Link, port string, mtu int, bridge netlink.Link) error {
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: l.Device, MTU: mtu, Flags: net.FlagUp},
		PeerName:      port,
		PeerMTU:       uint32(mtu),
		PeerNamespace: netlink.NsFd(w.ether.netns.Fd()),
	}
	if err := p.rtnl.LinkAdd(veth); err != nil {
		return err
	}
	end, err := w.ether.rtnl.LinkByName(port)
	if err != nil {
		return fmt.Errorf("finding its other end: %w", err)
	}
	if err := w.ether.rtnl.LinkSetMaster(end, bridge); err != nil {
		return fmt.Errorf("plugging it into the bridge: %w", err)
	}
	if err := w.ether.rtnl.LinkSetUp(end); err != nil {
		return fmt.Errorf("raising its other end: %w", err)
	}
	return p.addAddresses(veth, l.Addresses)
}

func (p *place) addAddresses(link netlink.Link, addrs []netip.Prefix) error {
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := p.rtnl.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("adding the address %v to %s: %w", a, link.Attrs().Name, err)
		}
	}
	return nil
}

func route(r Route) *netlink.Route {
	out := &netlink.Route{Dst: ipNet(r.To)}
	if len(r.Via) == 1 {
		out.Gw = r.Via[0].AsSlice()
		return out
	}
	for _, via := range r.Via {
		out.MultiPath = append(out.MultiPath, &netlink.NexthopInfo{Gw: via.AsSlice()})
	}
	return out
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// setSysctls sets them in the network namespace of the calling thread.
func setSysctls(all []Sysctl) error {
	var errs []error
	for _, s := range all {
		if err := os.WriteFile(filepath.Join("/proc/sys", s.Key), []byte(s.Value), 0); err != nil {
			errs = append(errs, fmt.Errorf("setting a sysctl: %w", err))
		}
	}
	return errors.Join(errs...)
}
