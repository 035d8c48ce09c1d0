package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/config"
	"lb4d/health"
	"lb4d/l4"
	"lb4d/maintenance"
)

var now = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

// ago is a moment before now.
func ago(s string) time.Time {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return now.Add(-d)
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// twoMembers is the least configuration: one VIP on one port, two members.
func twoMembers() *config.Config {
	return &config.Config{
		BGP: config.BGP{DrainTime: 5 * time.Second},
		Pools: []config.Pool{{
			Name:       "lb7",
			PurgeAfter: 30 * time.Second,
			Members: []config.Member{
				{Name: "a", Address: addr("192.0.2.139"), Weight: 1},
				{Name: "b", Address: addr("192.0.2.140"), Weight: 2},
			},
		}},
		Services: []config.Service{{
			Name:      "www",
			VIPs:      []netip.Addr{addr("198.51.100.1")},
			Ports:     []config.Port{{Number: 80, Protocol: "tcp"}},
			Pool:      "lb7",
			Quorum:    config.Quorum{Members: 1},
			Scheduler: "mh",
			Flags:     []string{"mh-port", "mh-fallback"},
		}},
	}
}

// dualStack has an IPv4 and an IPv6 VIP, and members with both addresses.
func dualStack() *config.Config {
	cfg := twoMembers()
	cfg.Pools[0].Members[0].Address6 = addr("2001:db8::a")
	cfg.Pools[0].Members[1].Address6 = addr("2001:db8::b")
	cfg.Services[0].VIPs = append(cfg.Services[0].VIPs, addr("2001:db8::1"))
	return cfg
}

func with(cfg *config.Config, change func(*config.Config)) *config.Config {
	change(cfg)
	return cfg
}

// members reads "a up, b down 40s": the state of each member's addresses, and
// for how long a member that is down has been failing.
func members(cfg *config.Config, states string) map[health.Target]health.Status {
	byName := map[string]health.Status{}
	for line := range strings.SplitSeq(states, ", ") {
		f := strings.Fields(line)
		st := health.Status{LastAnswer: "200 OK"}
		switch f[1] {
		case "up":
			st.State = health.Up
		case "draining":
			st.State, st.LastAnswer = health.Draining, "503 Service Unavailable"
		case "down":
			st.State, st.LastAnswer = health.Down, "connection refused"
			st.FailingSince = ago("3s")
			if len(f) > 2 {
				st.FailingSince = ago(f[2])
			}
		}
		byName[f[0]] = st
	}
	out := map[health.Target]health.Status{}
	for t := range Targets(cfg) {
		name := t.Member
		if t.Addr.Is6() {
			if _, ok := byName[name+"6"]; ok {
				name += "6"
			}
		}
		out[t] = byName[name]
	}
	return out
}

// listed reads a table as it is printed by show: a service, then its
// destinations with weight and, after a slash, connections.
func listed(text string) l4.Table {
	var table l4.Table
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if f[0] != "->" {
			ap := netip.MustParseAddrPort(f[0])
			table = append(table, l4.Service{
				Key:       l4.Key{VIP: ap.Addr(), Port: ap.Port(), Protocol: l4.TCP},
				Scheduler: "mh", Flags: l4.MHFallback | l4.MHPort,
			})
			continue
		}
		s := &table[len(table)-1]
		d := l4.Destination{Addr: addr(f[1]), Port: s.Port, Encapsulation: l4.IPIP}
		if _, err := fmt.Sscanf(f[2], "%d/%d", &d.Weight, &d.ActiveConns); err != nil {
			fmt.Sscan(f[2], &d.Weight)
		}
		s.Destinations = append(s.Destinations, d)
	}
	return table
}

// show prints a decision: VIPs with their reasons, then the wanted table.
func show(d Decision, vips []VIP) string {
	var b strings.Builder
	for _, v := range vips {
		fmt.Fprintf(&b, "%s %s: %s\n", v.Addr, v.State, v.Reason)
	}
	for _, s := range d.Table {
		fmt.Fprintf(&b, "%s\n", netip.AddrPortFrom(s.VIP, s.Port))
		for _, d := range s.Destinations {
			fmt.Fprintf(&b, " -> %s %d", d.Addr, d.Weight)
			if d.Weight != d.FullWeight {
				fmt.Fprintf(&b, " of %d", d.FullWeight)
			}
			b.WriteString("\n")
		}
	}
	if !d.Next.IsZero() {
		fmt.Fprintf(&b, "again in %s\n", d.Next.Sub(now))
	}
	return b.String()
}

const bothListed = `
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
`

func TestDecide(t *testing.T) {
	vip := addr("198.51.100.1")
	announced := map[netip.Addr]bool{vip: true}
	file := maintenance.State{Path: "/etc/lb/disable", Present: true, Since: ago("1s")}

	for _, tt := range []struct {
		name   string
		cfg    *config.Config
		states string
		obs    Observations
		want   string
	}{
		{
			name: "all members up: announced", states: "a up, b up",
			want: `
198.51.100.1 announced: www forwards to 2 of 2 members
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "no answer yet: nothing is announced and nothing is added", states: "a unknown, b up",
			want: `
198.51.100.1 withdrawn: waiting for the first answer of 1 check
198.51.100.1:80
 -> 192.0.2.140 2
`,
		},
		{
			name: "no answer yet, but found in the kernel: its weight there stays", states: "a unknown, b unknown",
			obs: Observations{Listed: listed(bothListed)},
			want: `
198.51.100.1 withdrawn: waiting for the first answer of 2 checks
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "a member joins by reload: the VIP stays announced", states: "a up, b unknown",
			obs: Observations{Announced: announced},
			want: `
198.51.100.1 announced: www forwards to 1 of 2 members
198.51.100.1:80
 -> 192.0.2.139 1
`,
		},
		{
			name: "draining: weight 0, the flows stay", states: "a draining, b up",
			obs: Observations{Listed: listed(bothListed)},
			want: `
198.51.100.1 announced: www forwards to 1 of 2 members
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "draining and not in the table yet: added with its slots", states: "a draining, b up",
			want: `
198.51.100.1 announced: www forwards to 1 of 2 members
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "down for 3 s: weight 0, and purged 27 s later", states: "a down 3s, b up",
			obs: Observations{Listed: listed(bothListed)},
			want: `
198.51.100.1 announced: www forwards to 1 of 2 members
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
again in 27s
`,
		},
		{
			name: "down for purge_after: deleted", states: "a down 30s, b up",
			obs: Observations{Listed: listed(bothListed)},
			want: `
198.51.100.1 announced: www forwards to 1 of 2 members
198.51.100.1:80
 -> 192.0.2.140 2
`,
		},
		{
			name: "down and purge_after off: stays at weight 0", states: "a down 24h, b up",
			cfg: with(twoMembers(), func(c *config.Config) { c.Pools[0].PurgeAfter = 0 }),
			obs: Observations{Listed: listed(bothListed)},
			want: `
198.51.100.1 announced: www forwards to 1 of 2 members
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "down and not in the table: not added", states: "a down 3s, b up",
			want: `
198.51.100.1 announced: www forwards to 1 of 2 members
198.51.100.1:80
 -> 192.0.2.140 2
`,
		},
		{
			name: "all down: withdrawn, and none is purged, since nobody could take its flows", states: "a down 1h, b down 1h",
			obs: Observations{Announced: announced, Listed: listed(bothListed)},
			want: `
198.51.100.1 withdrawn: www has 0 of 2 members up, quorum 1
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 0 of 2
`,
		},
		{
			name: "below a quorum of 60 %: withdrawn", states: "a up, b draining",
			cfg: with(twoMembers(), func(c *config.Config) { c.Services[0].Quorum = config.Quorum{Percent: 60} }),
			want: `
198.51.100.1 withdrawn: www has 1 of 2 members up, quorum 2
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 0 of 2
`,
		},
		{
			name: "maintenance file: graceful shutdown until drain_time is over", states: "a up, b up",
			obs: Observations{Announced: announced, Maintenance: file},
			want: `
198.51.100.1 draining: maintenance file /etc/lb/disable
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
again in 4s
`,
		},
		{
			name: "maintenance file and drain_time over: withdrawn, still forwarding", states: "a up, b up",
			obs: Observations{Announced: announced, Maintenance: maintenance.State{
				Path: "/etc/lb/disable", Present: true, Since: ago("5s"), Reason: "new disk",
			}},
			want: `
198.51.100.1 withdrawn: maintenance file /etc/lb/disable (new disk)
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "maintenance file, drain_time 0: withdrawn at once", states: "a up, b up",
			cfg: with(twoMembers(), func(c *config.Config) { c.BGP.DrainTime = 0 }),
			obs: Observations{Announced: announced, Maintenance: file},
			want: `
198.51.100.1 withdrawn: maintenance file /etc/lb/disable
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "maintenance file at the start: never announced, not even to drain", states: "a up, b up",
			obs: Observations{Maintenance: file},
			want: `
198.51.100.1 withdrawn: maintenance file /etc/lb/disable
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "no members while draining: withdrawn at once", states: "a down, b down",
			obs: Observations{Announced: announced, Maintenance: file, Listed: listed(bothListed)},
			want: `
198.51.100.1 withdrawn: www has 0 of 2 members up, quorum 1
198.51.100.1:80
 -> 192.0.2.139 0 of 1
 -> 192.0.2.140 0 of 2
`,
		},
		{
			name: "stopping: drained, then withdrawn, the table left as it is", states: "a up, b up",
			obs: Observations{Announced: announced, Stopping: ago("2s")},
			want: `
198.51.100.1 draining: lb4d is stopping
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
again in 3s
`,
		},
		{
			name: "IPv6 down everywhere: the IPv6 VIP goes, the IPv4 one stays",
			cfg:  dualStack(), states: "a up, b up, a6 down 3s, b6 down 3s",
			want: `
198.51.100.1 announced: www forwards to 2 of 2 members over IPv4
2001:db8::1 withdrawn: www has 0 of 2 members up over IPv6, quorum 1
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
[2001:db8::1]:80
`,
		},
		{
			name: "two services on a VIP: both must forward", states: "a up, b up, c down 3s",
			cfg: with(twoMembers(), func(c *config.Config) {
				c.Pools = append(c.Pools, config.Pool{Name: "other", Members: []config.Member{{Name: "c", Address: addr("192.0.2.150"), Weight: 1}}})
				s := c.Services[0]
				s.Name, s.Ports, s.Pool = "api", []config.Port{{Number: 443, Protocol: "tcp"}}, "other"
				c.Services = append([]config.Service{s}, c.Services...)
			}),
			want: `
198.51.100.1 withdrawn: api has 0 of 1 members up, quorum 1
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
198.51.100.1:443
`,
		},
		{
			name: "a member left the configuration with flows: weight 0 until they end", states: "a up, b up",
			obs: Observations{Listed: listed(bothListed + " -> 192.0.2.141 1/7\n -> 192.0.2.142 1/0\n")},
			want: `
198.51.100.1 announced: www forwards to 2 of 2 members
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
 -> 192.0.2.141 0
`,
		},
		{
			name: "a member left an hour ago: its last flows are given up", states: "a up, b up",
			obs: Observations{
				Listed: listed(bothListed + " -> 192.0.2.141 0/7\n"),
				LeavingSince: map[Leaver]time.Time{
					{Service: l4.Key{VIP: vip, Port: 80, Protocol: l4.TCP}, Addr: addr("192.0.2.141")}: ago("1h"),
				},
			},
			want: `
198.51.100.1 announced: www forwards to 2 of 2 members
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
`,
		},
		{
			name: "a VIP left the configuration and is announced: its table stays", states: "a up, b up",
			obs: Observations{
				Owned:     []netip.Addr{addr("198.51.100.9")},
				Announced: map[netip.Addr]bool{addr("198.51.100.9"): true},
				Listed:    listed("198.51.100.9:80\n -> 192.0.2.139 1\n"),
			},
			want: `
198.51.100.1 announced: www forwards to 2 of 2 members
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
198.51.100.9:80
 -> 192.0.2.139 1 of 0
`,
		},
		{
			name: "a VIP left and was withdrawn 500 ms ago: its table lingers", states: "a up, b up",
			obs: Observations{
				Owned:         []netip.Addr{addr("198.51.100.9")},
				LastAnnounced: map[netip.Addr]time.Time{addr("198.51.100.9"): ago("500ms")},
				Listed:        listed("198.51.100.9:80\n -> 192.0.2.139 1\n"),
			},
			want: `
198.51.100.1 announced: www forwards to 2 of 2 members
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
198.51.100.9:80
 -> 192.0.2.139 1 of 0
again in 1.5s
`,
		},
		{
			name: "a VIP left long ago, or with an earlier process: removed", states: "a up, b up",
			obs: Observations{
				Owned:  []netip.Addr{addr("198.51.100.9")},
				Listed: listed("198.51.100.9:80\n -> 192.0.2.139 1\n"),
			},
			want: `
198.51.100.1 announced: www forwards to 2 of 2 members
198.51.100.1:80
 -> 192.0.2.139 1
 -> 192.0.2.140 2
`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := tt.cfg
			if cfg == nil {
				cfg = twoMembers()
			}
			tt.obs.Now = now
			tt.obs.Health = members(cfg, tt.states)
			d := Decide(cfg, tt.obs)
			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), show(d, d.VIPs)); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}
