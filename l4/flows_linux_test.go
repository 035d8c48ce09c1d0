package l4

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attach makes the VIPs and all addresses of randomClient local, and gives the
// destinations a device that they are reached through.
func attach(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	out := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "out"}}
	if err := netlink.LinkAdd(out); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(out); err != nil {
		t.Fatal(err)
	}
	for _, on := range []struct {
		link netlink.Link
		addr string
	}{
		{lo, "198.51.100.1/32"}, {lo, "2001:db8::c633:6401/128"},
		{out, "192.0.2.1/24"}, {out, "2001:db8::1/64"},
	} {
		addr, err := netlink.ParseAddr(on.addr)
		if err != nil {
			t.Fatal(err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(on.link, addr); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"10.0.0.0/8", "2001:db8:c::/48"} {
		dst, err := netlink.ParseIPNet(prefix)
		if err != nil {
			t.Fatal(err)
		}
		route := &netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: dst,
			Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		}
		if err := netlink.RouteAdd(route); err != nil {
			t.Fatalf("adding a local route to %s: %v", prefix, err)
		}
	}
}

// sendFlows begins n flows to a service, each from a client of its own.
func sendFlows(t *testing.T, s Service, n int) map[netip.AddrPort]bool {
	t.Helper()
	r := rand.New(rand.NewPCG(6, 6))
	family, kind := unix.AF_INET, unix.SOCK_DGRAM
	if s.VIP.Is6() {
		family = unix.AF_INET6
	}
	if s.Protocol == TCP {
		kind = unix.SOCK_STREAM | unix.SOCK_NONBLOCK
	}
	vip := sockaddr(netip.AddrPortFrom(s.VIP, s.Port))
	sent := make(map[netip.AddrPort]bool, n)
	for len(sent) < n {
		client := randomClient(r, s.VIP.Is6())
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if s.VIP.Is6() { // a local route does not do
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Bind(fd, sockaddr(client)); err != nil {
			t.Fatalf("binding to %s: %v", client, err)
		}
		if s.Protocol == TCP {
			// The handshake has no end, for there is nobody at the other one.
			err = unix.Connect(fd, vip)
			if errors.Is(err, unix.EINPROGRESS) {
				err = nil
			}
		} else {
			err = unix.Sendto(fd, []byte("x"), 0, vip)
		}
		if err != nil && !errors.Is(err, unix.EPERM) { // a flow that IPVS refuses
			t.Fatalf("sending from %s: %v", client, err)
		}
		_ = unix.Close(fd)
		sent[client] = true
	}
	return sent
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
}

// connections is the kernel's list of flows: the destination of each client.
func connections(t *testing.T) map[netip.AddrPort]netip.AddrPort {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/ip_vs_conn")
	if err != nil {
		t.Fatal(err)
	}
	list := make(map[netip.AddrPort]netip.AddrPort)
	for line := range strings.Lines(string(b)) {
		// UDP CB007101 4E20 C6336401 0050 C000028B 0050 UDP 300
		f := strings.Fields(line)
		if len(f) < 8 || (f[0] != "UDP" && f[0] != "TCP") {
			continue
		}
		list[procAddrPort(t, f[1], f[2])] = procAddrPort(t, f[5], f[6])
	}
	return list
}

// procAddrPort reads an address and a port as the kernel prints them.
func procAddrPort(t *testing.T, addr, port string) netip.AddrPort {
	t.Helper()
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(addr, ":") {
		return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(p))
	}
	v, err := strconv.ParseUint(addr, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), uint16(p))
}
