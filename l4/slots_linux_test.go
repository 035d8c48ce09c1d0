package l4

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// TestKernelSlots has the kernel schedule flows, and compares a host on which a
// member began to drain with one that was started while it did. Both must send
// every flow to the same destination; a host that adds the draining member at
// weight 0 does not, which is why Diff does not do so.
func TestKernelSlots(t *testing.T) {
	const a, b, c = "192.0.2.139", "192.0.2.140", "192.0.2.141"
	full := Table{datagrams(up(a, 1), up(b, 1), up(c, 1))}
	drained := Table{datagrams(up(a, 1), draining(b, 1), up(c, 1))}
	naive := Table{datagrams(up(a, 1), draining(b, 0), up(c, 1))}

	openInNamespace(t) // skips the whole test, where it does
	schedule := func(name string, tables ...Table) map[int]string {
		var chosen map[int]string
		t.Run(name, func(t *testing.T) {
			k := openInNamespace(t)
			attach(t)
			for _, table := range tables {
				apply(t, k, table)
			}
			chosen = scheduled(t, 300)
		})
		return chosen
	}
	before := schedule("full", full)
	ran := schedule("drained", full, drained)
	started := schedule("started drained", drained)
	if diff := cmp.Diff(ran, started); diff != "" {
		t.Errorf("a restart while draining moves flows (-ran through +started):\n%s", diff)
	}
	if !cmp.Equal(schedule("drained and back", full, drained, full), before) {
		t.Error("a drain and its end moved flows for good")
	}
	moved, onB := 0, 0
	for port, dest := range before {
		if dest == "C000028C" {
			onB++
		} else if ran[port] != dest {
			moved++
		}
	}
	if moved != 0 || onB < 60 || onB > 140 {
		t.Errorf("a drain moved %d flows of others; %d of 300 were the drained destination's", moved, onB)
	}
	if cmp.Equal(ran, schedule("added at weight 0", naive)) {
		t.Error("a destination added at weight 0 does as well, so this test shows nothing")
	}
}

// datagrams is a UDP service, whose flows need no handshake.
func datagrams(destinations ...Destination) Service {
	return with(www(destinations...), func(s *Service) { s.Protocol = UDP })
}

// attach makes the VIP and a client's address local, and gives the destinations
// a device that they are reached through.
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
	}{{lo, "198.51.100.1/32"}, {lo, "203.0.113.1/32"}, {out, "192.0.2.1/24"}} {
		addr, err := netlink.ParseAddr(on.addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(on.link, addr); err != nil {
			t.Fatal(err)
		}
	}
}

// scheduled sends one datagram from each of n ports and returns to which
// destination the kernel sent it, by port, in the hexadecimal of
// /proc/net/ip_vs_conn.
func scheduled(t *testing.T, n int) map[int]string {
	t.Helper()
	vip := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.1:80"))
	for port := 20000; port < 20000+n; port++ {
		conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(fmt.Sprintf("203.0.113.1:%d", port))), vip)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/proc/thread-self/net/ip_vs_conn")
	if err != nil {
		t.Fatal(err)
	}
	chosen := make(map[int]string)
	for line := range strings.Lines(string(b)) {
		// UDP CB007101 4E20 C6336401 0050 C000028B 0050 UDP 300
		f := strings.Fields(line)
		if len(f) < 8 || f[0] != "UDP" {
			continue
		}
		port, err := strconv.ParseUint(f[2], 16, 16)
		if err != nil {
			t.Fatal(err)
		}
		chosen[int(port)] = f[5]
	}
	if len(chosen) != n {
		t.Fatalf("the kernel knows %d of %d flows:\n%.500s", len(chosen), n, b)
	}
	return chosen
}
