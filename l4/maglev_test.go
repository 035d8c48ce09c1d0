package l4

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// table computes the Maglev table of a service that must have one.
func table(t *testing.T, s Service) *Maglev {
	t.Helper()
	m, err := NewMaglev(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// randomClient is one of all clients of an address family.
func randomClient(r *rand.Rand, ipv6 bool) netip.AddrPort {
	port := uint16(1024 + r.IntN(64512))
	if !ipv6 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}), port)
	}
	b := netip.MustParseAddr("2001:db8:c::").As16()
	for i := 6; i < 16; i++ {
		b[i] = byte(r.IntN(256))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(b), port)
}

// noted is a listed destination of which the slots are unknown or known.
func noted(addr string, full int) Destination {
	return with(draining(addr, 0), func(d *Destination) { d.FullWeight = full })
}

func TestMaglevUnknown(t *testing.T) {
	const a = "192.0.2.139"
	many := www()
	for i := range TableSize + 1 {
		d := up(a, 1)
		d.Port = uint16(i)
		many.Destinations = append(many.Destinations, d)
	}
	for _, tt := range []struct {
		service Service
		want    string
	}{
		{with(www(up(a, 1)), func(s *Service) { s.Scheduler = "wlc" }), "its scheduler is wlc"},
		{www(noted(a, UnknownWeight)), "which slots 192.0.2.139:80 has is unknown"},
		{www(with(up(a, 1), func(d *Destination) { d.Limited = true })), "192.0.2.139:80 has connection limits"},
		{many, "4094 destinations for 4093 slots"},
	} {
		if _, err := NewMaglev(tt.service); err == nil || !strings.HasSuffix(err.Error(), ": "+tt.want) {
			t.Errorf("error %v, want one that ends with %q", err, tt.want)
		}
	}
}

func TestMaglevLookup(t *testing.T) {
	const a, b, c = "192.0.2.139", "192.0.2.140", "192.0.2.141"
	r := rand.New(rand.NewPCG(1, 4))
	full := table(t, www(up(a, 1), up(b, 1), up(c, 2)))
	drained := table(t, www(up(a, 1), draining(b, 1), up(c, 2)))
	refusing := table(t, with(www(up(a, 1), draining(b, 1), up(c, 2)), func(s *Service) { s.Flags = MHPort }))
	addressOnly := table(t, with(www(up(a, 1), up(b, 1), up(c, 2)), func(s *Service) { s.Flags = 0 }))
	owned := make([]int, 3)
	for range 20000 {
		client := randomClient(r, false)
		f, d, n := full.Lookup(client), drained.Lookup(client), refusing.Lookup(client)
		owned[f.Owner]++
		if f.Used != f.Owner || f.Rehashes != 0 {
			t.Fatalf("%s: %+v while all take flows", client, f)
		}
		if d.Slot != f.Slot || d.Owner != f.Owner {
			t.Fatalf("%s: a drain moved the slot's owner from %+v to %+v", client, f, d)
		}
		if f.Owner != 1 && d != f {
			t.Fatalf("%s: another's drain moved it from %+v to %+v", client, f, d)
		}
		if f.Owner == 1 && (d.Used == 1 || d.Used < 0 || d.Rehashes == 0 || n.Used != -1) {
			t.Fatalf("%s: while its destination drains %+v with mh-fallback, %+v without", client, d, n)
		}
		other := netip.AddrPortFrom(client.Addr(), client.Port()^0x1234)
		if addressOnly.Lookup(client) != addressOnly.Lookup(other) {
			t.Fatalf("%s and %s differ without mh-port", client, other)
		}
	}
	if owned[0] < 4700 || owned[0] > 5300 || owned[2] < 9700 || owned[2] > 10300 {
		t.Errorf("20000 flows on destinations of weights 1, 1 and 2: %d", owned)
	}
	nobody := Choice{Slot: full.Lookup(netip.MustParseAddrPort("10.0.0.1:1")).Slot, Owner: -1, Used: -1}
	for _, s := range []Service{www(), www(noted(a, 0))} {
		if got := table(t, s).Lookup(netip.MustParseAddrPort("10.0.0.1:1")); got != nobody {
			t.Errorf("without slots: %+v, want %+v", got, nobody)
		}
	}
}

// Fingerprints agree just where the flows do.
func TestFingerprint(t *testing.T) {
	const a, b, c = "192.0.2.139", "192.0.2.140", "192.0.2.141"
	print := func(s Service) (slots, live string) {
		slots, live, _ = strings.Cut(table(t, s).Fingerprint(), "-")
		return slots, live
	}
	base := www(up(a, 1), up(b, 2), draining(c, 1))
	slots, live := print(base)
	if table(t, base).Fingerprint() != "5f63ad04-8e8fe102" {
		t.Errorf("it was another one in an earlier version: %s", table(t, base).Fingerprint())
	}
	for _, tt := range []struct {
		name                string
		service             Service
		sameSlots, sameLive bool
	}{
		{"other VIP, counts, encapsulation", with(www(up(a, 1), with(up(b, 2), func(d *Destination) {
			d.ActiveConns, d.Encapsulation = 7, GRE
		}), draining(c, 1)), func(s *Service) { s.VIP = netip.MustParseAddr("198.51.100.2") }), true, true},
		{"one without slots", www(noted("192.0.2.1", 0), up(a, 1), up(b, 2), noted("192.0.2.200", 0), draining(c, 1)), true, true},
		{"weights with a common divisor", www(up(a, 3), up(b, 6), draining(c, 3)), true, true},
		{"another one drains", www(up(a, 1), draining(b, 2), draining(c, 1)), true, false},
		{"none drains", www(up(a, 1), up(b, 2), up(c, 1)), true, false},
		{"another weight", www(up(a, 1), up(b, 1), draining(c, 1)), false, false},
		{"one less", www(up(a, 1), up(b, 2)), false, false},
		{"another order", www(up(b, 2), up(a, 1), draining(c, 1)), false, false},
		{"without mh-port", with(base, func(s *Service) { s.Flags = MHFallback }), false, false},
		{"without mh-fallback", with(base, func(s *Service) { s.Flags = MHPort }), false, false},
	} {
		gotSlots, gotLive := print(tt.service)
		if (gotSlots == slots) != tt.sameSlots || (gotLive == live) != tt.sameLive {
			t.Errorf("%s: %s-%s, compared with %s-%s", tt.name, gotSlots, gotLive, slots, live)
		}
	}
}

// Moved must be what comes out when flows are looked up one by one.
func TestMoved(t *testing.T) {
	const a, b, c, d = "192.0.2.139", "192.0.2.140", "192.0.2.141", "192.0.2.142"
	all := www(up(a, 1), up(b, 1), up(c, 1), up(d, 1))
	flags := func(f Flags) func(*Service) { return func(s *Service) { s.Flags = f } }
	for _, tt := range []struct {
		name string
		a, b Service
		want float64 // -1: only compared with the flows
	}{
		{"the same", all, all, 0},
		{"all draining", www(draining(a, 1), draining(b, 1)), www(draining(a, 1), draining(b, 1)), 0},
		{"nobody left", all, www(draining(a, 1), draining(b, 1)), 1},
		{"nobody on either side", www(), with(www(draining(a, 1)), flags(0)), 0},
		{"one drains", all, www(up(a, 1), draining(b, 1), up(c, 1), up(d, 1)), 0.25},
		{"one drains, without fallback", with(all, flags(MHPort)), with(www(up(a, 1), draining(b, 1), up(c, 1), up(d, 1)), flags(MHPort)), 0.25},
		{"another one drains", www(draining(a, 1), up(b, 1), up(c, 1), up(d, 1)), www(up(a, 1), draining(b, 1), up(c, 1), up(d, 1)), -1},
		{"a second one drains", www(draining(a, 1), up(b, 1), up(c, 1), up(d, 1)), www(draining(a, 1), draining(b, 1), up(c, 1), up(d, 1)), -1},
		{"one leaves", all, www(up(a, 1), noted(b, 0), up(c, 1), up(d, 1)), -1},
		{"one leaves that was draining", www(up(a, 1), draining(b, 1), up(c, 1), up(d, 1)), www(up(a, 1), up(c, 1), up(d, 1)), -1},
		{"another order", all, www(up(d, 1), up(c, 1), up(b, 1), up(a, 1)), -1},
		{"mh-port", all, with(all, flags(MHFallback)), 0.75},
		{"mh-port, and one refuses", www(up(a, 1), draining(b, 1)), with(www(up(a, 1), draining(b, 1)), flags(0)), -1},
		{"mh-fallback", with(www(up(a, 1), draining(b, 1)), flags(MHPort)), www(up(a, 1), draining(b, 1)), -1},
	} {
		ma, mb := table(t, tt.a), table(t, tt.b)
		got := Moved(ma, mb)
		if tt.want >= 0 && math.Abs(got-tt.want) > 0.01 {
			t.Errorf("%s: %.4f, want %.4f", tt.name, got, tt.want)
		}
		if back := Moved(mb, ma); math.Abs(got-back) > 1e-9 {
			t.Errorf("%s: %.4f there, %.4f back", tt.name, got, back)
		}
		r := rand.New(rand.NewPCG(5, 5))
		moved, flows := 0, 40000
		for range flows {
			client := randomClient(r, false)
			if destinationOf(tt.a, ma, client) != destinationOf(tt.b, mb, client) {
				moved++
			}
		}
		if share := float64(moved) / float64(flows); math.Abs(got-share) > 0.01 {
			t.Errorf("%s: %.4f, of the flows it is %.4f", tt.name, got, share)
		}
	}
}

// destinationOf is where the model sends a client; the zero AddrPort where it
// is refused.
func destinationOf(s Service, m *Maglev, client netip.AddrPort) netip.AddrPort {
	used := m.Lookup(client).Used
	if used < 0 {
		return netip.AddrPort{}
	}
	return s.Destinations[used].AddrPort()
}

// The canonical order is what makes the table independent of history; what
// each of these costs is what is told of the kernel's scheduler.
func TestMaglevCosts(t *testing.T) {
	thirteen := www()
	for i := range 13 {
		thirteen.Destinations = append(thirteen.Destinations, up(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}).String(), 1))
	}
	shuffled := with(thirteen, func(s *Service) {
		s.Destinations = slices.Clone(s.Destinations)
		slices.Reverse(s.Destinations)
	})
	if share := Moved(table(t, thirteen), table(t, shuffled)); share < 0.002 || share > 0.03 {
		t.Errorf("another order moves %.4f of the flows", share)
	}
	if share := Moved(table(t, thirteen), table(t, Canonical(shuffled))); share != 0 {
		t.Errorf("the canonical order moves %.4f of the flows", share)
	}
	less := with(thirteen, func(s *Service) { s.Destinations = s.Destinations[:12] })
	if share := Moved(table(t, thirteen), table(t, less)) - 1.0/13; share < 0.005 || share > 0.04 {
		t.Errorf("one of 13 less moves %.4f of the others' flows", share)
	}
}

func BenchmarkNewMaglev(b *testing.B) {
	s := www()
	for i := range 50 {
		s.Destinations = append(s.Destinations, up(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}).String(), 1))
	}
	for b.Loop() {
		m, err := NewMaglev(s)
		if err != nil {
			b.Fatal(err)
		}
		m.Fingerprint()
	}
}
