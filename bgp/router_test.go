package bgp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	birdHost = `
template bgp host {
  local as %d;
  direct;
  %s;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
`
	birdOver4 = "protocol bgp over4 from host { neighbor 192.0.2.132 as 65000; source address 192.0.2.254; }\n"
	birdOver6 = "protocol bgp over6 from host { neighbor 2001:db8::84 as 65000; source address 2001:db8::fe; }\n"
)

var (
	here  = []string{"192.0.2.132/24", "2001:db8::84/64", "fe80::84/64"}
	there = []string{"192.0.2.254/24", "2001:db8::fe/64", "fe80::fe/64"}
)

func overIPv4(as uint32) Peer {
	return Peer{Name: "over4", Address: netip.MustParseAddr("192.0.2.254"), AS: as, HoldTime: 6 * time.Second}
}

func overIPv6(as uint32) Peer {
	return Peer{Name: "over6", Address: netip.MustParseAddr("2001:db8::fe"), AS: as, HoldTime: 6 * time.Second}
}

// Both address families arrive over sessions of both, with next hops that a
// router can use, and with BIRD as an internal and as an external peer.
func TestBirdNextHops(t *testing.T) {
	for _, test := range []struct {
		name   string
		as     uint32
		v4, v6 string
	}{
		{"internal", 65000, "path [] via 192.0.2.132 pref 100", "path [] via 2001:db8::84 pref 100"},
		{"external", 65010, "path [65000] via 192.0.2.132 pref 100", "path [65000] via 2001:db8::84 pref 100"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := startBird(t, fmt.Sprintf(birdHost, test.as, "passive")+birdOver4+birdOver6, here, there)
			s, _ := startSpeaker(t, Options{})
			if err := s.Set([]Route{
				with("198.51.100.1/32", Attributes{Communities: []uint32{65000<<16 | 100}}),
				with("2001:db8:1::1/128", Attributes{Communities: []uint32{65000<<16 | 100}}),
			}); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			if err := s.SetPeers([]Peer{overIPv4(test.as), overIPv6(test.as)}); err != nil {
				t.Fatal(err)
			}
			want := []string{
				"198.51.100.1/32 " + test.v4 + " 65000:100",
				"2001:db8:1::1/128 " + test.v6 + " 65000:100",
			}
			b.await(t, "over4", want...)
			b.await(t, "over6", want...)
			t.Logf("routes at BIRD %s after SetPeers", time.Since(begun))
			for _, p := range s.Peers() {
				if p.State != stateEstablished || p.Advertised != 2 {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

// Each of the two ways to find a next hop for the other family, alone.
func TestBirdOnePeer(t *testing.T) {
	want := []string{"198.51.100.1/32 path [] via 192.0.2.132 pref 100", "2001:db8:1::1/128 path [] via 2001:db8::84 pref 100"}
	for _, test := range []struct {
		protocol, config string
		peer             Peer
	}{
		{"over4", birdOver4, overIPv4(65000)},
		{"over6", birdOver6, overIPv6(65000)},
		{
			"scoped", "protocol bgp scoped from host { neighbor fe80::84 % 'downlink' as 65000; source address fe80::fe; }\n",
			Peer{Name: "scoped", Address: netip.MustParseAddr("fe80::fe"), AS: 65000},
		},
	} {
		t.Run(test.protocol, func(t *testing.T) {
			b := startBird(t, fmt.Sprintf(birdHost, 65000, "passive")+test.config, here, there)
			s, _ := startSpeaker(t, Options{})
			if test.peer.Address.IsLinkLocalUnicast() {
				test.peer.Address = test.peer.Address.WithZone(b.uplink)
			}
			if err := s.SetPeers([]Peer{test.peer}); err != nil {
				t.Fatal(err)
			}
			if err := s.Set(prefixes("198.51.100.1/32", "2001:db8:1::1/128")); err != nil {
				t.Fatal(err)
			}
			b.await(t, test.protocol, want...)
		})
	}
}

// GRACEFUL_SHUTDOWN replaces a route, and the withdrawal comes only after it.
func TestBirdGracefulShutdown(t *testing.T) {
	b := startBird(t, fmt.Sprintf(birdHost, 65000, "passive")+birdOver4, here, there)
	s, _ := startSpeaker(t, Options{})
	if err := s.SetPeers([]Peer{overIPv4(65000)}); err != nil {
		t.Fatal(err)
	}
	const v4, v6 = "198.51.100.1/32", "2001:db8:1::1/128"
	for _, step := range []struct {
		set    []Route
		want   []string
		events []string
	}{
		{
			prefixes(v4, v6),
			[]string{v4 + " path [] via 192.0.2.132 pref 100", v6 + " path [] via 2001:db8::84 pref 100"},
			[]string{"over4.ipv4 added", "over4.ipv6 added"},
		},
		{
			[]Route{draining(v4), draining(v6)},
			[]string{v4 + " path [] via 192.0.2.132 pref 100 65535:0", v6 + " path [] via 2001:db8::84 pref 100 65535:0"},
			[]string{"over4.ipv4 added", "over4.ipv6 added"}, // BIRD's word for a replacement too
		},
		{nil, nil, []string{"over4.ipv4 removed", "over4.ipv6 removed"}},
	} {
		if err := s.Set(step.set); err != nil {
			t.Fatal(err)
		}
		b.await(t, "over4", step.want...)
		if diff := cmp.Diff(step.events, b.told(t)); diff != "" {
			t.Errorf("what BIRD was told (-want +got):\n%s", diff)
		}
	}
}

// Both sides call and listen at once, as BIRD does unless told otherwise.
func TestBirdBothCall(t *testing.T) {
	b := startBird(t, fmt.Sprintf(birdHost, 65000, "connect delay time 1; connect retry time 1")+birdOver4+birdOver6, here, there)
	s, _ := startSpeaker(t, Options{ListenPort: 179})
	if err := s.Set(prefixes("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPeers([]Peer{overIPv4(65000), overIPv6(65000)}); err != nil {
		t.Fatal(err)
	}
	b.await(t, "over4", "198.51.100.1/32 path [] via 192.0.2.132 pref 100")
	b.await(t, "over6", "198.51.100.1/32 path [] via 192.0.2.132 pref 100")
}

// An interface that loses its IPv6 address takes the IPv6 routes with it, and
// brings them back.
func TestBirdAddressGoes(t *testing.T) {
	b := startBird(t, fmt.Sprintf(birdHost, 65000, "passive")+birdOver4, here, there)
	s, _ := startSpeaker(t, Options{})
	if err := s.SetPeers([]Peer{overIPv4(65000)}); err != nil {
		t.Fatal(err)
	}
	routes := prefixes("198.51.100.1/32", "2001:db8:1::1/128")
	if err := s.Set(routes); err != nil {
		t.Fatal(err)
	}
	v4, v6 := "198.51.100.1/32 path [] via 192.0.2.132 pref 100", "2001:db8:1::1/128 path [] via 2001:db8::84 pref 100"
	b.await(t, "over4", v4, v6)
	link, err := netlink.LinkByName(b.uplink)
	if err != nil {
		t.Fatal(err)
	}
	address, err := netlink.ParseAddr(here[1])
	if err != nil {
		t.Fatal(err)
	}
	address.Flags = unix.IFA_F_NODAD
	if err := netlink.AddrDel(link, address); err != nil {
		t.Fatal(err)
	}
	want := "announcing 1 IPv6 routes: no global IPv6 address on the interface towards 192.0.2.254 to be their next hop"
	eventually(t, func() (bool, string) { // within nextHopAge
		err := s.Set(routes)
		return err != nil && err.Error() == want, fmt.Sprintf("got error %v, want %s", err, want)
	})
	b.await(t, "over4", v4)
	if err := netlink.AddrAdd(link, address); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(routes); err != nil {
		t.Fatal(err)
	}
	b.await(t, "over4", v4, v6)
}
