package lab

import (
	"testing"

	"lb4d/config"
)

// TestTrialPool leaves the last LB7 host out, and lowers purge_after.
func TestTrialPool(t *testing.T) {
	top, err := NewTopology(DefaultSizes, GoBGP, LB4D)
	if err != nil {
		t.Fatal(err)
	}
	h := top.ByRole(RoleLB4)[0]
	files, err := top.filesOf(h, TrialPool(top.Sizes))
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse(files[0].Path, []byte(files[0].Content))
	if err != nil {
		t.Fatalf("%v\n%s", err, files[0].Content)
	}
	if got := len(c.Pools[0].Members); got != top.Sizes.LB7-1 || c.Pools[0].PurgeAfter != trialPurge {
		t.Errorf("%d members, purge_after %v; want %d, %v", got, c.Pools[0].PurgeAfter, top.Sizes.LB7-1, trialPurge)
	}
}

// TestDaemonConfiguration has the daemon's own parser read what the lab writes
// for it.
func TestDaemonConfiguration(t *testing.T) {
	for _, s := range []Sizes{DefaultSizes, FullSizes} {
		top, err := NewTopology(s, GoBGP, LB4D)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range top.ByRole(RoleLB4) {
			for _, f := range h.Files {
				if f.Path != "/etc/lb/lb4d.toml" {
					continue
				}
				c, err := config.Parse(f.Path, []byte(f.Content))
				if err != nil {
					t.Fatalf("%s: %v\n%s", h.Name, err, f.Content)
				}
				if c.BGP.RouterID != h.Address {
					t.Errorf("%s: router_id %v, want %v", h.Name, c.BGP.RouterID, h.Address)
				}
				if got := len(c.BGP.Peers); got != 2*s.Reflectors {
					t.Errorf("%s: %d peers, want %d", h.Name, got, 2*s.Reflectors)
				}
				if got := len(c.Pools[0].Members); got != s.LB7 {
					t.Errorf("%s: %d members, want %d", h.Name, got, s.LB7)
				}
				announced := 0
				for _, svc := range c.Services {
					announced += len(svc.VIPs)
				}
				if announced != len(top.VIPs) {
					t.Errorf("%s: %d VIPs, want %d", h.Name, announced, len(top.VIPs))
				}
			}
		}
	}
}
