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

// watched is a router with BFD for this host, 300 ms and three times.
type watched struct {
	name     string
	peer     Peer
	multihop bool
	// restarts tells that it keeps the routes of a process that is gone, its
	// BFD packets with it.
	restarts bool
	start    func(*testing.T) router
}

// watchedRouters are over one hop and, as routers take internal peers that are
// not said to be direct, as if over several.
func watchedRouters() []watched {
	birdWith := func(local, neighbor, how string) func(*testing.T) router {
		return func(t *testing.T) router {
			return startBird(t, `
protocol kernel { ipv4 { export all; }; }
protocol kernel { ipv6 { export all; }; }
protocol direct { ipv4; ipv6; }
protocol bfd {
  interface "*" { min rx interval 300 ms; min tx interval 300 ms; multiplier 3; };
  multihop { min rx interval 300 ms; min tx interval 300 ms; multiplier 3; };
}
protocol bgp host {
  local `+local+` as 65000;
  neighbor `+neighbor+` as 65000;
  `+how+`
  passive; bfd on;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
`, here, there)
		}
	}
	frrIn := func(as int) func(*testing.T) router {
		return func(t *testing.T) router {
			return startFRRWith(t, true, fmt.Sprint(as)+`
 no bgp ebgp-requires-policy
 neighbor 192.0.2.132 remote-as 65000
 neighbor 192.0.2.132 passive
 neighbor 192.0.2.132 bfd 3 300 300
 address-family ipv6 unicast
  neighbor 192.0.2.132 activate
`, here, there)
		}
	}
	return []watched{
		{"BIRD", overIPv4(65000), false, false, birdWith("192.0.2.254", "192.0.2.132", "direct;")},
		{"BIRD over IPv6", overIPv6(65000), false, false, birdWith("2001:db8::fe", "2001:db8::84", "direct;")},
		{"BIRD multihop", overIPv4(65000), true, false, birdWith("192.0.2.254", "192.0.2.132", "multihop;")},
		{"FRR", overIPv4(65010), false, true, frrIn(65010)},
		{"FRR, internal", overIPv4(65000), false, true, frrIn(65000)},
	}
}

// watch brings a session up, with a graceful restart that the router agrees to,
// and BFD beside it. down receives why the way broke.
func (w watched) watch(t *testing.T) (r router, s *Speaker, m *bfd.Monitor, down chan string) {
	t.Helper()
	r = w.start(t)
	s, book := startSpeaker(t, Options{})
	if err := s.Set(prefixes("198.51.100.1/32", "2001:db8:1::1/128")); err != nil {
		t.Fatal(err)
	}
	peer := w.peer
	peer.GracefulRestart = time.Minute
	s.establish(t, peer)
	down = make(chan string, 1)
	m = bfd.Start(book.logger(slog.LevelInfo), func(address netip.Addr, reason string) {
		s.DropBFDDown(address, reason)
		select {
		case down <- reason:
		default:
		}
	}, func() {})
	t.Cleanup(m.Close)
	w.up(t, m, 300*time.Millisecond, 3, 900*time.Millisecond)
	if hops := r.nextHops(t, "198.51.100.1/32"); len(hops) != 1 {
		t.Fatalf("next hops %v, want one", hops)
	}
	return r, s, m, down
}

// up waits until both sides have confirmed the intervals.
func (w watched) up(t *testing.T, m *bfd.Monitor, interval time.Duration, multiplier int, detection time.Duration) {
	t.Helper()
	eventually(t, func() (bool, string) {
		if err := m.SetPeers([]bfd.Peer{{Name: w.peer.Name, Address: w.peer.Address, Interval: interval, Multiplier: multiplier, Multihop: w.multihop}}); err != nil {
			t.Fatal(err)
		}
		p := m.Peers()[0]
		return p.State == bfd.Up && p.Remote == bfd.Up && p.Detection == detection && p.Interval == interval, fmt.Sprintf("%+v", p)
	})
}

// gone tells how long after begun the router's kernel has lost the routes, or
// that it still has them after a while.
func gone(t *testing.T, r router, begun time.Time, within time.Duration) (time.Duration, bool) {
	for time.Since(begun) < within {
		if len(r.nextHops(t, "198.51.100.1/32"))+len(r.nextHops(t, "2001:db8:1::1/128")) == 0 {
			return time.Since(begun), true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return within, false
}

// byBFD is what finding a broken way may take, on a machine that others use: it
// takes 0.9 s, and the hold time of 6 s is not over before 4 s.
const byBFD = 3 * time.Second

// Over a link that loses everything without a word both sides know within a
// second what the hold time tells after six: the router's routes are gone,
// graceful restart or not, and so is our session.
func TestBFD(t *testing.T) {
	for _, test := range watchedRouters() {
		t.Run(test.name, func(t *testing.T) {
			r, s, m, down := test.watch(t)
			// Other intervals are agreed on while it goes on. A machine that stands
			// still for a second breaks it too, but not each time.
			goesOn := false
			for tries := 0; tries < 3 && !goesOn; tries++ {
				awaitState(t, s, test.peer.Name, stateEstablished)
				before, failures := status(t, s, test.peer.Name), m.Peers()[0].Failures
				test.up(t, m, 500*time.Millisecond, 4, 1500*time.Millisecond)
				test.up(t, m, 300*time.Millisecond, 3, 900*time.Millisecond)
				after := status(t, s, test.peer.Name)
				goesOn = after.State == stateEstablished && after.Since == before.Since && m.Peers()[0].Failures == failures
				t.Logf("BFD had other intervals: session %+v, was %+v; %+v", after, before, m.Peers())
			}
			if !goesOn {
				t.Fatal("the session ended each time that BFD had other intervals")
			}
			select {
			case <-down: // of such a moment
			default:
			}
			begun := time.Now()
			networks(r).silence(t)
			at, ok := gone(t, r, begun, patience)
			reason := <-down
			var p PeerStatus
			eventually(t, func() (bool, string) { // a moment after it was told
				p = status(t, s, test.peer.Name)
				return p.State != stateEstablished, fmt.Sprintf("%+v", p)
			})
			t.Logf("routes gone after %s; here %q, session lost after %s", at, reason, p.Since.Sub(begun))
			if !ok || at > byBFD {
				t.Errorf("routes gone after %s, want at most %s", at, byBFD)
			}
			if p.Since.Sub(begun) > byBFD {
				t.Errorf("our session: %+v, want it lost within %s", p, byBFD)
			}
		})
	}
}

// A process that is gone closes its connections and sends no BFD packets. Whether
// the routes that the router agreed to keep stay is the router's to say.
func TestBFDAfterCrash(t *testing.T) {
	for _, test := range watchedRouters() {
		t.Run(test.name, func(t *testing.T) {
			r, s, _, _ := test.watch(t)
			begun := time.Now()
			s.Abandon()
			networks(r).silence(t) // as our BFD would not be
			at, ok := gone(t, r, begun, byBFD)
			if ok == test.restarts {
				t.Errorf("routes gone: %v, after %s", ok, at)
			}
			t.Logf("routes gone: %v, after %s", ok, at)
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
