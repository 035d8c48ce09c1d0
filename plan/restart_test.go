package plan

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/config"
	"lb4d/l4"
)

const (
	forwarded4 = "198.51.100.1:80\n -> 192.0.2.139 1\n -> 192.0.2.140 2\n"
	forwarded6 = "[2001:db8::1]:80\n -> 2001:db8::a 1\n -> 2001:db8::b 2\n"
)

// TestKeep: when the peers may keep the routes that a process has left.
func TestKeep(t *testing.T) {
	v4, v6 := addr("198.51.100.1"), addr("2001:db8::1")
	for _, tt := range []struct {
		name   string
		config func(*config.Config)
		before Before
		want   string
	}{
		{
			name:   "forwarding went on",
			before: Before{Announced: []netip.Addr{v4, v6}, Listed: listed(forwarded4 + forwarded6), Addresses: []netip.Addr{v4, v6}},
			want:   "IPv4 198.51.100.1, IPv6 2001:db8::1: the kernel still forwards 2 of the 2 VIPs that were announced",
		},
		{
			name:   "a VIP that was not announced lacks everything",
			before: Before{Announced: []netip.Addr{v4}, Listed: listed(forwarded4), Addresses: []netip.Addr{v4}},
			want:   "IPv4 198.51.100.1: the kernel still forwards 1 of the 1 VIPs that were announced",
		},
		{
			name:   "in one family",
			before: Before{Announced: []netip.Addr{v4, v6}, Listed: listed(forwarded4), Addresses: []netip.Addr{v4, v6}},
			want:   "IPv4 198.51.100.1: the kernel still forwards 1 of the 2 VIPs that were announced; [2001:db8::1]:80/tcp is not in the kernel's table",
		},
		{
			name:   "the addresses are gone",
			before: Before{Announced: []netip.Addr{v4, v6}, Listed: listed(forwarded4 + forwarded6), Addresses: []netip.Addr{v6}},
			want:   "IPv6 2001:db8::1: the kernel still forwards 1 of the 2 VIPs that were announced; 198.51.100.1 is not a local address",
		},
		{
			name:   "the table is empty",
			before: Before{Announced: []netip.Addr{v4, v6}, Addresses: []netip.Addr{v4, v6}},
			want:   "198.51.100.1:80/tcp is not in the kernel's table; [2001:db8::1]:80/tcp is not in the kernel's table",
		},
		{
			name:   "one VIP of two of a family",
			config: func(c *config.Config) { c.Services[0].VIPs = append(c.Services[0].VIPs, addr("198.51.100.2")) },
			before: Before{Announced: []netip.Addr{v4, addr("198.51.100.2")}, Listed: listed(forwarded4), Addresses: []netip.Addr{v4, addr("198.51.100.2")}},
			want:   "198.51.100.2:80/tcp is not in the kernel's table",
		},
		{
			name:   "no destination takes new flows",
			before: Before{Announced: []netip.Addr{v4}, Listed: listed("198.51.100.1:80\n -> 192.0.2.139 0\n"), Addresses: []netip.Addr{v4}},
			want:   "198.51.100.1:80/tcp has 0 destinations in the kernel that take new flows, quorum 1",
		},
		{
			name:   "fewer than the quorum",
			config: func(c *config.Config) { c.Services[0].Quorum = config.Quorum{Percent: 100} },
			before: Before{Announced: []netip.Addr{v4}, Listed: listed("198.51.100.1:80\n -> 192.0.2.139 1\n"), Addresses: []netip.Addr{v4}},
			want:   "198.51.100.1:80/tcp has 1 destination in the kernel that takes new flows, quorum 2",
		},
		{
			name: "another scheduler",
			before: Before{Announced: []netip.Addr{v4}, Addresses: []netip.Addr{v4}, Listed: func() l4.Table {
				table := listed(forwarded4)
				table[0].Scheduler, table[0].Flags = "rr", 0
				return table
			}()},
			want: "198.51.100.1:80/tcp has scheduler rr in the kernel, want mh mh-fallback,mh-port",
		},
		{
			name: "a port that is new",
			config: func(c *config.Config) {
				c.Services[0].Ports = append(c.Services[0].Ports, config.Port{Number: 443, Protocol: "tcp"})
			},
			before: Before{Announced: []netip.Addr{v4}, Listed: listed(forwarded4), Addresses: []netip.Addr{v4}},
			want:   "198.51.100.1:443/tcp is not in the kernel's table",
		},
		{
			name:   "a VIP that has left the configuration",
			before: Before{Announced: []netip.Addr{v4, addr("198.51.100.9")}, Listed: listed(forwarded4), Addresses: []netip.Addr{v4}},
			want:   "IPv4 198.51.100.1: the kernel still forwards 1 of the 2 VIPs that were announced",
		},
		{
			name:   "all of them have",
			before: Before{Announced: []netip.Addr{addr("198.51.100.9")}, Listed: listed(forwarded4), Addresses: []netip.Addr{v4}},
			want:   "the configuration has none of the VIPs any more that were announced",
		},
		{
			name:   "booted",
			before: Before{Announced: []netip.Addr{v4}, Booted: true, Listed: listed(forwarded4), Addresses: []netip.Addr{v4}},
			want:   "the host has been booted since",
		},
		{
			name:   "unreadable",
			before: Before{Announced: []netip.Addr{v4}, Err: errors.New("no IPVS")},
			want:   "the kernel cannot be read: no IPVS",
		},
		{
			name:   "nobody is asked",
			config: func(c *config.Config) { c.BGP.Peers[0].GracefulRestart = 0 },
			before: Before{Announced: []netip.Addr{v4}, Listed: listed(forwarded4), Addresses: []netip.Addr{v4}},
			want:   "no peer is asked to, graceful_restart is 0s",
		},
		{
			name:   "nothing was announced",
			before: Before{Booted: true, Listed: listed(forwarded4), Addresses: []netip.Addr{v4}},
			want:   "no routes were left announced",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := asking(dualStack())
			if tt.config != nil {
				tt.config(cfg)
			}
			k := Keep(cfg, tt.before)
			var vips []string
			for _, vip := range slices.SortedFunc(maps.Keys(k.VIPs), netip.Addr.Compare) {
				family := "IPv4"
				if vip.Is6() {
					family = "IPv6"
				}
				vips = append(vips, fmt.Sprintf("%s %s", family, vip))
				if vip.Is4() && !k.IPv4 || vip.Is6() && !k.IPv6 {
					t.Errorf("%s is kept and its family is not: %+v", vip, k)
				}
			}
			got := k.Reason
			if vips != nil {
				got = strings.Join(vips, ", ") + ": " + got
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if k.Left != (len(tt.before.Announced) > 0) {
				t.Errorf("left is %v", k.Left)
			}
		})
	}
}

// asking has a peer that is asked to keep routes.
func asking(cfg *config.Config) *config.Config {
	cfg.BGP.Peers = []config.Peer{{Name: "rr1", GracefulRestart: time.Minute}}
	return cfg
}

// TestDeferral: nobody waits for longer than half of what it agreed to.
func TestDeferral(t *testing.T) {
	for _, tt := range []struct {
		times []time.Duration
		want  time.Duration
	}{
		{nil, 20 * time.Second},
		{[]time.Duration{time.Minute}, 20 * time.Second},
		{[]time.Duration{time.Hour, 0, 15 * time.Second}, 7500 * time.Millisecond},
	} {
		cfg := &config.Config{}
		for _, d := range tt.times {
			cfg.BGP.Peers = append(cfg.BGP.Peers, config.Peer{GracefulRestart: d})
		}
		if got := Deferral(cfg); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.times, got, tt.want)
		}
	}
}

// TestKept: of the VIPs that peers have kept, those stay that the checks which
// have answered leave a quorum to.
func TestKept(t *testing.T) {
	vip := addr("198.51.100.1")
	for _, tt := range []struct {
		states string
		kept   bool
		want   string
	}{
		{"a unknown, b unknown", false, "198.51.100.1 withdrawn: waiting for the first answer of 2 checks\n"},
		{"a unknown, b unknown", true, "198.51.100.1 announced: www goes on while 2 members of 2 have not answered yet\n"},
		{"a up, b unknown", true, "198.51.100.1 announced: www forwards to 1 of 2 members\n"},
		{"a down, b unknown", true, "198.51.100.1 announced: www goes on while 1 member of 2 has not answered yet\n"},
		{"a down, b down", true, "198.51.100.1 withdrawn: www has 0 of 2 members up, quorum 1\n"},
	} {
		cfg := twoMembers()
		d := Decide(cfg, Observations{Now: now, Health: members(cfg, tt.states), Listed: listed(forwarded4), Kept: map[netip.Addr]bool{vip: tt.kept}})
		got := show(Decision{}, d.Verify(listed(forwarded4), []netip.Addr{vip}))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s, kept %v (-want +got):\n%s", tt.states, tt.kept, diff)
		}
	}
}

// TestCarrying: who is presumed up after a restart.
func TestCarrying(t *testing.T) {
	for _, tt := range []struct{ name, table, want string }{
		{"nothing is known", "", ""},
		{"both carry IPv4", forwarded4, "a (192.0.2.139), b (192.0.2.140)"},
		{"one was drained or down", "198.51.100.1:80\n -> 192.0.2.139 1\n -> 192.0.2.140 0\n", "a (192.0.2.139)"},
		{"in one family", forwarded4 + "[2001:db8::1]:80\n -> 2001:db8::a 1\n", "a (192.0.2.139), a (2001:db8::a), b (192.0.2.140)"},
		{"a service that is not ours", "198.51.100.9:80\n -> 192.0.2.139 1\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for target := range Carrying(dualStack(), listed(tt.table)) {
				got = append(got, target.String())
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, strings.Join(got, ", ")); diff != "" {
				t.Errorf("presumed up (-want +got):\n%s", diff)
			}
		})
	}
}
