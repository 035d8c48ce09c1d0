package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lb4d/config"
	"lb4d/health"
	"lb4d/l4"
)

// throughTunnel has the pool checked through the tunnel.
func throughTunnel(cfg *config.Config) *config.Config {
	cfg.CheckMark = 100
	cfg.Pools[0].Encapsulation = config.IPIP
	cfg.Pools[0].Check = config.Check{Port: 80, Via: config.ViaTunnel, MTU: 1500, MTURequired: true}
	return cfg
}

// service adds one to the configuration, in front of the only pool.
func service(cfg *config.Config, name, port string, vips ...string) {
	s := config.Service{Name: name, Pool: "lb7", Quorum: config.Quorum{Members: 1}, Scheduler: "mh"}
	var p config.Port
	_, _ = fmt.Sscanf(strings.Replace(port, "/", " ", 1), "%d %s", &p.Number, &p.Protocol)
	s.Ports = []config.Port{p}
	for _, vip := range vips {
		s.VIPs = append(s.VIPs, addr(vip))
	}
	cfg.Services = append(cfg.Services, s)
	slices.SortFunc(cfg.Services, func(a, b config.Service) int { return strings.Compare(a.Name, b.Name) })
}

// TestTargetsThroughTheTunnel: which VIP the members are checked to.
func TestTargetsThroughTheTunnel(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  *config.Config
		want map[string]string // by the member's address
	}{
		{"one VIP", throughTunnel(twoMembers()), map[string]string{
			"192.0.2.139": "198.51.100.1, 20 bytes more", "192.0.2.140": "198.51.100.1, 20 bytes more",
		}},
		{"each address to a VIP of its family", throughTunnel(dualStack()), map[string]string{
			"192.0.2.139": "198.51.100.1, 20 bytes more", "192.0.2.140": "198.51.100.1, 20 bytes more",
			"2001:db8::a": "2001:db8::1, 40 bytes more", "2001:db8::b": "2001:db8::1, 40 bytes more",
		}},
		{"the first one of a service, not the lowest", with(throughTunnel(twoMembers()), func(c *config.Config) {
			c.Services[0].VIPs = append(c.Services[0].VIPs, addr("198.51.100.0"))
		}), map[string]string{
			"192.0.2.139": "198.51.100.1, 20 bytes more", "192.0.2.140": "198.51.100.1, 20 bytes more",
		}},
		{"the first service by name", with(throughTunnel(twoMembers()), func(c *config.Config) {
			service(c, "api", "80/tcp", "198.51.100.7")
		}), map[string]string{
			"192.0.2.139": "198.51.100.7, 20 bytes more", "192.0.2.140": "198.51.100.7, 20 bytes more",
		}},
		{"those that have the check's port go before others", with(throughTunnel(twoMembers()), func(c *config.Config) {
			service(c, "api", "443/tcp", "198.51.100.7")
			service(c, "dns", "80/udp", "198.51.100.8")
		}), map[string]string{
			"192.0.2.139": "198.51.100.1, 20 bytes more", "192.0.2.140": "198.51.100.1, 20 bytes more",
		}},
		{"none has the check's port", with(throughTunnel(twoMembers()), func(c *config.Config) { c.Pools[0].Check.Port = 8080 }),
			map[string]string{
				"192.0.2.139": "198.51.100.1, 20 bytes more", "192.0.2.140": "198.51.100.1, 20 bytes more",
			}},
		{"a pool that no service uses has no VIP", with(throughTunnel(twoMembers()), func(c *config.Config) { c.Services = nil }),
			map[string]string{"192.0.2.139": "directly", "192.0.2.140": "directly"}},
		{"VIPs of both families at the only address", with(throughTunnel(dualStack()), func(c *config.Config) {
			c.Pools[0].Members[0].Address6, c.Pools[0].Members[1].Address = netip.Addr{}, netip.Addr{}
		}), map[string]string{
			"192.0.2.139": "198.51.100.1, 20 bytes more", "192.0.2.139, IPv6 VIPs": "2001:db8::1, 20 bytes more",
			"2001:db8::b": "2001:db8::1, 40 bytes more", "2001:db8::b, IPv4 VIPs": "198.51.100.1, 40 bytes more",
		}},
		{"GUE", with(throughTunnel(twoMembers()), func(c *config.Config) { c.Pools[0].Encapsulation = config.GUE }), map[string]string{
			"192.0.2.139": "198.51.100.1, 32 bytes more", "192.0.2.140": "198.51.100.1, 32 bytes more",
		}},
		{"GRE", with(throughTunnel(twoMembers()), func(c *config.Config) { c.Pools[0].Encapsulation = config.GRE }), map[string]string{
			"192.0.2.139": "198.51.100.1, 24 bytes more", "192.0.2.140": "198.51.100.1, 24 bytes more",
		}},
		{"directly", with(throughTunnel(twoMembers()), func(c *config.Config) { c.Pools[0].Check.Via = config.ViaDirect }),
			map[string]string{"192.0.2.139": "directly", "192.0.2.140": "directly"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]string{}
			for target, check := range Targets(tt.cfg) {
				way := "directly"
				if th := check.Through; th != nil {
					way = fmt.Sprintf("%s, %d bytes more", th.VIP, th.Overhead)
					if th.MTU != 1500 || !check.MTURequired || th.Mark != 0 || th.Source.IsValid() {
						t.Errorf("%s: %+v of %+v", target.Addr, th, check)
					}
				} else if check.MTURequired {
					t.Errorf("%s: the MTU of no tunnel is required", target.Addr)
				}
				got[target.Where()] = way
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ways (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMarks tells which marks the members get, in front of what this process
// knows and what the kernel has.
func TestMarks(t *testing.T) {
	cfg := throughTunnel(dualStack()) // four addresses
	targets := Targets(cfg)
	found := func(mark uint32, members ...string) l4.Service {
		s := l4.Service{Key: l4.MarkKey(mark, strings.Contains(members[0], ":")), Scheduler: "rr"}
		for _, m := range members {
			s.Destinations = append(s.Destinations, l4.Destination{Addr: addr(m), Weight: 1})
		}
		return s
	}
	for _, tt := range []struct {
		name, known string
		listed      l4.Table
		want        string // those of a, a6, b, b6
	}{
		{name: "at the first start", want: "100 101 102 103"},
		{
			name:   "what the kernel has stays",
			listed: l4.Table{found(107, "192.0.2.140"), found(100, "2001:db8::a"), found(103, "192.0.2.139"), found(101, "2001:db8::b")},
			want:   "103 100 107 101",
		},
		{
			name:   "a member that comes takes the first that is free",
			listed: l4.Table{found(100, "192.0.2.140"), found(101, "2001:db8::b")},
			want:   "102 103 100 101",
		},
		{
			name:   "what is known goes first, and what is not in the kernel any more stays as well",
			known:  "105 106",
			listed: l4.Table{found(105, "2001:db8::b"), found(110, "192.0.2.139")},
			want:   "105 106 100 101",
		},
		{
			name:   "two services of one member: the lower mark",
			listed: l4.Table{found(120, "192.0.2.139"), found(110, "192.0.2.139")},
			want:   "110 100 101 102",
		},
		{
			name:   "what leads to nobody alone is nobody's",
			listed: l4.Table{found(110, "192.0.2.139", "192.0.2.140")},
			want:   "100 101 102 103",
		},
		{
			name:   "marks that are not ours",
			known:  "7 8",
			listed: l4.Table{found(99, "192.0.2.139"), found(100+config.CheckMarks, "192.0.2.140")},
			want:   "100 101 102 103",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list := through(targets)
			known := map[health.Target]uint32{}
			for i, f := range strings.Fields(tt.known) {
				var mark uint32
				_, _ = fmt.Sscan(f, &mark)
				known[list[i]] = mark
			}
			marks := Marks(cfg, targets, known, tt.listed)
			var got []string
			for _, target := range list {
				got = append(got, fmt.Sprint(marks[target]))
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("marks (-want +got):\n%s", diff)
			}
			// What is chosen and made is chosen again.
			table := MarkTable(cfg, targets, marks)
			if again := Marks(cfg, targets, nil, table); !cmp.Equal(marks, again, cmp.Comparer(func(a, b health.Target) bool { return a == b })) {
				t.Errorf("a process that finds these services chooses %v, want %v", again, marks)
			}
		})
	}
}

// TestMarkTable: each mark leads to its member and nowhere else.
func TestMarkTable(t *testing.T) {
	cfg := throughTunnel(dualStack())
	targets := Targets(cfg)
	var got []string
	for _, op := range l4.Diff(nil, MarkTable(cfg, targets, Marks(cfg, targets, nil, nil))) {
		got = append(got, op.String())
	}
	want := []string{
		"add service fwmark 100 scheduler rr",
		"add destination fwmark 100 -> 192.0.2.139:0 weight 1 ipip",
		"add service fwmark 101 IPv6 scheduler rr",
		"add destination fwmark 101 IPv6 -> [2001:db8::a]:0 weight 1 ipip",
		"add service fwmark 102 scheduler rr",
		"add destination fwmark 102 -> 192.0.2.140:0 weight 1 ipip",
		"add service fwmark 103 IPv6 scheduler rr",
		"add destination fwmark 103 IPv6 -> [2001:db8::b]:0 weight 1 ipip",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

// An IPv6 VIP over an IPv4 network: each member is asked for both VIPs at its
// one address, each with a mark of its own, and stands for each by itself.
func TestIPv6VIPOverIPv4Members(t *testing.T) {
	cfg := throughTunnel(dualStack())
	pool := &cfg.Pools[0]
	pool.Encapsulation, pool.GUEPort = config.GUE, 6080
	pool.Members[0].Address6, pool.Members[1].Address6 = netip.Addr{}, netip.Addr{}
	targets := Targets(cfg)
	var marks []string
	for _, op := range l4.Diff(nil, MarkTable(cfg, targets, Marks(cfg, targets, nil, nil))) {
		marks = append(marks, op.String())
	}
	if diff := cmp.Diff([]string{
		"add service fwmark 100 scheduler rr",
		"add destination fwmark 100 -> 192.0.2.139:0 weight 1 gue port 6080",
		"add service fwmark 101 IPv6 scheduler rr",
		"add destination fwmark 101 IPv6 -> 192.0.2.139:0 weight 1 gue port 6080",
		"add service fwmark 102 scheduler rr",
		"add destination fwmark 102 -> 192.0.2.140:0 weight 1 gue port 6080",
		"add service fwmark 103 IPv6 scheduler rr",
		"add destination fwmark 103 IPv6 -> 192.0.2.140:0 weight 1 gue port 6080",
	}, marks); diff != "" {
		t.Errorf("services of the checks (-want +got):\n%s", diff)
	}

	// The first member lacks what takes IPv6 out of the tunnel.
	states := map[health.Target]health.Status{}
	for target := range targets {
		states[target] = health.Status{State: health.Up}
		if target.Member == pool.Members[0].Name && target.IPv6() {
			states[target] = health.Status{State: health.Down, FailingSince: now}
		}
	}
	d := Decide(cfg, Observations{Now: now, Health: states})
	var table []string
	for _, s := range d.Table {
		for _, dest := range s.Destinations {
			table = append(table, fmt.Sprintf("%s -> %s weight %d %s port %d", s.Key, dest.Addr, dest.Weight, dest.Encapsulation, dest.GUEPort))
		}
	}
	if diff := cmp.Diff([]string{
		"198.51.100.1:80/tcp -> 192.0.2.139 weight 1 gue port 6080",
		"198.51.100.1:80/tcp -> 192.0.2.140 weight 2 gue port 6080",
		"[2001:db8::1]:80/tcp -> 192.0.2.140 weight 2 gue port 6080",
	}, table); diff != "" {
		t.Errorf("destinations (-want +got):\n%s", diff)
	}
}

// TestWarning: what the tunnel lacks is told of a member that is not down.
func TestWarning(t *testing.T) {
	cfg := throughTunnel(twoMembers())
	for state, want := range map[string]string{"up": "too large", "draining": "too large", "down": ""} {
		obs := Observations{Now: now, Health: members(cfg, "a "+state+", b up")}
		for target, st := range obs.Health {
			if target.Member == "a" {
				st.MTU, st.MTUAnswer = health.MTUFailed, "too large"
				obs.Health[target] = st
			}
		}
		d := Decide(cfg, obs)
		if got := d.Members[0].Warning; got != want || d.Members[1].Warning != "" {
			t.Errorf("%s: warnings %q and %q, want %q and none", state, got, d.Members[1].Warning, want)
		}
		if d.Members[0].VIP != addr("198.51.100.1") {
			t.Errorf("%s: checked to %s", state, d.Members[0].VIP)
		}
	}
}
