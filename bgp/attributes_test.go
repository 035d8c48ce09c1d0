package bgp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// everything sets every attribute.
func everything() Attributes {
	return Attributes{
		Communities:      []uint32{65000<<16 | 1, 65000<<16 | 2},
		LargeCommunities: [][3]uint32{{65000, 1, 2}, {4200000000, 0, 4294967295}},
		MED:              new(uint32(50)),
		LocalPreference:  new(uint32(90)),
		Prepend:          new(2),
		NextHop4:         netip.MustParseAddr("192.0.2.7"),
		NextHop6:         netip.MustParseAddr("2001:db8::7"),
	}
}

// nothing sets every attribute that can be set to nothing.
func nothing() Attributes {
	return Attributes{Communities: []uint32{}, LargeCommunities: [][3]uint32{}, Prepend: new(0)}
}

func TestAttributesString(t *testing.T) {
	for _, test := range []struct {
		a    Attributes
		want string
	}{
		{Attributes{}, ""},
		{nothing(), "communities none large-communities none prepend 0"},
		{everything(), "communities 65000:1,65000:2 large-communities 65000:1:2,4200000000:0:4294967295" +
			" med 50 local-preference 90 prepend 2 next-hop 192.0.2.7,2001:db8::7"},
	} {
		if got := test.a.String(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestAttributesEqual(t *testing.T) {
	different := []Attributes{
		{}, nothing(), everything(),
		{Communities: []uint32{}}, {Communities: []uint32{1}}, {Communities: []uint32{2}},
		{LargeCommunities: [][3]uint32{}}, {LargeCommunities: [][3]uint32{{1, 2, 3}}},
		{MED: new(uint32(0))}, {MED: new(uint32(1))},
		{LocalPreference: new(uint32(1))}, {LocalPreference: new(uint32(2))},
		{Prepend: new(0)}, {Prepend: new(1)},
		{NextHop4: netip.MustParseAddr("192.0.2.7")}, {NextHop6: netip.MustParseAddr("2001:db8::7")},
	}
	for i, a := range different {
		for j, b := range different {
			if a.Equal(b.canonical()) != (i == j) {
				t.Errorf("%q equals %q: %v", a, b, i != j)
			}
		}
	}
}

// Who sets an attribute is who stands nearest to the route, each attribute by
// itself, at an internal and at an external peer.
func TestAttributesPrecedence(t *testing.T) {
	const v4 = "198.51.100.1/32"
	peers := Attributes{
		Communities: []uint32{65000<<16 | 9}, LargeCommunities: [][3]uint32{{65000, 9, 9}},
		MED: new(uint32(9)), LocalPreference: new(uint32(900)), Prepend: new(1), NextHop4: netip.MustParseAddr("192.0.2.9"),
	}
	zero := peers
	zero.MED, zero.Prepend = new(uint32(0)), new(0)
	for _, test := range []struct {
		name               string
		route              Route
		peer               Attributes
		internal, external string
	}{
		{
			"nobody", Route{}, Attributes{},
			"path [] via 127.0.0.1 pref 100", "path [65000] via 127.0.0.1",
		},
		{
			"the peer", Route{}, peers,
			"path [] via 192.0.2.9 med 9 pref 900 65000:9 65000:9:9", "path [65000 65000] via 192.0.2.9 med 9 65000:9 65000:9:9",
		},
		{
			"the peer, to zero", Route{}, zero,
			"path [] via 192.0.2.9 med 0 pref 900 65000:9 65000:9:9", "path [65000] via 192.0.2.9 med 0 65000:9 65000:9:9",
		},
		{
			"the route", Route{Attributes: everything()}, Attributes{},
			"path [] via 192.0.2.7 med 50 pref 90 65000:1 65000:2 65000:1:2 4200000000:0:4294967295",
			"path [65000 65000 65000] via 192.0.2.7 med 50 65000:1 65000:2 65000:1:2 4200000000:0:4294967295",
		},
		{
			"both", Route{Attributes: everything()}, peers,
			"path [] via 192.0.2.7 med 50 pref 90 65000:1 65000:2 65000:1:2 4200000000:0:4294967295",
			"path [65000 65000 65000] via 192.0.2.7 med 50 65000:1 65000:2 65000:1:2 4200000000:0:4294967295",
		},
		{
			"the route some, the peer the others", Route{Attributes: Attributes{MED: new(uint32(0)), Communities: []uint32{}}}, peers,
			"path [] via 192.0.2.9 med 0 pref 900 65000:9:9", "path [65000 65000] via 192.0.2.9 med 0 65000:9:9",
		},
		{
			"the route, to nothing", Route{Attributes: nothing()}, peers,
			"path [] via 192.0.2.9 med 9 pref 900", "path [65000] via 192.0.2.9 med 9",
		},
		{
			"draining, with the peer's communities", Route{Draining: true}, peers,
			"path [] via 192.0.2.9 med 9 pref 900 65535:0 65000:9 65000:9:9", "path [65000 65000] via 192.0.2.9 med 9 65535:0 65000:9 65000:9:9",
		},
		{
			"draining, with the route's", Route{Draining: true, Attributes: Attributes{Communities: []uint32{1}}}, peers,
			"path [] via 192.0.2.9 med 9 pref 900 0:1 65535:0 65000:9:9", "path [65000 65000] via 192.0.2.9 med 9 0:1 65535:0 65000:9:9",
		},
		{
			"as often as can be", Route{Attributes: Attributes{Prepend: new(MaxPrepend)}}, Attributes{},
			"path [] via 127.0.0.1 pref 100", "path [65000" + strings.Repeat(" 65000", MaxPrepend) + "] via 127.0.0.1",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := startSpeaker(t, Options{})
			test.route.Prefix = netip.MustParsePrefix(v4)
			if err := s.Set([]Route{test.route}); err != nil {
				t.Fatal(err)
			}
			internal := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
			external := startRemote(t, "127.0.0.3", remoteOptions{as: 65010})
			ours, theirs := internal.peer("rr1"), external.peer("tor1")
			ours.Attributes, theirs.Attributes = test.peer, test.peer
			if err := s.SetPeers([]Peer{ours, theirs}); err != nil {
				t.Fatal(err)
			}
			awaitTable(t, internal, v4+" origin 0 "+test.internal)
			awaitTable(t, external, v4+" origin 0 "+test.external)
		})
	}
}

// A reload that changes attributes replaces the routes in place: the session
// stays, nothing is withdrawn, and who is not concerned is told nothing.
func TestAttributesChange(t *testing.T) {
	const one, two = "198.51.100.1/32", "198.51.100.2/32"
	first := startRemote(t, "127.0.0.2", remoteOptions{as: 65000})
	second := startRemote(t, "127.0.0.3", remoteOptions{as: 65000})
	s, book := startSpeaker(t, Options{})
	if err := s.Set([]Route{with(one, Attributes{MED: new(uint32(5))}), {Prefix: netip.MustParsePrefix(two)}}); err != nil {
		t.Fatal(err)
	}
	rr1, rr2 := first.peer("rr1"), second.peer("rr2")
	set := func(a Attributes) {
		t.Helper()
		rr1.Attributes = a
		if err := s.SetPeers([]Peer{rr1, rr2}); err != nil {
			t.Fatal(err)
		}
	}
	set(Attributes{})
	tail := " origin 0 path [] via 127.0.0.1 med 5 pref 100"
	plain := " origin 0 path [] via 127.0.0.1 pref 100"
	awaitHistory(t, first, "+ "+one+tail, "+ "+two+plain)
	awaitHistory(t, second, "+ "+one+tail, "+ "+two+plain)
	before := awaitState(t, s, "rr1", stateEstablished)

	set(Attributes{MED: new(uint32(100)), Communities: []uint32{1}})
	awaitHistory(t, first, "+ "+one+tail+" 0:1", "+ "+two+" origin 0 path [] via 127.0.0.1 med 100 pref 100 0:1")
	set(Attributes{LocalPreference: new(uint32(50))})
	awaitHistory(t, first, "+ "+one+" origin 0 path [] via 127.0.0.1 med 5 pref 50", "+ "+two+" origin 0 path [] via 127.0.0.1 pref 50")
	set(Attributes{})
	awaitHistory(t, first, "+ "+one+tail, "+ "+two+plain)

	// The route's own.
	if err := s.Set([]Route{with(one, Attributes{MED: new(uint32(6))}), {Prefix: netip.MustParsePrefix(two)}}); err != nil {
		t.Fatal(err)
	}
	changed := "+ " + one + " origin 0 path [] via 127.0.0.1 med 6 pref 100"
	awaitHistory(t, first, changed)
	awaitHistory(t, second, changed)

	if after := status(t, s, "rr1"); after.Since != before.Since {
		t.Errorf("session since %s, want %s", after.Since, before.Since)
	}
	want := `level=INFO msg="bgp routes sent with other attributes" peer=rr1 address=127.0.0.2 as=65000 attributes="communities 0:1 med 100"`
	if got := strings.Count(book.String(), "other attributes"); got != 3 || !strings.Contains(book.String(), want) {
		t.Errorf("%d lines about other attributes, want 3:\n%s", got, book)
	}
}

// The statements do not grow with the peers, where these want the same.
func TestExportPolicySize(t *testing.T) {
	var peers []Peer
	for i := range 64 {
		peers = append(peers, Peer{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), AS: 65010, Attributes: everything()})
	}
	_, one := exportPolicy(65000, peers[:1])
	_, all := exportPolicy(65000, peers)
	if diff := cmp.Diff(len(one.GetStatements()), len(all.GetStatements())); diff != "" {
		t.Errorf("statements for 1 peer and for 64 (-1 +64):\n%s", diff)
	}
}
