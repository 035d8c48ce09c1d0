package l4

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKernelEncapsulations looks at what leaves the host: the outer header of a
// flow's packet, for every encapsulation and every pair of families.
func TestKernelEncapsulations(t *testing.T) {
	const a, a6 = "192.0.2.139", "2001:db8::c000:28b"
	openInNamespace(t) // skips the whole test, where it does
	for _, tt := range []struct {
		vip6 bool
		dest string
		e    Encapsulation
		want string
	}{
		{false, a, IPIP, "IPv4, protocol 4"},
		{false, a, GUE, "IPv4, protocol 17, port 6080"},
		{false, a, GRE, "IPv4, protocol 47"},
		{true, a, IPIP, "IPv4, protocol 41"},
		{true, a, GUE, "IPv4, protocol 17, port 6080"},
		{true, a, GRE, "IPv4, protocol 47"},
		{true, a6, IPIP, "IPv6, protocol 41"},
		{true, a6, GUE, "IPv6, protocol 17, port 6080"},
		{true, a6, GRE, "IPv6, protocol 47"},
		{false, a6, IPIP, "IPv6, protocol 4"},
	} {
		t.Run(fmt.Sprintf("%s to %s, IPv6 VIP %t", tt.e, tt.dest, tt.vip6), func(t *testing.T) {
			k := openInNamespace(t)
			attach(t)
			d := up(tt.dest, 1)
			d.Encapsulation = tt.e
			if tt.e == GUE {
				d.GUEPort = DefaultGUEPort
			}
			s := www(d)
			if tt.vip6 {
				s = www6(d)
			}
			s.Protocol = UDP
			apply(t, k, Table{s})
			wire := listen(t)
			sendFlows(t, s, 1)
			if got := outer(t, wire, netip.MustParseAddr(tt.dest)); got != tt.want {
				t.Errorf("left as %s, want %s", got, tt.want)
			}
		})
	}
}

// listen opens a socket that gets what leaves through the destinations' device.
func listen(t *testing.T) int {
	t.Helper()
	out, err := net.InterfaceByName("out")
	if err != nil {
		t.Fatal(err)
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: out.Index}); err != nil {
		t.Fatal(err)
	}
	timeout := unix.NsecToTimeval(int64(10 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	return fd
}

// outer describes the outer header of the first packet to a destination.
func outer(t *testing.T, wire int, dest netip.Addr) string {
	t.Helper()
	packet := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(wire, packet, 0)
		if err != nil {
			t.Fatalf("waiting for a packet: %v", err)
		}
		b := packet[:n]
		var to netip.Addr
		var protocol byte
		var payload []byte
		family := "IPv4"
		switch {
		case n >= 24 && b[0] == 0x45:
			to, protocol, payload = netip.AddrFrom4([4]byte(b[16:20])), b[9], b[20:]
		case n >= 44 && b[0]>>4 == 6:
			family = "IPv6"
			to, protocol, payload = netip.AddrFrom16([16]byte(b[24:40])), b[6], b[40:]
		}
		if to != dest {
			continue
		}
		// An option that limits nested tunnels comes first (RFC 2473, 4.1.1).
		if family == "IPv6" && protocol == 60 {
			protocol, payload = payload[0], payload[8:]
		}
		description := fmt.Sprintf("%s, protocol %d", family, protocol)
		if protocol == unix.IPPROTO_UDP {
			description += fmt.Sprintf(", port %d", binary.BigEndian.Uint16(payload[2:4]))
		}
		return description
	}
}
