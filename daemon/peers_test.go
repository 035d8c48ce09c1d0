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
			HoldTime: 9 * time.Second, Multihop: 3, TTLSecurity: true, Source: netip.MustParseAddr("192.0.2.3"), Passive: true,
			IPv4: true, Attributes: config.Attributes{MED: new(uint32(50))},
		},
		{Name: "rr2", IPv4: true, IPv6: true},
		{Name: "rr3", IPv6: true},
	}}}
	want := []bgp.Peer{
		{
			Name: "rr1", Address: netip.MustParseAddr("192.0.2.254"), Port: 1179, AS: 65010, Password: "sesame",
			HoldTime: 9 * time.Second, Multihop: 3, TTLSecurity: true, Source: netip.MustParseAddr("192.0.2.3"), Passive: true,
			Families: bgp.IPv4, Attributes: bgp.Attributes{MED: new(uint32(50))},
		},
		{Name: "rr2", Families: bgp.IPv4 | bgp.IPv6},
		{Name: "rr3", Families: bgp.IPv6},
	}
	if diff := cmp.Diff(want, peersOf(cfg), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
}
