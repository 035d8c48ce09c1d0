package bgp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// seenSiblings are siblings as lines.
func seenSiblings(all []Sibling) []string {
	var lines []string
	for _, s := range all {
		line := fmt.Sprintf("%s %s via %s", s.VIP, s.RouterID, s.NextHop)
		if s.Fingerprint != nil {
			line += fmt.Sprintf(" %08x", *s.Fingerprint)
		}
		if s.Draining {
			line += " draining"
		}
		lines = append(lines, line)
	}
	return lines
}

// What is kept are the paths of other hosts to VIPs, as long as they stand.
func TestSiblingsKept(t *testing.T) {
	const here = "192.0.2.132"
	vip, other := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	hop := func(last byte) []byte { return attribute(0x40, 3, 192, 0, 2, last) }
	by := func(last byte) []byte {
		return large([3]uint32{65000, FingerprintTag, 0xfeed}, [3]uint32{65000, RouterTag, 0xc0000200 | uint32(last)})
	}
	id := func(n byte) []byte { return []byte{0, 0, 0, n, 32, 198, 51, 100, 1} }
	announce := func(n byte, attributes ...[]byte) []byte { return updateBody(nil, id(n), attributes...) }
	for _, test := range []struct {
		name    string
		updates [][]byte
		want    []string
		ignored uint64
	}{
		{name: "another host", updates: [][]byte{announce(1, hop(133), by(133))}, want: []string{"198.51.100.1 192.0.2.133 via 192.0.2.133 0000feed"}},
		{name: "one that says nothing of itself", updates: [][]byte{announce(1, hop(133))}, want: []string{"198.51.100.1 invalid IP via 192.0.2.133"}},
		{name: "one of whom the reflector says", updates: [][]byte{announce(1, hop(133), attribute(0x80, 9, 192, 0, 2, 9))},
			want: []string{"198.51.100.1 192.0.2.9 via 192.0.2.133"}},
		{name: "ours by router ID, through a router that is the next hop", updates: [][]byte{announce(1, hop(254), by(132))}},
		{name: "ours by ORIGINATOR_ID", updates: [][]byte{announce(1, hop(133), attribute(0x80, 9, 192, 0, 2, 132))}},
		{name: "ours by the session's address", updates: [][]byte{announce(1, hop(7))}},
		{name: "another host's with a next hop that both have", updates: [][]byte{announce(1, hop(7), by(133))},
			want: []string{"198.51.100.1 192.0.2.133 via 192.0.2.7 0000feed"}},
		{name: "withdrawn", updates: [][]byte{announce(1, hop(133)), announce(2, hop(134)), updateBody(id(1), nil)},
			want: []string{"198.51.100.1 invalid IP via 192.0.2.134"}},
		{name: "replaced by ours", updates: [][]byte{announce(1, hop(133)), announce(1, hop(7))}},
		{name: "replaced by what cannot be read", updates: [][]byte{announce(1, hop(133)), announce(1, hop(133), []byte{0xc0, 8, 200})}},
		{name: "replaced by itself, draining", updates: [][]byte{announce(1, hop(133)), announce(1, hop(133), attribute(0xc0, 8, 0xff, 0xff, 0, 0))},
			want: []string{"198.51.100.1 invalid IP via 192.0.2.133 draining"}},
		{name: "no VIP", updates: [][]byte{updateBody(nil, []byte{0, 0, 0, 1, 32, 198, 51, 100, 2}, hop(133)), updateBody(nil, []byte{0, 0, 0, 1, 24, 198, 51, 100}, hop(133))}, ignored: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := newSiblings(netip.MustParseAddr(here), func() {})
			all.watch([]netip.Addr{vip})
			src := all.open(netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("192.0.2.7"), 0, nil)
			src.began(IPv4, IPv4)
			for _, u := range test.updates {
				src.read(u, IPv4)
			}
			if diff := cmp.Diff(test.want, seenSiblings(all.list())); diff != "" {
				t.Errorf("siblings (-want +got):\n%s", diff)
			}
			if got := src.status(); got.Ignored != test.ignored || got.Paths != len(test.want) {
				t.Errorf("%+v", got)
			}
			all.watch([]netip.Addr{other})
			if got := all.list(); len(got) != 0 || src.status().Paths != 0 {
				t.Errorf("siblings of what is no VIP any more: %v", got)
			}
			all.watch([]netip.Addr{vip})
			src.read(announce(1, hop(133)), IPv4)
			all.close(src)
			if got := all.list(); len(got) != 0 {
				t.Errorf("siblings after the session: %v", got)
			}
			src.read(announce(1, hop(133)), IPv4)
			if got := all.list(); len(got) != 0 {
				t.Errorf("siblings from a session that is over: %v", got)
			}
		})
	}
}

// A peer cannot have more kept than the bound, however many paths it has.
func TestSiblingsBounded(t *testing.T) {
	all := newSiblings(netip.MustParseAddr("192.0.2.132"), func() {})
	vip := netip.MustParseAddr("198.51.100.1")
	all.watch([]netip.Addr{vip})
	src := all.open(netip.MustParseAddr("192.0.2.254"), netip.Addr{}, 0, nil)
	for id := range uint32(10000) {
		nlri := append(binary.BigEndian.AppendUint32(nil, id), 32, 198, 51, 100, 1)
		src.read(updateBody(nil, nlri, attribute(0x40, 3, 192, 0, 2, 133)), IPv4)
	}
	if n, got := len(all.list()), src.status(); n != maxPaths || got.Paths != maxPaths || got.Ignored != 10000-maxPaths {
		t.Errorf("%d paths, %+v", n, got)
	}
}

// The warning comes once, when about as many different prefixes have come as
// the limit says, and not for the same ones again.
func TestPrefixLimit(t *testing.T) {
	for _, limit := range []int{100, 10000, MaxPrefixLimit} {
		book := &logbook{}
		all := newSiblings(netip.MustParseAddr("192.0.2.132"), func() {})
		src := all.open(netip.MustParseAddr("192.0.2.254"), netip.Addr{}, limit, book.logger(slog.LevelInfo))
		feed := func(n int) {
			for i := range n {
				src.read(updateBody(nil, []byte{32, 10, byte(i >> 16), byte(i >> 8), byte(i)}, attribute(0x40, 3, 192, 0, 2, 1)), 0)
			}
		}
		for range 3 {
			feed(limit * 95 / 100)
		}
		if src.status().Over {
			t.Errorf("limit %d: over it after %d prefixes, three times each", limit, limit*95/100)
		}
		feed(limit*105/100 + 1)
		if !src.status().Over || strings.Count(book.String(), "more prefixes than the limit") != 1 {
			t.Errorf("limit %d: %+v, log:\n%s", limit, src.status(), book)
		}
	}
}

// When a peer would have told: with the End-of-RIB marker, or after a while
// without; nothing before the session is up.
func TestSiblingsTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var woken atomic.Int32
		all := newSiblings(netip.MustParseAddr("192.0.2.132"), func() { woken.Add(1) })
		vip := netip.MustParseAddr("198.51.100.1")
		all.watch([]netip.Addr{vip})
		src := all.open(netip.MustParseAddr("192.0.2.254"), netip.Addr{}, 0, nil)
		src.ended(IPv4)
		if got := src.status(); got.Tells != 0 || got.All != 0 {
			t.Errorf("before the session is up: %+v", got)
		}
		src.began(IPv4|IPv6, IPv6)
		if got := src.status(); got.Tells != IPv4 || got.All != 0 {
			t.Errorf("with the marker of IPv4: %+v", got)
		}
		time.Sleep(tellAll)
		synctest.Wait()
		if got := src.status(); got.Tells != IPv4|IPv6 || got.All != IPv6 {
			t.Errorf("after %s: %+v", tellAll, got)
		}
		// A peer that flaps wakes the loop five times a second, and no oftener.
		before := woken.Load()
		nlri := []byte{32, 198, 51, 100, 1}
		for range 1000 {
			src.read(updateBody(nil, nlri, attribute(0x40, 3, 192, 0, 2, 133)), 0)
			src.read(updateBody(nlri, nil), 0)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := woken.Load() - before; n < 4 || n > 6 {
			t.Errorf("woken %d times", n)
		}
	})
}

const birdReflector = `
template bgp lb4 {
  local 192.0.2.254 as 65000;
  direct;
  passive;
  rr client;
  ipv4 { import all; export all; add paths %[1]s; };
  ipv6 { import all; export all; add paths %[1]s; };
}
protocol bgp host0 from lb4 { neighbor 192.0.2.132 as 65000; }
protocol bgp host1 from lb4 { neighbor 192.0.2.133 as 65000; }
`

// Two hosts learn of each other through a reflector, with all paths and with
// the best alone, over an IPv4 session that carries both families.
func TestBirdSiblings(t *testing.T) {
	for _, paths := range []string{"on", "off"} {
		t.Run("add paths "+paths, func(t *testing.T) {
			startBird(t, fmt.Sprintf(birdReflector, paths), append([]string{"192.0.2.133/24", "2001:db8::85/64"}, here...), there)
			const v4, v6 = "198.51.100.1/32", "2001:db8:1::1/128"
			route := func(prefix string, fingerprint uint32, draining bool) Route {
				r := with(prefix, Attributes{LargeCommunities: [][3]uint32{{65000, 1, 2}}})
				r.Fingerprint, r.Draining = &fingerprint, draining
				return r
			}
			var hosts []*Speaker
			for i := range 2 {
				address := netip.AddrFrom4([4]byte{192, 0, 2, byte(132 + i)})
				s, _ := startSpeaker(t, Options{RouterID: address})
				s.Watch([]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:1::1")})
				if err := s.Set([]Route{route(v4, uint32(i), false), route(v6, uint32(i), false)}); err != nil {
					t.Fatal(err)
				}
				peer := overIPv4(65000)
				peer.Source, peer.Siblings, peer.PrefixLimit = address, true, 1000
				peer.Attributes.NextHop6 = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(0x84 + i)})
				if err := s.SetPeers([]Peer{peer}); err != nil {
					t.Fatal(err)
				}
				hosts = append(hosts, s)
			}
			await := func(host int, want ...string) {
				t.Helper()
				eventually(t, func() (bool, string) {
					diff := cmp.Diff(want, seenSiblings(hosts[host].Siblings()))
					return diff == "", fmt.Sprintf("siblings of host %d (-want +got):\n%s", host, diff)
				})
			}
			// With the best path alone one of the two hears of nobody.
			first := []string{"198.51.100.1 192.0.2.133 via 192.0.2.133 00000001", "2001:db8:1::1 192.0.2.133 via 2001:db8::85 00000001"}
			second := []string{"198.51.100.1 192.0.2.132 via 192.0.2.132 00000000", "2001:db8:1::1 192.0.2.132 via 2001:db8::84 00000000"}
			all := IPv4 | IPv6
			if paths == "off" {
				first, all = nil, 0
			}
			await(0, first...)
			await(1, second...)
			for i, s := range hosts {
				eventually(t, func() (bool, string) {
					p := status(t, s, "over4").Received
					return p.Tells == IPv4|IPv6 && p.All == all && p.Malformed == 0, fmt.Sprintf("host %d: %+v", i, p)
				})
			}
			if paths == "off" {
				return
			}
			// A change of the table, a drain, a withdrawal.
			if err := hosts[1].Set([]Route{route(v4, 7, false), route(v6, 1, true)}); err != nil {
				t.Fatal(err)
			}
			await(0, "198.51.100.1 192.0.2.133 via 192.0.2.133 00000007", "2001:db8:1::1 192.0.2.133 via 2001:db8::85 00000001 draining")
			if err := hosts[1].Set([]Route{route(v4, 7, false)}); err != nil {
				t.Fatal(err)
			}
			await(0, "198.51.100.1 192.0.2.133 via 192.0.2.133 00000007")
			// A VIP that is watched later is asked for.
			hosts[0].Watch(nil)
			await(0)
			hosts[0].Watch([]netip.Addr{netip.MustParseAddr("198.51.100.1")})
			await(0, "198.51.100.1 192.0.2.133 via 192.0.2.133 00000007")
			// With the session goes what was known from it.
			if err := hosts[0].SetPeers(nil); err != nil {
				t.Fatal(err)
			}
			await(0)
			routes, err := hosts[1].Routes()
			if err != nil || len(routes) != 1 || !slices.Equal(routes[0].LargeCommunities, [][3]uint32{{65000, 1, 2}}) || *routes[0].Fingerprint != 7 {
				t.Errorf("routes %v, error %v", routes, err)
			}
		})
	}
}
