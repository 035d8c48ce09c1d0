package plan

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb4d/bgp"
	"lb4d/config"
	"lb4d/l4"
)

// TestVerify: what the read-back does not bear out is not announced.
func TestVerify(t *testing.T) {
	vip := addr("198.51.100.1")
	local := []netip.Addr{vip}
	for _, tt := range []struct {
		name      string
		quorum    config.Quorum
		kernel    l4.Table
		addresses []netip.Addr
		want      string
	}{
		{
			name:   "the kernel has it all",
			kernel: listed(bothListed), addresses: local,
			want: "198.51.100.1 announced: www forwards to 2 of 2 members\n",
		},
		{
			name:   "the VIP is missing",
			kernel: listed(bothListed),
			want:   "198.51.100.1 withdrawn: the VIP is not a local address\n",
		},
		{
			name:      "the service is missing",
			addresses: local,
			want:      "198.51.100.1 withdrawn: 198.51.100.1:80/tcp is not in the kernel's table\n",
		},
		{
			name:   "one destination could not be added, the quorum holds",
			kernel: listed("198.51.100.1:80\n -> 192.0.2.139 1\n"), addresses: local,
			want: "198.51.100.1 announced: www forwards to 2 of 2 members\n",
		},
		{
			name:   "one destination could not be added, the quorum does not hold",
			quorum: config.Quorum{Percent: 100},
			kernel: listed("198.51.100.1:80\n -> 192.0.2.139 1\n"), addresses: local,
			want: "198.51.100.1 withdrawn: 198.51.100.1:80/tcp has 1 destination in the kernel that takes new flows, quorum 2\n",
		},
		{
			name:   "all weights in the kernel are 0",
			kernel: listed("198.51.100.1:80\n -> 192.0.2.139 0\n -> 192.0.2.140 0\n"), addresses: local,
			want: "198.51.100.1 withdrawn: 198.51.100.1:80/tcp has 0 destinations in the kernel that take new flows, quorum 1\n",
		},
		{
			name: "another scheduler",
			kernel: func() l4.Table {
				table := listed(bothListed)
				table[0].Scheduler, table[0].Flags = "wrr", 0
				return table
			}(), addresses: local,
			want: "198.51.100.1 withdrawn: 198.51.100.1:80/tcp has scheduler wrr in the kernel, want mh mh-fallback,mh-port\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := twoMembers()
			if tt.quorum != (config.Quorum{}) {
				cfg.Services[0].Quorum = tt.quorum
			}
			d := Decide(cfg, Observations{Now: now, Health: members(cfg, "a up, b up")})
			got := show(Decision{}, d.Verify(tt.kernel, tt.addresses))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("VIPs (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRoutes: a draining VIP carries GRACEFUL_SHUTDOWN, a withdrawn one has no
// route.
func TestRoutes(t *testing.T) {
	standby := bgp.Attributes{MED: new(uint32(100))}
	vips := []VIP{
		{Addr: addr("198.51.100.1"), State: Announced},
		{Addr: addr("198.51.100.2"), State: Withdrawn},
		{Addr: addr("2001:db8::1"), State: Draining, Attributes: standby},
	}
	want := []bgp.Route{
		{Prefix: netip.MustParsePrefix("198.51.100.1/32")},
		{Prefix: netip.MustParsePrefix("2001:db8::1/128"), Attributes: standby, Draining: true},
	}
	got := Routes(vips)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

// TestAttributes: a VIP says what its service says of its route, whatever
// becomes of it.
func TestAttributes(t *testing.T) {
	cfg := twoMembers()
	cfg.Services[0].Attributes = config.Attributes{
		Communities: []uint32{1}, LargeCommunities: [][3]uint32{{1, 2, 3}}, MED: new(uint32(4)), LocalPreference: new(uint32(5)),
		Prepend: new(6), NextHop4: addr("192.0.2.7"), NextHop6: addr("2001:db8::7"),
	}
	want := bgp.Attributes{
		Communities: []uint32{1}, LargeCommunities: [][3]uint32{{1, 2, 3}}, MED: new(uint32(4)), LocalPreference: new(uint32(5)),
		Prepend: new(6), NextHop4: addr("192.0.2.7"), NextHop6: addr("2001:db8::7"),
	}
	for _, v := range Decide(cfg, Observations{Now: now, Health: members(cfg, "a up, b up")}).VIPs {
		if !v.Attributes.Equal(want) {
			t.Errorf("%s has %s, want %s", v.Addr, v.Attributes, want)
		}
	}
}

// TestDrainAttributes: a route that drains says so to those who do not obey
// GRACEFUL_SHUTDOWN too, whoever has set what it says otherwise.
func TestDrainAttributes(t *testing.T) {
	cfg := twoMembers()
	cfg.BGP.DrainMED, cfg.BGP.DrainPrepend = new(uint32(1000)), new(3)
	cfg.Services[0].Attributes = config.Attributes{MED: new(uint32(4)), Communities: []uint32{1}}
	vip := addr("198.51.100.1")
	obs := Observations{Now: now, Health: members(cfg, "a up, b up"), Announced: map[netip.Addr]bool{vip: true}}
	if got, want := Decide(cfg, obs).VIPs[0].Attributes.String(), "communities 0:1 med 4"; got != want {
		t.Errorf("announced with %s, want %s", got, want)
	}
	obs.Stopping = now
	d := Decide(cfg, obs)
	if got, want := Routes(d.VIPs)[0].String(), "198.51.100.1/32 communities 0:1 med 1000 prepend 3 draining"; got != want {
		t.Errorf("route %s, want %s", got, want)
	}
}

// TestTargets: one probe for each address that some VIP needs, however many
// services share the pool.
func TestTargets(t *testing.T) {
	both := []config.Member{{Name: "a", Address: addr("192.0.2.139"), Address6: addr("2001:db8::a")}}
	for _, tt := range []struct {
		name string
		cfg  *config.Config
		want map[string]bool
	}{
		{"IPv4 VIPs only", with(twoMembers(), func(c *config.Config) { c.Pools[0].Members = both }),
			map[string]bool{"192.0.2.139": true}},
		{"both families", dualStack(),
			map[string]bool{"192.0.2.139": true, "192.0.2.140": true, "2001:db8::a": true, "2001:db8::b": true}},
		{"two services share the pool", with(twoMembers(), func(c *config.Config) {
			c.Pools[0].Members = both
			s := c.Services[0]
			s.Name, s.Ports = "tls", []config.Port{{Number: 443, Protocol: "tcp"}}
			c.Services = append(c.Services, s)
		}), map[string]bool{"192.0.2.139": true}},
		{"a pool without a service is watched at its IPv4 addresses", with(dualStack(), func(c *config.Config) { c.Services = nil }),
			map[string]bool{"192.0.2.139": true, "192.0.2.140": true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]bool{}
			for target := range Targets(tt.cfg) {
				got[target.Addr.String()] = true
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}
