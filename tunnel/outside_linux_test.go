package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// outside is all that an LB4 sees of the world, in a second namespace at the
// other end of the device "uplink": users, the router, and LB7 hosts. It sends
// hand-made packets, and receives what comes out of the tunnels with raw
// sockets, so that a test sees every packet that IPVS forwards.
type outside struct {
	handle           *netlink.Handle
	send4, send6     int
	tunnel4, tunnel6 int // protocols 4 and 41: what IPVS encapsulated
	icmp4            int
}

// The addresses on either side of the uplink. The LB7 hosts have the last ones.
const (
	lb4Addr, lb4Addr6       = "192.0.2.1", "2001:db8:2::1"
	routerAddr, routerAddr6 = "192.0.2.254", "2001:db8:2::fe"
	userAddr, userAddr6     = "203.0.113.1", "2001:db8:cafe::1"
)

var lb7Addrs = []string{"192.0.2.139", "192.0.2.140", "192.0.2.141", "2001:db8:2::8b", "2001:db8:2::8c"}

// connect makes the outside, and a device "uplink" to it in the test's own
// namespace, with a default route. The test must be in a namespace of its own.
func connect(t *testing.T) *outside {
	t.Helper()
	inside, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	world, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer world.Close()
	o := &outside{}
	for _, s := range []struct {
		fd            *int
		family, proto int
	}{
		{&o.send4, unix.AF_INET, unix.IPPROTO_RAW}, {&o.send6, unix.AF_INET6, unix.IPPROTO_RAW},
		{&o.tunnel4, unix.AF_INET, unix.IPPROTO_IPIP}, {&o.tunnel6, unix.AF_INET6, unix.IPPROTO_IPV6},
		{&o.icmp4, unix.AF_INET, unix.IPPROTO_ICMP},
	} {
		fd, err := unix.Socket(s.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, s.proto)
		if err != nil {
			t.Fatal(err)
		}
		*s.fd = fd
		t.Cleanup(func() { unix.Close(fd) })
	}
	if err := netns.Set(inside); err != nil {
		t.Fatal(err)
	}
	if o.handle, err = netlink.NewHandleAt(world); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.handle.Close() })

	if err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "world", PeerNamespace: netlink.NsFd(int(world)),
	}); err != nil {
		t.Fatal(err)
	}
	here, err := netlink.NewHandle()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	wire(t, here, "uplink", lb4Addr+"/24", lb4Addr6+"/64")
	var lb7 []string
	for _, a := range lb7Addrs {
		lb7 = append(lb7, netip.PrefixFrom(netip.MustParseAddr(a), netip.MustParseAddr(a).BitLen()).String())
	}
	wire(t, o.handle, "world", append(lb7, routerAddr+"/24", routerAddr6+"/64", userAddr+"/32", userAddr6+"/128")...)
	// A neighbour that does not answer should be given up soon, but not for one
	// lost question: a device that was just set up drops what comes before its
	// queue is there.
	if err := netns.Set(world); err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		set(t, "net."+family+".neigh.world.mcast_solicit", "5")
		set(t, "net."+family+".neigh.world.retrans_time_ms", "300")
	}
	if err := netns.Set(inside); err != nil {
		t.Fatal(err)
	}
	route(t, here, "uplink", "0.0.0.0/0", routerAddr)
	route(t, here, "uplink", "::/0", routerAddr6)
	route(t, o.handle, "world", "198.51.100.0/24", lb4Addr)
	route(t, o.handle, "world", "2001:db8:1::/64", lb4Addr6)
	return o
}

// wire sets a device up and gives it addresses that are usable at once.
func wire(t *testing.T, h *netlink.Handle, device string, addresses ...string) {
	t.Helper()
	link, err := h.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(a, ":") {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, addr); err != nil {
			t.Fatalf("%s: %v", a, err)
		}
	}
}

func route(t *testing.T, h *netlink.Handle, device, to, via string) {
	t.Helper()
	link, err := h.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := netlink.ParseIPNet(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: netip.MustParseAddr(via).AsSlice()}); err != nil {
		t.Fatalf("%s via %s: %v", to, via, err)
	}
}

// asks resolves an address on the wire and tells whether it was answered for.
func (o *outside) asks(t *testing.T, addr netip.Addr) bool {
	t.Helper()
	link, err := o.handle.LinkByName("world")
	if err != nil {
		t.Fatal(err)
	}
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	// A neighbour that somebody uses is looked for; a packet of an unknown
	// protocol uses it.
	neigh := &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: family, State: netlink.NUD_NONE, IP: addr.AsSlice(), Flags: netlink.NTF_USE}
	if err := o.handle.NeighDel(neigh); err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
	if err := o.handle.NeighSet(neigh); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		list, err := o.handle.NeighList(neigh.LinkIndex, family)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list, func(n netlink.Neigh) bool { return n.IP.Equal(neigh.IP) })
		switch {
		case i < 0 || list[i].State == netlink.NUD_FAILED:
			return false
		case list[i].State&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY) != 0:
			return true
		}
	}
	t.Fatalf("%s neither answered nor failed", addr)
	return false
}

// TCP flags, RFC 9293 section 3.1.
const (
	fin = 0x01
	syn = 0x02
	ack = 0x10
)

// tcp is a segment from a user's port to port 80 of a VIP, with that many bytes
// of data. IPVS looks at no checksum when it tunnels, so there is none.
func tcp(port int, flags byte, data int) []byte {
	b := make([]byte, 20+data)
	binary.BigEndian.PutUint16(b, uint16(port))
	binary.BigEndian.PutUint16(b[2:], 80)
	b[12], b[13] = 5<<4, flags
	return b
}

// ip4 puts an IPv4 header before a payload, RFC 791, with the bit "don't
// fragment".
func ip4(from, to string, protocol byte, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[6], b[8], b[9] = 0x45, 0x40, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	copy(b[12:], netip.MustParseAddr(from).AsSlice())
	copy(b[16:], netip.MustParseAddr(to).AsSlice())
	return append(b, payload...)
}

// ip6 puts an IPv6 header before a payload, RFC 8200.
func ip6(from, to string, next byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], netip.MustParseAddr(from).AsSlice())
	copy(b[24:], netip.MustParseAddr(to).AsSlice())
	return append(b, payload...)
}

// fragmentationNeeded is what a router says when the answer of the VIP to a
// user's port is too large for it, RFC 792 and RFC 1191.
func fragmentationNeeded(port int) []byte {
	quoted := make([]byte, 8)
	binary.BigEndian.PutUint16(quoted, 80)
	binary.BigEndian.PutUint16(quoted[2:], uint16(port))
	b := append([]byte{3, 4, 0, 0, 0, 0, 0x05, 0x14}, ip4(vip, userAddr, unix.IPPROTO_TCP, quoted)...)
	// With a wrong checksum the kernel schedules the error and drops it. RFC
	// 1071.
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	return b
}

// send sends a packet, header and all.
func (o *outside) send(t *testing.T, packet []byte) {
	t.Helper()
	var err error
	if packet[0]>>4 == 4 {
		err = unix.Sendto(o.send4, packet, 0, &unix.SockaddrInet4{Addr: [4]byte(packet[16:])})
	} else {
		err = unix.Sendto(o.send6, packet, 0, &unix.SockaddrInet6{Addr: [16]byte(packet[24:])})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// arrivals waits until n packets came out of the tunnels, and tells of each in
// words: the LB7 that got it, and what it got. With n 0 it waits a little, and
// tells of those that should not have come.
func (o *outside) arrivals(t *testing.T, n int) []string {
	t.Helper()
	wait := 5 * time.Second
	if n == 0 {
		wait = 300 * time.Millisecond
	}
	var out []string
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
		if b := receive(t, o.tunnel4); b != nil {
			to, _ := netip.AddrFromSlice(b[16:20])
			out = append(out, fmt.Sprintf("%s gets %s", to, describe(b[20:])))
		} else if b := receive(t, o.tunnel6); b != nil {
			// A raw IPv6 socket leaves the header out, so this does not
			// know which LB7 it is.
			out = append(out, fmt.Sprintf("an LB7 gets %s", describe(b)))
		} else if n != 0 && len(out) >= n {
			return out
		} else {
			time.Sleep(5 * time.Millisecond)
		}
	}
	if len(out) < n {
		t.Fatalf("%d packets came out of the tunnels, want %d: %q", len(out), n, out)
	}
	return out
}

// receive returns a packet that is there, or nil.
func receive(t *testing.T, fd int) []byte {
	t.Helper()
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// describe tells what a packet within a tunnel is.
func describe(b []byte) string {
	protocol, header := b[9], 20
	if b[0]>>4 == 6 {
		protocol, header = b[6], 40
	}
	if protocol == unix.IPPROTO_ICMP {
		return fmt.Sprintf("error for port %d", binary.BigEndian.Uint16(b[header+8+20+2:]))
	}
	return fmt.Sprintf("port %d", binary.BigEndian.Uint16(b[header:]))
}
