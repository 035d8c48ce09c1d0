package plan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb4d/config"
)

// fourMembers needs one member of four to go on forwarding.
func fourMembers(restore config.Quorum) *config.Config {
	cfg := dualStack()
	pool := &cfg.Pools[0]
	pool.Members = append(pool.Members,
		config.Member{Name: "c", Address: addr("192.0.2.141"), Address6: addr("2001:db8::c"), Weight: 1},
		config.Member{Name: "d", Address: addr("192.0.2.142"), Address6: addr("2001:db8::d"), Weight: 1})
	cfg.Services[0].VIPs = cfg.Services[0].VIPs[:1]
	cfg.Services[0].QuorumRestore = restore
	return cfg
}

// TestQuorumEdges tells the history of a service: how its members are, one
// decision after the other, and what each of them says.
func TestQuorumEdges(t *testing.T) {
	type moment struct{ states, want string }
	both := func(c *config.Config) { c.Services[0].VIPs = append(c.Services[0].VIPs, addr("2001:db8::1")) }
	for _, tt := range []struct {
		name    string
		cfg     *config.Config
		history []moment
	}{
		{
			name: "without quorum_restore there is one edge", cfg: fourMembers(config.Quorum{}),
			history: []moment{
				{"a up, b up, c up, d up", "announced: www forwards to 4 of 4 members"},
				{"a down, b down, c down, d down", "withdrawn: www has 0 of 4 members up, quorum 1"},
				{"a up, b down, c down, d down", "announced: www forwards to 1 of 4 members"},
			},
		},
		{
			name: "down to the quorum, back at quorum_restore", cfg: fourMembers(config.Quorum{Members: 2}),
			history: []moment{
				{"a up, b up, c up, d up", "announced: www forwards to 4 of 4 members"},
				{"a up, b down, c down, d down", "announced: www forwards to 1 of 4 members"},
				{"a down, b down, c down, d down", "withdrawn: www has 0 of 4 members up, quorum 1"},
				{"a up, b down, c down, d down", "withdrawn: www has 1 of 4 members up, quorum_restore 2"},
				{"a down, b down, c down, d down", "withdrawn: www has 0 of 4 members up, quorum 1"},
				{"a draining, b up, c down, d down", "withdrawn: www has 1 of 4 members up, quorum_restore 2"},
				{"a up, b up, c down, d down", "announced: www forwards to 2 of 4 members"},
				{"a down, b up, c down, d down", "announced: www forwards to 1 of 4 members"},
			},
		},
		{
			name: "as a percentage, rounded up", cfg: fourMembers(config.Quorum{Percent: 51}),
			history: []moment{
				{"a down, b down, c down, d down", "withdrawn: www has 0 of 4 members up, quorum 1"},
				{"a up, b up, c down, d down", "withdrawn: www has 2 of 4 members up, quorum_restore 3"},
				{"a up, b up, c up, d down", "announced: www forwards to 3 of 4 members"},
			},
		},
		{
			name: "at a start the quorum counts", cfg: fourMembers(config.Quorum{Members: 3}),
			history: []moment{
				{"a unknown, b unknown, c unknown, d unknown", "withdrawn: waiting for the first answer of 4 checks"},
				{"a down, b unknown, c unknown, d unknown", "withdrawn: waiting for the first answer of 3 checks"},
				{"a down, b up, c unknown, d down", "withdrawn: waiting for the first answer of 1 check"},
				{"a down, b up, c down, d down", "announced: www forwards to 1 of 4 members"},
			},
		},
		{
			name: "a start with nobody up: from then on it is known not to forward", cfg: fourMembers(config.Quorum{Members: 3}),
			history: []moment{
				{"a unknown, b down, c down, d down", "withdrawn: waiting for the first answer of 1 check"},
				{"a down, b down, c down, d down", "withdrawn: www has 0 of 4 members up, quorum 1"},
				{"a up, b up, c down, d down", "withdrawn: www has 2 of 4 members up, quorum_restore 3"},
			},
		},
		{
			name: "members replaced by a reload: while they have not answered nothing is concluded", cfg: fourMembers(config.Quorum{Members: 3}),
			history: []moment{
				{"a up, b up, c up, d up", "announced: www forwards to 4 of 4 members"},
				{"a unknown, b unknown, c unknown, d unknown", "announced: www goes on while 4 members of 4 have not answered yet"},
				{"a down, b up, c down, d down", "announced: www forwards to 1 of 4 members"},
			},
		},
		{
			name: "below the quorum in the configuration: the quorum counts", cfg: with(fourMembers(config.Quorum{Members: 1}), func(c *config.Config) {
				c.Services[0].Quorum = config.Quorum{Percent: 50}
			}),
			history: []moment{
				{"a up, b down, c down, d down", "withdrawn: www has 1 of 4 members up, quorum 2"},
				{"a up, b up, c down, d down", "announced: www forwards to 2 of 4 members"},
			},
		},
		{
			name: "each address family has its own edge", cfg: with(fourMembers(config.Quorum{Members: 2}), both),
			history: []moment{
				{"a up, b up, c up, d up", "announced: www forwards to 4 of 4 members"},
				{"a down, b down, c down, d down, a6 up, b6 down, c6 down, d6 down",
					"withdrawn: www has 0 of 4 members up over IPv4, quorum 1"},
				{"a up, b down, c down, d down, a6 up, b6 down, c6 down, d6 down",
					"withdrawn: www has 1 of 4 members up over IPv4, quorum_restore 2"},
				{"a up, b up, c down, d down, a6 up, b6 down, c6 down, d6 down",
					"announced: www forwards to 2 of 4 members over IPv4"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var obs Observations
			for i, m := range tt.history {
				obs.Now, obs.Health = now, members(tt.cfg, m.states)
				d := Decide(tt.cfg, obs)
				got := d.VIPs[0].State.String() + ": " + d.VIPs[0].Reason
				if diff := cmp.Diff(m.want, got); diff != "" {
					t.Errorf("decision %d, %s (-want +got):\n%s", i+1, m.states, diff)
				}
				obs.Forwarding = d.Forwarding
				obs.Announced = map[netip.Addr]bool{}
				for _, v := range d.VIPs {
					obs.Announced[v.Addr] = v.State != Withdrawn
				}
			}
		})
	}
}

// TestFamiliesWithUnequalEdges: as many members are up over IPv4 as over IPv6,
// and only one of the two has fallen. Status shows the one that is worse off.
func TestFamiliesWithUnequalEdges(t *testing.T) {
	cfg := fourMembers(config.Quorum{Members: 2})
	cfg.Services[0].VIPs = append(cfg.Services[0].VIPs, addr("2001:db8::1"))
	d := Decide(cfg, Observations{
		Now: now, Health: members(cfg, "a up, b down, c down, d down"),
		Forwarding: map[ServiceFamily]bool{{"www", false}: true, {"www", true}: false},
	})
	s := d.Services[0]
	if s.Forwarding || s.Up != 1 || s.Quorum != 1 || s.Restore != 2 {
		t.Errorf("forwarding %v, up %d, quorum %d, restore %d; want false, 1, 1, 2", s.Forwarding, s.Up, s.Quorum, s.Restore)
	}
	got := show(Decision{}, d.VIPs)
	want := `
198.51.100.1 announced: www forwards to 1 of 4 members over IPv4
2001:db8::1 withdrawn: www has 1 of 4 members up over IPv6, quorum_restore 2
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got); diff != "" {
		t.Errorf("VIPs (-want +got):\n%s", diff)
	}
	if s.Reason != "www has 1 of 4 members up over IPv6, quorum_restore 2" {
		t.Errorf("reason %q", s.Reason)
	}
}
