package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb4d/config"
)

// drained reads "a: new disk, b:" as drains of members of the pool lb7, an
// hour old.
func drained(text string) map[MemberName]Drain {
	drains := map[MemberName]Drain{}
	for d := range strings.SplitSeq(text, ", ") {
		if name, reason, ok := strings.Cut(d, ":"); ok {
			drains[MemberName{"lb7", name}] = Drain{Reason: strings.TrimSpace(reason), Since: ago("1h")}
		}
	}
	return drains
}

// TestDrains: a drained member takes no new flows whatever its check says, and
// is down all the same when it is down.
func TestDrains(t *testing.T) {
	const forwards = "198.51.100.1 announced: www forwards to 1 of 2 members\n"
	for _, tt := range []struct {
		name           string
		states, drains string
		obs            Observations
		want           string
	}{
		{
			name: "up and drained: weight 0, its flows stay", states: "a up, b up", drains: "a: new disk",
			obs: Observations{Listed: listed(bothListed)},
			want: forwards + `
a draining, weight 0 of 1: draining: drained by the operator: new disk, since 2026-03-01T02:00:00Z
b up, weight 2 of 2: up: 200 OK
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "without a reason", states: "a up, b up", drains: "a:",
			obs: Observations{Listed: listed(bothListed)},
			want: forwards + `
a draining, weight 0 of 1: draining: drained by the operator, since 2026-03-01T02:00:00Z
b up, weight 2 of 2: up: 200 OK
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "the check drains it too: the operator's word is told", states: "a draining, b up", drains: "a: new disk",
			obs: Observations{Listed: listed(bothListed)},
			want: forwards + `
a draining, weight 0 of 1: draining: drained by the operator: new disk, since 2026-03-01T02:00:00Z
b up, weight 2 of 2: up: 200 OK
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "down and drained: down, and purged as ever", states: "a down 3s, b up", drains: "a: new disk",
			obs: Observations{Listed: listed(bothListed)},
			want: forwards + `
a down, weight 0 of 1: down: connection refused; drained by the operator: new disk, since 2026-03-01T02:00:00Z
b up, weight 2 of 2: up: 200 OK
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
again in 27s
`,
		},
		{
			name: "back from down and still drained: it has its slots, and no new flows", states: "a up, b up", drains: "a: new disk",
			obs: Observations{Listed: listed("198.51.100.1:80\n -> 192.0.2.140 2\n")},
			want: forwards + `
a draining, weight 0 of 1: draining: drained by the operator: new disk, since 2026-03-01T02:00:00Z
b up, weight 2 of 2: up: 200 OK
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "no answer yet: its drain is known, its health is waited for", states: "a unknown, b up", drains: "a: new disk",
			obs: Observations{Listed: listed(bothListed)},
			want: `198.51.100.1 withdrawn: waiting for the first answer of 1 check

a draining, weight 0 of 1: draining: drained by the operator: new disk, since 2026-03-01T02:00:00Z
b up, weight 2 of 2: up: 200 OK
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "a drained member takes over from nobody: one that is down is not purged for it", states: "a up, b down 1h", drains: "a: new disk",
			obs: Observations{Listed: listed(bothListed)},
			want: `198.51.100.1 withdrawn: www has 0 of 2 members up, quorum 1

a draining, weight 0 of 1: draining: drained by the operator: new disk, since 2026-03-01T02:00:00Z
b down, weight 0 of 2: down: connection refused
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 0 of 2
`,
		},
		{
			name: "a drain of a member that there is not: nothing", states: "a up, b up", drains: "z: new disk",
			obs: Observations{Listed: listed(bothListed)},
			want: `198.51.100.1 announced: www forwards to 2 of 2 members

a up, weight 1 of 1: up: 200 OK
b up, weight 2 of 2: up: 200 OK
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := twoMembers()
			tt.obs.Now, tt.obs.Health, tt.obs.Drains = now, members(cfg, tt.states), drained(tt.drains)
			d := Decide(cfg, tt.obs)
			var got strings.Builder
			got.WriteString(show(Decision{}, d.VIPs) + "\n")
			for _, m := range d.Members {
				fmt.Fprintf(&got, "%s %s, weight %d of %d: %s\n", m.Member, m.State, m.Weight, m.ConfiguredWeight, m.Reason)
			}
			got.WriteString(show(d, nil))
			if diff := cmp.Diff(tt.want, got.String()); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDrainBothFamilies: a drain is of a member, and that is all its addresses.
func TestDrainBothFamilies(t *testing.T) {
	cfg := dualStack()
	d := Decide(cfg, Observations{Now: now, Health: members(cfg, "a up, b up"), Drains: drained("a:")})
	want := `
198.51.100.1 announced: www forwards to 1 of 2 members
2001:db8::1 announced: www forwards to 1 of 2 members
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
[2001:db8::1]:80
 -> 2001:db8::a 0 of 1
 -> 2001:db8::b 2
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), show(d, d.VIPs)); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
}

// TestFallen: which drains would cost a service its quorum.
func TestFallen(t *testing.T) {
	forwarding := map[ServiceFamily]bool{{"www", false}: true}
	two := func(c *config.Config) { c.Services[0].QuorumRestore = config.Quorum{Members: 2} }
	for _, tt := range []struct {
		name           string
		cfg            *config.Config
		states         string
		before, drains string
		forwarding     map[ServiceFamily]bool
		want           []string
	}{
		{"one of two", twoMembers(), "a up, b up", "", "a:", nil, nil},
		{"the last one", twoMembers(), "a up, b down", "", "a:", nil,
			[]string{"www has 0 of 2 members up, quorum 1"}},
		{"the other one was drained before", twoMembers(), "a up, b up", "b:", "a:, b:", nil,
			[]string{"www has 0 of 2 members up, quorum 1"}},
		{"one that is down costs nothing", twoMembers(), "a up, b down", "", "b:", nil, nil},
		{"one that drains already costs nothing", twoMembers(), "a draining, b up", "", "a:", nil, nil},
		{"nothing is left to lose", twoMembers(), "a draining, b down", "", "a:", nil, nil},
		{"a quorum of all", with(twoMembers(), func(c *config.Config) { c.Services[0].Quorum = config.Quorum{Percent: 100} }),
			"a up, b up", "", "a:", nil, []string{"www has 1 of 2 members up, quorum 2"}},
		{"what forwards has its quorum to keep, not its quorum_restore", with(twoMembers(), two), "a up, b up", "", "a:", forwarding, nil},
		{"also where it has begun to forward this very moment", with(twoMembers(), two), "a up, b up", "", "a:",
			map[ServiceFamily]bool{{"www", false}: false}, nil},
		{"each family by itself", dualStack(), "a up, b up, b6 down", "", "a:", nil,
			[]string{"www has 0 of 2 members up over IPv6, quorum 1"}},
		{"both families alike are told once", dualStack(), "a up, b up", "", "a:, b:", nil,
			[]string{"www has 0 of 2 members up, quorum 1"}},
		{"two services on the pool", with(twoMembers(), func(c *config.Config) {
			s := c.Services[0]
			s.Name, s.VIPs, s.Quorum = "api", []netip.Addr{addr("198.51.100.2")}, config.Quorum{Members: 2}
			c.Services = append([]config.Service{s}, c.Services...)
		}), "a up, b up", "", "a:, b:", nil, []string{
			"api has 0 of 2 members up, quorum 2",
			"www has 0 of 2 members up, quorum 1",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			obs := Observations{
				Now: now, Health: members(tt.cfg, tt.states), Drains: drained(tt.before), Forwarding: tt.forwarding,
			}
			if diff := cmp.Diff(tt.want, Fallen(tt.cfg, obs, drained(tt.drains))); diff != "" {
				t.Errorf("fallen (-want +got):\n%s", diff)
			}
		})
	}
}
