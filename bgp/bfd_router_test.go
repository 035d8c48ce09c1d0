package bgp

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"lb4d/bfd"
)

// silence has packets between the two ends of a link lost without a word: each
// side sends to a station that is not there. Neither end sees its link go.
func (n *neighbour) silence(t *testing.T) {
	t.Helper()
	nobody := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
	ours, err := netlink.NewHandle()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	for _, end := range []struct {
		handle *netlink.Handle
		name   string
		to     []string
	}{{ours, n.uplink, []string{"192.0.2.254", "2001:db8::fe"}}, {n.routes, "downlink", []string{"192.0.2.132", "2001:db8::84"}}} {
		link, err := end.handle.LinkByName(end.name)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range end.to {
			if err := end.handle.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.ParseIP(to),
				State: netlink.NUD_PERMANENT, HardwareAddr: nobody}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Over a link that loses everything without a word both sides know within a
// second and a half what the hold time tells after six: the router's routes are
// gone, and so is our session. Over one hop and, as routers take internal peers
// that are not said to be direct, as if over several.
func TestBFD(t *testing.T) {
	birdWith := func(how string) func(*testing.T) router {
		return func(t *testing.T) router {
			return startBird(t, `
protocol kernel { ipv4 { export all; }; }
protocol kernel { ipv6 { export all; }; }
protocol direct { ipv4; ipv6; }
protocol bfd {
  interface "*" { min rx interval 300 ms; min tx interval 300 ms; multiplier 3; };
  multihop { min rx interval 300 ms; min tx interval 300 ms; multiplier 3; };
}
protocol bgp over4 {
  local 192.0.2.254 as 65000;
  neighbor 192.0.2.132 as 65000;
  `+how+`
  passive; bfd on;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
`, here, there)
		}
	}
	for _, test := range []struct {
		name     string
		multihop bool
		start    func(*testing.T) router
	}{
		{"BIRD", false, birdWith("direct;")},
		{"BIRD multihop", true, birdWith("multihop;")},
		{"FRR", false, func(t *testing.T) router {
			return startFRRWith(t, true, `65010
 no bgp ebgp-requires-policy
 neighbor 192.0.2.132 remote-as 65000
 neighbor 192.0.2.132 passive
 neighbor 192.0.2.132 bfd 3 300 300
 address-family ipv6 unicast
  neighbor 192.0.2.132 activate
`, here, there)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := test.start(t)
			as := uint32(65000)
			if test.name == "FRR" {
				as = 65010
			}
			s, book := startSpeaker(t, Options{})
			if err := s.Set(prefixes("198.51.100.1/32", "2001:db8:1::1/128")); err != nil {
				t.Fatal(err)
			}
			peer := overIPv4(as)
			s.establish(t, peer)
			down := make(chan string, 1)
			m := bfd.Start(book.logger(slog.LevelInfo), func(address netip.Addr, reason string) {
				s.DropBFDDown(address, reason)
				select {
				case down <- reason:
				default:
				}
			}, func() {})
			t.Cleanup(m.Close)
			watched := bfd.Peer{Name: peer.Name, Address: peer.Address, Interval: 300 * time.Millisecond, Multiplier: 3, Multihop: test.multihop}
			up := func(detection time.Duration) {
				t.Helper()
				eventually(t, func() (bool, string) {
					if err := m.SetPeers([]bfd.Peer{watched}); err != nil {
						t.Fatal(err)
					}
					p := m.Peers()[0]
					// Both sides have confirmed the interval.
					return p.State == bfd.Up && p.Remote == bfd.Up && p.Detection == detection && p.Interval == watched.Interval,
						fmt.Sprintf("%+v", p)
				})
			}
			up(900 * time.Millisecond)
			before := status(t, s, peer.Name)
			// Other intervals are agreed on while it goes on.
			watched.Interval, watched.Multiplier = 500*time.Millisecond, 4
			up(1500 * time.Millisecond)
			watched.Interval, watched.Multiplier = 300*time.Millisecond, 3
			up(900 * time.Millisecond)
			if after := status(t, s, peer.Name); after.State != stateEstablished || after.Since != before.Since || m.Peers()[0].Failures > 0 {
				t.Fatalf("after BFD had other intervals: %+v, was %+v; %+v", after, before, m.Peers())
			}
			if hops := r.nextHops(t, "198.51.100.1/32"); len(hops) != 1 {
				t.Fatalf("next hops %v, want one", hops)
			}

			begun := time.Now()
			networks(r).silence(t)
			gone := make(chan time.Duration, 1)
			go func() {
				for len(r.nextHops(t, "198.51.100.1/32"))+len(r.nextHops(t, "2001:db8:1::1/128")) > 0 && time.Since(begun) < patience {
					time.Sleep(5 * time.Millisecond)
				}
				gone <- time.Since(begun)
			}()
			at, reason := <-gone, <-down
			p := status(t, s, peer.Name)
			t.Logf("routes gone after %s; here %q, session lost %s after", at, reason, p.Since.Sub(begun))
			if at > 1500*time.Millisecond {
				t.Errorf("routes gone after %s, want at most 1.5s", at)
			}
			if p.State == stateEstablished || p.Since.Sub(begun) > 1500*time.Millisecond {
				t.Errorf("our session: %+v, want it lost within 1.5s", p)
			}
		})
	}
}

// networks is the namespace that a router is in.
func networks(r router) *neighbour {
	switch r := r.(type) {
	case *bird:
		return r.neighbour
	case *frr:
		return r.neighbour
	}
	panic(fmt.Sprintf("%T is no router", r))
}
