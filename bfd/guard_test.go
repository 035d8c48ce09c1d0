package bfd

import (
	"net/netip"
	"testing"
	"time"
)

// TestGuard: what does not come from a peer of the kind, from near enough,
// reaches no session; and what reaches one that is up without knowing its
// discriminator ends nothing.
func TestGuard(t *testing.T) {
	near, far := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	m := &Monitor{sessions: map[netip.Addr]*session{
		near: {listening: listening{portOneHop, false}, packets: make(chan packet, 8)},
		far:  {listening: listening{portMultihop, false}, packets: make(chan packet, 8)},
	}}
	one, many := listening{portOneHop, false}, listening{portMultihop, false}
	for _, tt := range []struct {
		name string
		on   listening
		from string
		ttl  int
		want bool
	}{
		{"the peer next door", one, "192.0.2.1", 255, true},
		{"through a router", one, "192.0.2.1", 254, false},
		{"the wrong port", many, "192.0.2.1", 255, false},
		{"a stranger", one, "192.0.2.3", 255, false},
		{"the peer over several hops", many, "192.0.2.2", 60, true},
		{"the other kind of port", one, "192.0.2.2", 255, false},
	} {
		m.dispatch(tt.on, netip.MustParseAddr(tt.from), tt.ttl, packet{})
		got := false
		for _, s := range m.sessions {
			select {
			case <-s.packets:
				got = true
			default:
			}
		}
		if got != tt.want {
			t.Errorf("%s: taken %v, want %v", tt.name, got, tt.want)
		}
	}
	// A flood fills the queue of one session, and blocks nobody.
	for range 100 {
		m.dispatch(one, near, 255, packet{})
	}

	for _, tt := range []struct {
		name        string
		state       State
		mine, yours uint32
		want        bool
	}{
		{"knows ours", Up, 1, 5, true},
		{"knows another", Up, 9, 6, false},
		{"knows none, the one that we know", Up, 9, 0, true},
		{"knows none, another", Up, 1, 0, false},
		{"knows none, another, while we are down", Down, 1, 0, true},
	} {
		s := newMachine(Peer{Interval: time.Second, Multiplier: 3}, 5)
		s.state, s.remote.mine = tt.state, 9
		if got := s.belongs(packet{mine: tt.mine, yours: tt.yours, state: Down}); got != tt.want {
			t.Errorf("%s: belongs %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestPeersValid: what cannot be watched is refused, and nothing changes.
func TestPeersValid(t *testing.T) {
	good := Peer{Name: "rr1", Address: netip.MustParseAddr("192.0.2.1"), Interval: time.Second, Multiplier: 3}
	if err := good.validate(); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*Peer){
		"setting BFD peer rr1: 0.0.0.0 is no address of a peer":         func(p *Peer) { p.Address = netip.IPv4Unspecified() },
		"setting BFD peer rr1: ::1 cannot send to 192.0.2.1":            func(p *Peer) { p.Source = netip.IPv6Loopback() },
		"setting BFD peer rr1: interval 1ms is not between 10ms and 1m": func(p *Peer) { p.Interval = time.Millisecond },
		"setting BFD peer rr1: multiplier 0 is not between 1 and 255":   func(p *Peer) { p.Multiplier = 0 },
	} {
		p := good
		spoil(&p)
		if err := p.validate(); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
