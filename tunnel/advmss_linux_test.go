package tunnel

import (
	"slices"
	"strings"
	"testing"

	"lb4d/internal/nstest"
)

// TestKernelRoutesKeepTheirShape: a route of whatever kind gets its advmss and
// keeps all else, and is what it was after a teardown.
func TestKernelRoutesKeepTheirShape(t *testing.T) {
	d := openDecapsulator(t)
	nstest.Run(t, "ip nexthop add id 7 via 192.0.2.254 dev uplink")
	nstest.Run(t, "ip nexthop add id 8 via 2001:db8:2::fe dev uplink")
	nstest.Run(t, "ip nexthop add id 9 via 192.0.2.253 dev uplink")
	nstest.Run(t, "ip nexthop add id 10 group 7/9")
	for _, route := range []struct{ family, text string }{
		{"-4", "default via 192.0.2.254 dev uplink proto dhcp src 192.0.2.139 metric 100"},
		{"-4", "default via 192.0.2.253 dev uplink proto bird metric 200"},
		{"-4", "198.18.0.0/24 nhid 7 proto zebra"},
		{"-4", "198.18.1.0/24 nhid 10 proto zebra metric 20"},
		{"-4", "198.18.2.0/24 via inet6 2001:db8:2::fe dev uplink proto bgp"},
		{"-4", "198.18.3.0/24 via 10.9.9.9 dev uplink onlink"},
		{"-4", "198.18.4.0/24 via 192.0.2.254 mtu 1480 initcwnd 20"},
		{"-4", "198.18.5.0/24 via 192.0.2.254 rto_min 5ms quickack 1"},
		{"-4", "198.18.6.0/24 tos 0x10 via 192.0.2.254"},
		{"-4", "198.18.7.0/24 proto bird metric 32 nexthop via 192.0.2.253 weight 3 nexthop via 192.0.2.254 weight 1"},
		{"-4", "198.18.8.0/24 dev uplink scope link src 192.0.2.139"},
		{"-6", "default via 2001:db8:2::fe dev uplink proto static metric 50"},
		{"-6", "2001:db8:8::/64 nhid 8 proto zebra metric 20"},
		{"-6", "2001:db8:9::/64 via fe80::1 dev uplink proto bird metric 32"},
		{"-6", "2001:db8:a::/64 proto bird metric 32 nexthop via 2001:db8:2::fd weight 1 nexthop via fe80::2 dev uplink weight 1"},
		{"-6", "2001:db8:b::/64 via 2001:db8:2::fe src 2001:db8:2::8b mtu 1480"},
	} {
		nstest.Run(t, "ip "+route.family+" route add "+route.text)
	}
	untouched := []string{"blackhole 198.18.9.0/24", "unreachable 198.18.10.0/24 metric 5"}
	for _, route := range untouched {
		nstest.Run(t, "ip route add "+route)
	}
	nstest.Run(t, "ip route add 198.18.11.0/24 via 192.0.2.254 advmss 1000")
	nstest.Run(t, "ip route add 198.18.12.0/24 via 192.0.2.254 table 12")
	routes := func() []string {
		var all []string
		for _, command := range []string{"ip -o -4 route show table all", "ip -o -6 route show table all", "ip nexthop show"} {
			for line := range strings.Lines(nstest.Run(t, command)) {
				// The addresses that are made here have routes too.
				if line = strings.Join(strings.Fields(line), " "); !strings.Contains(line, "table local") && !strings.HasPrefix(line, "fe80") && !strings.HasPrefix(line, "multicast") {
					all = append(all, line)
				}
			}
		}
		return all
	}
	before := routes()
	a := settle(t, d, lb7Decapsulation(IPIP))
	with := routes()
	limited := 0
	for i, line := range with {
		plain := strings.NewReplacer(" advmss 1440", "", " advmss 1420", "").Replace(line)
		if plain != line {
			limited++
		}
		if i >= len(before) || plain != before[i] {
			t.Errorf("a route is now %q\nwas %q", line, before[min(i, len(before)-1)])
		}
	}
	// Those above, less the two whose MTU is small enough by themselves, and with
	// the two of the subnets.
	if limited != 16 {
		t.Errorf("%d routes are limited, want 16:\n%s", limited, strings.Join(with, "\n"))
	}
	if len(a.Unlimited) != 0 {
		t.Errorf("unlimited: %q", a.Unlimited)
	}
	if a := settle(t, d, lb7Decapsulation(IPIP)); len(a.Changes) != 0 {
		t.Errorf("the second time: %q", a.Changes)
	}
	if _, err := d.Teardown(); err != nil {
		t.Fatal(err)
	}
	if after := routes(); !slices.Equal(after, before) {
		t.Errorf("after the teardown:\n%s\nwant:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}
