package daemon

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lb4d/bfd"
	"lb4d/config"
	"lb4d/control"
)

// TestWays: the peers with BFD are watched, and shown where they belong.
func TestWays(t *testing.T) {
	one, two, source := netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("192.0.2.253"), netip.MustParseAddr("192.0.2.3")
	cfg := &config.Config{BGP: config.BGP{Peers: []config.Peer{
		{Name: "rr1", Address: one},
		{Name: "rr2", Address: two, Source: source, BFD: &config.BFD{Interval: 300 * time.Millisecond, Multiplier: 3, Multihop: true}},
	}}}
	want := []bfd.Peer{{Name: "rr2", Address: two, Source: source, Interval: 300 * time.Millisecond, Multiplier: 3, Multihop: true}}
	if diff := cmp.Diff(want, waysOf(cfg), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}

	shown := []control.Peer{{Name: "rr1", Address: one.String()}, {Name: "rr2", Address: two.String()}}
	showWays(shown, []bfd.Status{{
		Name: "rr2", Address: two, State: bfd.Up, Remote: bfd.Init, Interval: 300 * time.Millisecond, Detection: 900 * time.Millisecond,
		Failures: 4, Flapping: true, LastError: "nothing heard for 900ms",
	}})
	bfdShown := &control.BFD{State: "up", Remote: "init", IntervalMillis: 300, DetectionMillis: 900, Failures: 4, Flapping: true, LastError: "nothing heard for 900ms"}
	if diff := cmp.Diff([]control.Peer{{Name: "rr1", Address: one.String()}, {Name: "rr2", Address: two.String(), BFD: bfdShown}}, shown); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}
