package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"lb4d/internal/nstest"
	"lb4d/tunnel"
)

// tier is an LB4 with IPVS, in the namespace of the process, an LB7 and a user,
// joined by a switch. The LB4 is no router, so that the user hears the LB7's
// answers directly or not at all.
type tier struct {
	*world
	lb7, user *place
	d         *tunnel.Decapsulator
	stateFile string
}

const (
	memberV4, memberV6 = "192.0.2.139", "2001:db8:2::8b"
	userV4, userV6     = "192.0.2.50", "2001:db8:2::50"
)

func newTier(t *testing.T, mtu int) *tier {
	t.Helper()
	for _, module := range []string{"ipv6", "ip_vs", "ip_vs_rr", "ipip", "sit", "ip6_tunnel", "ip_gre", "ip6_gre", "fou", "veth", "dummy", "bridge"} {
		_ = exec.Command("modprobe", "-q", module).Run() // what is built in is no module
	}
	if out, err := exec.Command("ipvsadm", "-L", "-n").CombinedOutput(); err != nil {
		nstest.Lacking(t, "this kernel has no IPVS, or the machine no ipvsadm: %v\n%s", err, out)
	}
	r := &tier{
		world: &world{t: t, here: &place{t: t}, wire: newPlace(t)},
		lb7:   newPlace(t), user: newPlace(t), stateFile: filepath.Join(t.TempDir(), "tunnels.json"),
	}
	var err error
	r.here.ns, err = netns.Get()
	must(t, err)
	r.here.handle, err = netlink.NewHandle()
	must(t, err)
	r.host, err = tunnel.OpenHost()
	must(t, err)
	t.Cleanup(func() { r.host.Close() })
	must(t, r.wire.handle.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "switch"}}))
	r.wire.up("switch")
	for _, p := range []struct {
		*place
		device, port, v4, v6 string
	}{
		{r.here, "uplink", "lb4", lb4v4, lb4v6},
		{r.lb7, "eth0", "lb7", memberV4, memberV6},
		{r.user, "eth0", "user", userV4, userV6},
	} {
		p.set("net.ipv6.conf.default.accept_dad", "0")
		p.up("lo")
		r.plug(p.place, p.device, p.port, p.v4+"/24", p.v6+"/64")
		p.setMTU(p.device, mtu)
		r.setMTU(mtu, p.port)
	}
	if _, err := tunnel.ApplySysctls(tunnel.LB4Sysctls()); err != nil {
		t.Fatal(err)
	}
	var ops []tunnel.AddressOp
	for _, vip := range []string{vip4, vip6} {
		ops = append(ops, tunnel.AddressOp{Addr: netip.MustParseAddr(vip)})
	}
	_, err = r.host.ApplyAddresses(ops)
	must(t, err)
	// A strict filter is what a host may well have.
	r.lb7.set("net.ipv4.conf.all.rp_filter", "1")
	r.lb7.in(func() (err error) {
		r.d, err = tunnel.OpenDecapsulator(r.stateFile)
		return err
	})
	t.Cleanup(func() { r.d.Close() })
	r.serve()
	r.viaLB4()
	return r
}

// serve has the LB7 say how many bytes it got in each connection.
func (r *tier) serve() {
	r.t.Helper()
	r.lb7.in(func() error {
		for _, network := range []string{"tcp4", "tcp6"} {
			l, err := net.Listen(network, ":80")
			if err != nil {
				return err
			}
			r.t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						n, _ := io.Copy(io.Discard, c)
						fmt.Fprintf(c, "%d", n)
					}()
				}
			}()
		}
		return nil
	})
}

// route has the user reach both VIPs by the LB4, or on the link where via is not
// set: then it asks for the VIPs themselves.
func (r *tier) route(via bool) {
	r.t.Helper()
	for _, v := range [][2]string{{vip4, lb4v4}, {vip6, lb4v6}} {
		vip := netip.MustParseAddr(v[0])
		route := &netlink.Route{
			LinkIndex: r.user.link("eth0").Attrs().Index,
			Dst:       &net.IPNet{IP: vip.AsSlice(), Mask: net.CIDRMask(vip.BitLen(), vip.BitLen())},
		}
		if via {
			route.Gw = net.ParseIP(v[1])
		} else {
			route.Scope = netlink.SCOPE_LINK
		}
		must(r.t, r.user.handle.RouteReplace(route))
	}
	r.forget()
}

func (r *tier) viaLB4() { r.t.Helper(); r.route(true) }
func (r *tier) onLink() { r.t.Helper(); r.route(false) }

// forget empties the neighbour tables of the user and of the LB7.
func (r *tier) forget() {
	r.t.Helper()
	for _, p := range []*place{r.user, r.lb7} {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			list, err := p.handle.NeighList(p.link("eth0").Attrs().Index, family)
			must(r.t, err)
			for _, n := range list {
				if n.State != netlink.NUD_NOARP {
					if err := p.handle.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
						r.t.Fatal(err)
					}
				}
			}
		}
	}
}

// knows tells whether the user has learnt who has that address.
func (r *tier) knows(address string) bool {
	r.t.Helper()
	list, err := r.user.handle.NeighList(r.user.link("eth0").Attrs().Index, netlink.FAMILY_ALL)
	must(r.t, err)
	return slices.ContainsFunc(list, func(n netlink.Neigh) bool {
		return n.IP.Equal(net.ParseIP(address)) && len(n.HardwareAddr) > 0
	})
}

// apply makes the LB7 as wanted and fails the test on any error.
func (r *tier) apply(want tunnel.Decapsulation) (a tunnel.Applied) {
	r.t.Helper()
	r.lb7.in(func() (err error) {
		a, err = r.d.Apply(want)
		return err
	})
	return a
}

// send has IPVS send both VIPs' packets to a member by an encapsulation.
func (r *tier) send(member, encapsulation string) {
	r.t.Helper()
	nstest.Run(r.t, "ipvsadm -C")
	for _, vip := range []string{vip4, vip6} {
		nstest.Run(r.t, "ipvsadm -A -t "+bracket(vip)+":80 -s rr")
		tun := ""
		switch encapsulation {
		case "gue":
			tun = " --tun-type gue --tun-port 6080"
		case "gre":
			tun = " --tun-type gre"
		}
		nstest.Run(r.t, "ipvsadm -a -t "+bracket(vip)+":80 -r "+bracket(member)+":80 -i"+tun)
	}
}

func bracket(address string) string {
	if strings.Contains(address, ":") {
		return "[" + address + "]"
	}
	return address
}

// upload sends that many bytes from the user to a VIP and returns the largest
// segment that the user sent. The error is about what kept it from arriving.
func (r *tier) upload(vip string, bytes int, timeout time.Duration) (mss int, err error) {
	r.t.Helper()
	r.user.in(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		var c net.Conn
		// The socket is made here, on the thread that is in the namespace.
		if c, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, "tcp", bracket(vip)+":80"); err != nil {
			return nil
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(timeout))
		raw, _ := c.(*net.TCPConn).SyscallConn()
		raw.Control(func(fd uintptr) { mss, err = unix.GetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_MAXSEG) })
		if err != nil {
			return nil
		}
		if _, err = c.Write(make([]byte, bytes)); err != nil {
			return nil
		}
		c.(*net.TCPConn).CloseWrite()
		var answer []byte
		if answer, err = io.ReadAll(c); err == nil && string(answer) != strconv.Itoa(bytes) {
			err = fmt.Errorf("%q of %d bytes arrived", answer, bytes)
		}
		return nil
	})
	return mss, err
}

// counters are those of a place that tell of packets too large: fragments made
// and taken, and errors sent.
func (p *place) counters() map[string]int {
	p.t.Helper()
	found := make(map[string]int)
	p.in(func() error {
		out, err := exec.Command("nstat", "-a", "-s", "-z").CombinedOutput()
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			switch f[0] {
			case "IpFragCreates", "IpReasmReqds", "Ip6FragCreates", "Ip6ReasmReqds", "IcmpOutDestUnreachs", "Icmp6OutPktTooBigs":
				found[f[0]], _ = strconv.Atoi(f[1])
			}
		}
		return err
	})
	return found
}

// TestDecapsulatesWhatIPVSSends: for each mode, outer family and family of the
// VIP, a user's connection through IPVS is served by the LB7, which answers
// directly; its segments fit the underlay, so that nobody makes a fragment or has
// to say that a packet is too large.
func TestDecapsulatesWhatIPVSSends(t *testing.T) {
	if !inNamespaceOfItsOwn(t) {
		return
	}
	r := newTier(t, 1500)
	vips := []netip.Addr{netip.MustParseAddr(vip4), netip.MustParseAddr(vip6)}
	for _, tt := range []struct {
		mode   tunnel.Mode
		member string
		ipvs   string
	}{
		{tunnel.IPIP, memberV4, "ipip"},
		{tunnel.IP6IP6, memberV6, "ipip"},
		{tunnel.GUE, memberV4, "gue"},
		{tunnel.GUE, memberV6, "gue"},
		{tunnel.GRE, memberV4, "gre"},
		{tunnel.GRE, memberV6, "gre"},
	} {
		a := r.apply(tunnel.Decapsulation{VIPs: vips, Modes: []tunnel.Mode{tt.mode}})
		r.send(tt.member, tt.ipvs)
		for _, vip := range []string{vip4, vip6} {
			t.Run(fmt.Sprintf("%s by %s, VIP %s", tt.mode, tt.member, vip), func(t *testing.T) {
				before := []map[string]int{r.here.counters(), r.lb7.counters(), r.user.counters()}
				mss, err := r.upload(vip, 100_000, 10*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				want := a.MSS4
				if strings.Contains(vip, ":") {
					want = a.MSS6
				}
				// Time stamps take 12 bytes of each segment.
				if mss != want && mss != want-12 {
					t.Errorf("the user sends segments of %d bytes, want %d", mss, want)
				}
				for i, p := range []*place{r.here, r.lb7, r.user} {
					for name, n := range p.counters() {
						if n != before[i][name] {
							t.Errorf("at the %s, %s went from %d to %d", []string{"LB4", "LB7", "user"}[i], name, before[i][name], n)
						}
					}
				}
			})
		}
	}
	t.Run("without a limit", func(t *testing.T) {
		r.apply(tunnel.Decapsulation{VIPs: vips, Modes: []tunnel.Mode{tunnel.IPIP}, KeepRoutes: true})
		r.send(memberV4, "ipip")
		before := r.here.counters()
		for _, vip := range []string{vip4, vip6} {
			if _, err := r.upload(vip, 100_000, 10*time.Second); err != nil {
				t.Error(err)
			}
		}
		after := r.here.counters()
		for _, name := range []string{"IcmpOutDestUnreachs", "Icmp6OutPktTooBigs"} {
			if after[name] == before[name] {
				t.Errorf("%s stayed at %d: is the underlay wider than it should be?", name, after[name])
			}
		}
	})
	t.Run("torn down", func(t *testing.T) {
		r.lb7.in(func() error { _, err := r.d.Teardown(); return err })
		for _, vip := range []string{vip4, vip6} {
			if _, err := r.upload(vip, 10, time.Second); err == nil {
				t.Errorf("VIP %s still answers", vip)
			}
		}
	})
}

// TestSilentOnTheUnderlay: a neighbour that asks for a VIP is not answered, and
// none learns from the LB7's questions where a VIP is.
func TestSilentOnTheUnderlay(t *testing.T) {
	if !inNamespaceOfItsOwn(t) {
		return
	}
	r := newTier(t, 1600)
	// Of the LB4 the user shall hear nothing but by a route.
	r.here.set("net.ipv4.conf.uplink.arp_ignore", "3")
	want := tunnel.Decapsulation{
		VIPs:  []netip.Addr{netip.MustParseAddr(vip4), netip.MustParseAddr(vip6)},
		Modes: []tunnel.Mode{tunnel.IPIP},
	}
	r.apply(want)
	r.send(memberV4, "ipip")
	silent := func(t *testing.T) {
		t.Helper()
		r.onLink()
		for _, vip := range []string{vip4, vip6} {
			if _, err := r.upload(vip, 10, 5*time.Second); err == nil || r.knows(vip) {
				t.Errorf("the LB7 answered when it was asked for VIP %s", vip)
			}
		}
		r.viaLB4()
		for _, vip := range []string{vip4, vip6} {
			if _, err := r.upload(vip, 10, 10*time.Second); err != nil {
				t.Errorf("through the LB4: %v", err)
			}
			if r.knows(vip) {
				t.Errorf("the LB7 asked for the user in the name of VIP %s", vip)
			}
		}
	}
	silent(t)
	t.Run("spoiled", func(t *testing.T) {
		r.lb7.set("net.ipv4.conf.eth0.arp_ignore", "0")
		r.onLink()
		if _, err := r.upload(vip4, 10, 5*time.Second); err != nil || !r.knows(vip4) {
			t.Errorf("with arp_ignore 0 the LB7 is silent too (%v), so this test shows nothing", err)
		}
		r.lb7.set("net.ipv4.conf.eth0.arp_announce", "0")
		r.viaLB4()
		if _, err := r.upload(vip4, 10, 5*time.Second); err != nil || !r.knows(vip4) {
			t.Errorf("with arp_announce 0 the LB7 keeps the VIP to itself too (%v), so this test shows nothing", err)
		}
	})
	if a := r.apply(want); len(a.Changes) != 2 {
		t.Errorf("changes %q, want the two sysctls", a.Changes)
	}
	silent(t)
}

// TestSourcesAlone: what another host than an LB4 encapsulates is not let in.
func TestSourcesAlone(t *testing.T) {
	if !inNamespaceOfItsOwn(t) {
		return
	}
	r := newTier(t, 1600)
	vips := []netip.Addr{netip.MustParseAddr(vip4), netip.MustParseAddr(vip6)}
	for _, tt := range []struct {
		mode         tunnel.Mode
		member, ipvs string
		lb4          string
	}{
		{tunnel.IPIP, memberV4, "ipip", lb4v4},
		{tunnel.IP6IP6, memberV6, "ipip", lb4v6},
		{tunnel.GUE, memberV4, "gue", lb4v4},
		{tunnel.GUE, memberV6, "gue", lb4v6},
		{tunnel.GRE, memberV4, "gre", lb4v4},
		{tunnel.GRE, memberV6, "gre", lb4v6},
	} {
		r.send(tt.member, tt.ipvs)
		for _, source := range []string{tt.lb4, netip.MustParseAddr(tt.lb4).Next().Next().String()} {
			r.apply(tunnel.Decapsulation{VIPs: vips, Modes: []tunnel.Mode{tt.mode}, Sources: []netip.Addr{netip.MustParseAddr(source)}})
			for _, vip := range []string{vip4, vip6} {
				timeout := 10 * time.Second
				if source != tt.lb4 {
					timeout = 500 * time.Millisecond
				}
				if _, err := r.upload(vip, 10, timeout); (err == nil) != (source == tt.lb4) {
					t.Errorf("%s by %s from %s, where %s is let in: %v", tt.mode, tt.member, tt.lb4, source, err)
				}
			}
		}
	}
}
