package daemon

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lb4d/bgp"
	"lb4d/config"
)

// TestPeersOf: what stands in the configuration arrives at the speaker.
func TestPeersOf(t *testing.T) {
	cfg := &config.Config{BGP: config.BGP{Peers: []config.Peer{
		{
			Name: "rr1", Address: netip.MustParseAddr("192.0.2.254"), Port: 1179, AS: 65010, Password: "sesame",
			HoldTime: 9 * time.Second, GracefulRestart: time.Minute, Multihop: 3, TTLSecurity: true, Source: netip.MustParseAddr("192.0.2.3"), Passive: true,
			IPv4: true, Siblings: true, PrefixLimit: 7, Attributes: config.Attributes{MED: new(uint32(50))},
		},
		{Name: "rr2", IPv4: true, IPv6: true},
		{Name: "rr3", IPv6: true},
	}}}
	want := []bgp.Peer{
		{
			Name: "rr1", Address: netip.MustParseAddr("192.0.2.254"), Port: 1179, AS: 65010, Password: "sesame",
			HoldTime: 9 * time.Second, GracefulRestart: time.Minute, Multihop: 3, TTLSecurity: true, Source: netip.MustParseAddr("192.0.2.3"), Passive: true,
			Families: bgp.IPv4, Siblings: true, PrefixLimit: 7, Attributes: bgp.Attributes{MED: new(uint32(50))},
		},
		{Name: "rr2", Families: bgp.IPv4 | bgp.IPv6},
		{Name: "rr3", Families: bgp.IPv6},
	}
	if diff := cmp.Diff(want, peersOf(cfg), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
}

// TestPeerDiff: a plan tells every change of a session, and whether it ends.
func TestPeerDiff(t *testing.T) {
	base := bgp.Peer{Name: "rr1", AS: 65000, HoldTime: 6 * time.Second, Multihop: 1, Families: bgp.IPv4 | bgp.IPv6}
	for want, change := range map[string]func(*bgp.Peer){
		"":                             func(*bgp.Peer) {},
		"name rr2, was rr1":            func(p *bgp.Peer) { p.Name = "rr2" },
		"another password":             func(p *bgp.Peer) { p.Password = "sesame" },
		"multihop 3, was 1":            func(p *bgp.Peer) { p.Multihop = 3 },
		"port 180, was 0":              func(p *bgp.Peer) { p.Port = 180 },
		"passive true, was false":      func(p *bgp.Peer) { p.Passive = true },
		"ttl_security true, was false": func(p *bgp.Peer) { p.TTLSecurity = true },
		"prefix_limit 7, was 0":        func(p *bgp.Peer) { p.PrefixLimit = 7 },
		"siblings true, was false; the session ends and begins anew":      func(p *bgp.Peer) { p.Siblings = true },
		"attributes med 5, was none":                                      func(p *bgp.Peer) { p.Attributes.MED = new(uint32(5)) },
		"as 65010, was 65000; the session ends and begins anew":           func(p *bgp.Peer) { p.AS = 65010 },
		"graceful_restart 1m0s, was 0s; the session ends and begins anew": func(p *bgp.Peer) { p.GracefulRestart = time.Minute },
		"hold_time 9s, was 6s; the session ends and begins anew":          func(p *bgp.Peer) { p.HoldTime = 9 * time.Second },
		"families ipv4, was ipv4,ipv6; the session ends and begins anew":  func(p *bgp.Peer) { p.Families = bgp.IPv4 },
		"source_address 192.0.2.3, was none; the session ends and begins anew": func(p *bgp.Peer) {
			p.Source = netip.MustParseAddr("192.0.2.3")
		},
	} {
		changed := base
		change(&changed)
		if got := peerDiff(base, changed); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
