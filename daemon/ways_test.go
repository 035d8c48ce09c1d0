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

// TestWayChanges: a plan tells what becomes of BFD.
func TestWayChanges(t *testing.T) {
	a := bfd.Peer{Name: "rr1", Address: netip.MustParseAddr("192.0.2.254"), Interval: 300 * time.Millisecond, Multiplier: 3}
	b := bfd.Peer{Name: "rr2", Address: netip.MustParseAddr("192.0.2.253"), Interval: time.Second, Multiplier: 5, Multihop: true}
	slower := a
	slower.Interval = time.Second
	for _, tt := range []struct {
		old, new []bfd.Peer
		want     []control.Change
	}{
		{[]bfd.Peer{a, b}, []bfd.Peer{b, a}, nil},
		{nil, []bfd.Peer{b}, []control.Change{{What: "BFD with rr2 (192.0.2.253)", Change: "added", Reason: "1s, multiplier 5, multihop"}}},
		{[]bfd.Peer{a}, []bfd.Peer{slower}, []control.Change{{What: "BFD with rr1 (192.0.2.254)", Change: "changed", Reason: "1s, multiplier 3, was 300ms, multiplier 3"}}},
		{[]bfd.Peer{a}, nil, []control.Change{{What: "BFD with rr1 (192.0.2.254)", Change: "removed", Reason: "the router may take that for a failure, unless BFD was taken from it first"}}},
	} {
		if diff := cmp.Diff(tt.want, wayChanges(tt.old, tt.new)); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
	}
}
