package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// same compares configurations; an empty list is as good as none, but for
// those of attributes, where it says something.
var same = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}),
	cmp.FilterPath(func(p cmp.Path) bool {
		return !slices.ContainsFunc(p, func(step cmp.PathStep) bool { return step.Type() == reflect.TypeFor[Attributes]() })
	}, cmpopts.EquateEmpty()),
}

// TestMinimal proves every default.
func TestMinimal(t *testing.T) {
	got, err := Parse("minimal.toml", []byte(Minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		MaintenanceFile: "/etc/lb/disable",
		CheckMark:       0x4c420000,
		StateDir:        "/var/lib/lb",
		Control:         Control{Socket: "/run/lb/lb4d.sock", Group: "lb"},
		BGP: BGP{
			AS:              65000,
			RouterID:        netip.MustParseAddr("192.0.2.132"),
			HoldTime:        6 * time.Second,
			GracefulRestart: time.Minute,
			Multihop:        1,
			DrainTime:       5 * time.Second,
			Siblings:        true, SiblingsSettle: 30 * time.Second, PrefixLimit: 100000,
			Peers: []Peer{{
				Name: "rr1", Address: netip.MustParseAddr("192.0.2.254"), Port: 179, AS: 65000,
				HoldTime: 6 * time.Second, GracefulRestart: time.Minute, Multihop: 1, Siblings: true, PrefixLimit: 100000, IPv4: true, IPv6: true,
			}},
		},
		Pools: []Pool{{
			Name:          "lb7",
			Encapsulation: IPIP,
			PurgeAfter:    30 * time.Second,
			Members: []Member{
				{Name: "192.0.2.139", Address: netip.MustParseAddr("192.0.2.139"), Weight: 1},
				{Name: "192.0.2.140", Address: netip.MustParseAddr("192.0.2.140"), Weight: 1},
			},
			Check: Check{
				HTTP:         "/healthcheck",
				Port:         80,
				ExpectStatus: []int{200},
				DrainStatus:  []int{503},
				Interval:     time.Second,
				Timeout:      500 * time.Millisecond,
				Rise:         2,
				Fall:         3,
				Via:          ViaTunnel,
				MTU:          1500,
			},
		}},
		Services: []Service{{
			Name:          "www",
			VIPs:          []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")},
			Ports:         []Port{{80, "tcp"}},
			Pool:          "lb7",
			Quorum:        Quorum{Members: 1},
			QuorumRestore: Quorum{Members: 1},
			Scheduler:     "mh",
			Flags:         []string{"mh-port", "mh-fallback"},
		}},
		Damping: Damping{Tolerate: 2, HoldDown: 10 * time.Second, MaxHoldDown: 5 * time.Minute, ForgetAfter: 5 * time.Minute},
	}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// TestEveryKey proves that each key arrives where it should, with a value
// that is not the default.
func TestEveryKey(t *testing.T) {
	got, err := Parse("lb4d.toml", []byte(`
maintenance_file = "/srv/lb/off"
state_dir = "/srv/lb/state/"
check_mark = 1_000
http = { listen = "[::1]:9404" }

[control]
socket = "/srv/lb/sock"
group = ""

[bgp]
as = 4200000000
router_id = "192.0.2.1"
hold_time = "1m30s"
multihop = 3
ttl_security = true
listen_port = 179
graceful_restart = "2m"
drain_time = "0s"
drain_med = 4294967295
drain_prepend = 16
siblings = false
siblings_settle = "1m"
prefix_limit = 5
communities = ["no-export", "65000:100", "blackhole", "anycast"]
large_communities = ["4200000000:2:3", "site-1", "4200000000:1:2"]
med = 4294967295
local_preference = 1
prepend = 1
next_hops = ["192.0.2.1", "2001:db8::1"]
community = { anycast = "65000:7", site-1 = "65000:1:100" }
peer.b = { address = "2001:db8::b", port = 1179, as = 65001, hold_time = "9s", graceful_restart = "4095s", multihop = 255, ttl_security = false, families = ["ipv6"], siblings = true, prefix_limit = 0, bfd = { interval = "50ms", multiplier = 50, multihop = true }, communities = [], med = 0, prepend = 16, next_hops = ["2001:db8::2"] }
peer.a = { address = "192.0.2.250", passive = true, source_address = "192.0.2.3", local_preference = 50, large_communities = ["site-1"], bfd = {} }

[pool."lb7.eu"]
encapsulation = "ipip"
purge_after = "0s"
members = ["192.0.2.9"]
member."b".address = "192.0.2.10"
member.b.address6 = "2001:DB8::10"
member.b.weight = 65535
[pool."lb7.eu".check]
tcp = true
port = 443
interval = "200ms"
rise = 1
fall = 100
via = "direct"

[pool.six]
members = ["2001:db8::6"]
encapsulation = "gue"
gue_port = 5555
[pool.six.check]
http = "/?a=b&c=%20"
host = "www.example.com"
port = 8080
expect_status = [200, 204]
drain_status = []
interval = "1h"
timeout = "10s"
mtu = 9000
mtu_required = true

[damping]
tolerate = 0
hold_down = "1s"
max_hold_down = "1h"
forget_after = "24h"

[service.z]
vips = ["198.51.100.9"]
ports = ["443/tcp", "443/udp"]
pool = "lb7.eu"
quorum = "50%"
quorum_restore = 2
scheduler = "sh"
flags = ["sh-port"]
[service.z.bgp]
communities = ["anycast"]
large_communities = []
med = 7
local_preference = 90
prepend = 0
next_hops = ["192.0.2.7"]

[service.y]
vips = ["2001:db8:1::1", "2001:db8:1::2"]
ports = ["80/tcp"]
pool = "six"
scheduler = "wrr"

[service.x]
vips = ["2001:db8:1::1"]
ports = ["81/tcp"]
pool = "six"
flags = []
`))
	if err != nil {
		t.Fatal(err)
	}
	attributes := Attributes{
		Communities:      []uint32{65000<<16 | 7, 65000<<16 | 100, 0xFFFF029A, 0xFFFFFF01},
		LargeCommunities: [][3]uint32{{65000, 1, 100}, {4200000000, 1, 2}, {4200000000, 2, 3}},
		MED:              new(uint32(4294967295)),
		LocalPreference:  new(uint32(1)),
		Prepend:          new(1),
		NextHop4:         netip.MustParseAddr("192.0.2.1"),
		NextHop6:         netip.MustParseAddr("2001:db8::1"),
	}
	a, b := attributes, attributes
	a.LocalPreference, a.LargeCommunities = new(uint32(50)), [][3]uint32{{65000, 1, 100}}
	b.Communities, b.MED, b.Prepend, b.NextHop6 = []uint32{}, new(uint32(0)), new(16), netip.MustParseAddr("2001:db8::2")
	want := &Config{
		MaintenanceFile: "/srv/lb/off",
		CheckMark:       1000,
		StateDir:        "/srv/lb/state",
		Control:         Control{Socket: "/srv/lb/sock"},
		BGP: BGP{
			AS:              4200000000,
			RouterID:        netip.MustParseAddr("192.0.2.1"),
			HoldTime:        90 * time.Second,
			GracefulRestart: 2 * time.Minute,
			Multihop:        3,
			TTLSecurity:     true,
			ListenPort:      179,
			Attributes:      attributes,
			DrainMED:        new(uint32(4294967295)), DrainPrepend: new(16),
			SiblingsSettle: time.Minute, PrefixLimit: 5,
			Peers: []Peer{
				{
					Name: "a", Address: netip.MustParseAddr("192.0.2.250"), Port: 179, AS: 4200000000,
					HoldTime: 90 * time.Second, GracefulRestart: 2 * time.Minute, Multihop: 3, TTLSecurity: true, Passive: true, Source: netip.MustParseAddr("192.0.2.3"),
					PrefixLimit: 5, BFD: &BFD{Interval: 300 * time.Millisecond, Multiplier: 3},
					IPv4: true, IPv6: true, Attributes: a,
				},
				{
					Name: "b", Address: netip.MustParseAddr("2001:db8::b"), Port: 1179, AS: 65001,
					HoldTime: 9 * time.Second, GracefulRestart: 4095 * time.Second, Multihop: 255, IPv6: true, Attributes: b,
					Siblings: true, BFD: &BFD{Interval: 50 * time.Millisecond, Multiplier: 50, Multihop: true},
				},
			},
		},
		Pools: []Pool{
			{
				Name:          "lb7.eu",
				Encapsulation: IPIP,
				Members: []Member{
					{Name: "192.0.2.9", Address: netip.MustParseAddr("192.0.2.9"), Weight: 1},
					{Name: "b", Address: netip.MustParseAddr("192.0.2.10"), Address6: netip.MustParseAddr("2001:db8::10"), Weight: 65535},
				},
				Check: Check{Port: 443, Interval: 200 * time.Millisecond, Timeout: 100 * time.Millisecond, Rise: 1, Fall: 100, Via: ViaDirect, MTU: 1500},
			},
			{
				Name:          "six",
				Encapsulation: GUE, GUEPort: 5555,
				PurgeAfter: 30 * time.Second,
				Members:    []Member{{Name: "2001:db8::6", Address6: netip.MustParseAddr("2001:db8::6"), Weight: 1}},
				Check: Check{
					HTTP: "/?a=b&c=%20", Host: "www.example.com", Port: 8080, ExpectStatus: []int{200, 204},
					Interval: time.Hour, Timeout: 10 * time.Second, Rise: 2, Fall: 3,
					Via: ViaTunnel, MTU: 9000, MTURequired: true,
				},
			},
		},
		Services: []Service{
			{
				Name: "x", VIPs: []netip.Addr{netip.MustParseAddr("2001:db8:1::1")}, Ports: []Port{{81, "tcp"}},
				Pool: "six", Quorum: Quorum{Members: 1}, QuorumRestore: Quorum{Members: 1}, Scheduler: "mh",
			},
			{
				Name: "y", VIPs: []netip.Addr{netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::2")},
				Ports: []Port{{80, "tcp"}}, Pool: "six", Quorum: Quorum{Members: 1}, QuorumRestore: Quorum{Members: 1}, Scheduler: "wrr",
			},
			{
				Name: "z", VIPs: []netip.Addr{netip.MustParseAddr("198.51.100.9")}, Ports: []Port{{443, "tcp"}, {443, "udp"}},
				Pool: "lb7.eu", Quorum: Quorum{Percent: 50}, QuorumRestore: Quorum{Members: 2}, Scheduler: "sh", Flags: []string{"sh-port"},
				Attributes: Attributes{
					Communities: []uint32{65000<<16 | 7}, LargeCommunities: [][3]uint32{}, MED: new(uint32(7)),
					LocalPreference: new(uint32(90)), Prepend: new(0), NextHop4: netip.MustParseAddr("192.0.2.7"),
				},
			},
		},
		HTTP:    HTTP{Listen: "[::1]:9404"},
		Damping: Damping{HoldDown: time.Second, MaxHoldDown: time.Hour, ForgetAfter: 24 * time.Hour},
	}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// TestAccepted are changes to testdata/full.toml that look odd and are right.
func TestAccepted(t *testing.T) {
	for _, tc := range []struct{ name, old, new string }{
		{"nothing changed", "", ""},
		{"line ends of Windows", "\n", "\r\n"},
		{"a pool that nobody uses", "[pool.ssh]", "[pool.spare]\nmembers = [\"192.0.2.7\"]\ncheck = { http = \"/\" }\n[pool.ssh]"},
		{"a VIP in two services on one pool", "vips = [\"198.51.100.2\"]\nports = [\"22/tcp\"]\npool = \"ssh\"",
			"vips = [\"198.51.100.1\"]\nports = [\"80/udp\"]\npool = \"lb7\""},
		{"a quorum of all members", "quorum = 1", "quorum = 2"},
		{"a quorum of all members in percent", "quorum = 1", `quorum = "100%"`},
		{"a quorum_restore of all members", "quorum = 1", "quorum = 1\nquorum_restore = 2"},
		{"a quorum_restore equal to the quorum", "quorum = 1", "quorum = \"60%\"\nquorum_restore = \"60%\""},
		{"a quorum_restore that means the same number", "quorum = 1", "quorum = 2\nquorum_restore = \"51%\""},
		{"a quorum_restore alone", "quorum = 1", `quorum_restore = "100%"`},
		{"tcp = false beside http", `http = "/healthcheck"`, "http = \"/healthcheck\"\ntcp = false"},
		{"a member on this host", "192.0.2.139", "127.0.0.1"},
		{"a timeout as long as the interval", `timeout = "500ms"`, `timeout = "1s"`},
		{"the shortest hold_time", `hold_time = "6s"`, `hold_time = "3s"`},
		{"the longest hold_time", `hold_time = "6s"`, `hold_time = "65535s"`},
		{"a session option on the peer alone", `address = "192.0.2.253"`, "address = \"192.0.2.253\"\nmultihop = 2\nttl_security = true\nhold_time = \"3s\""},
		{"passive = false without a port to call at", `address = "192.0.2.253"`, "address = \"192.0.2.253\"\npassive = false"},
		{"the highest as", "as = 65000\nrouter_id", "as = 4294967294\nrouter_id"},
		{"a listener on all addresses", `"127.0.0.1:9404"`, `":9404"`},
		{"no listener", `"127.0.0.1:9404"`, `""`},
		{"a number in hexadecimal", "port = 179", "port = 0xB3"},
		{"a number with an underscore", "as = 65000\nrouter_id", "as = 65_000\nrouter_id"},
		{"a string in single quotes", `"192.0.2.132"`, `'192.0.2.132'`},
		{"a socket as long as may be", `"/run/lb/lb4d.sock"`, `"/` + strings.Repeat("x", 106) + `"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if !strings.Contains(full, tc.old) {
				t.Fatalf("%q does not stand in the file", tc.old)
			}
			if _, err := Parse("lb4d.toml", []byte(strings.ReplaceAll(full, tc.old, tc.new))); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBounds proves that each bound is told once, in one line.
func TestBounds(t *testing.T) {
	addresses := func(from, n int) string {
		var list []string
		for i := from; i < from+n; i++ {
			list = append(list, fmt.Sprintf(`"10.%d.%d.%d"`, i>>16, i>>8&255, i&255))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	repeat := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	ports := func(n int) string {
		return "[" + strings.TrimSuffix(repeat(n, `"%d/tcp",`), ",") + "]"
	}
	for _, tc := range []struct{ name, old, new, want string }{
		{"peers", "[pool.lb7]\n", repeat(64, "[bgp.peer.p%d]\naddress = \"192.0.2.1\"\n") + "[pool.lb7]\n",
			"bgp.peer: there are 65 peers; write at most 64"},
		{"communities", "[bgp.peer", "communities = [" + strings.Repeat(`"1:1",`, 65) + "]\n[bgp.peer",
			"bgp.communities: there are 65 communities; write at most 64"},
		{"pools", "[pool.lb7]\n", repeat(1024, "[pool.p%d]\n") + "[pool.lb7]\n",
			"pool: there are 1025 pools; write at most 1024"},
		{"addresses checked through the tunnel", "[pool.lb7]\n",
			repeat(16, "[pool.p%d]\ncheck = { tcp = true, port = 1 }\nmembers = "+addresses(0, 1024)+"\n") + "[pool.lb7]\n",
			`pool: the members take up to 32772 checks through the tunnel, and there are marks for 16384; write via = "direct" in some of the pools`},
		{"members", `["192.0.2.139", "192.0.2.140"]`, addresses(0, 1025),
			"pool.lb7: there are 1025 members; write at most 1024"},
		{"services", "[service.www]", repeat(4096, "[service.s%d]\n") + "[service.www]",
			"service: there are 4097 services; write at most 4096"},
		{"ports", `["80/tcp"]`, ports(257),
			"service.www.ports: there are 257 ports; write at most 256"},
		{"VIPs", `["198.51.100.1", "198.51.100.2"]`, addresses(1, 16385),
			"service.www.vips[16384]: there are more than 16384 VIPs; leave some out"},
		{"VIPs and ports", "vips = [\"198.51.100.1\", \"198.51.100.2\"]\nports = [\"80/tcp\"]", "vips = " + addresses(1, 1000) + "\nports = " + strings.Replace(ports(101), `"0/tcp",`, "", 1),
			"service.www.vips[655]: all VIPs and their ports together are more than 65536; leave some out"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if !strings.Contains(Minimal, tc.old) {
				t.Fatalf("%q does not stand in the file", tc.old)
			}
			_, err := Parse("lb4d.toml", []byte(strings.Replace(Minimal, tc.old, tc.new, 1)))
			if err == nil {
				t.Fatal("no fault")
			}
			_, got, _ := strings.Cut(err.Error(), " ")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("fault (-want +got):\n%s", diff)
			}
		})
	}
}

func TestQuorumOf(t *testing.T) {
	for _, tc := range []struct {
		quorum  Quorum
		n, want int
	}{
		{Quorum{Members: 2}, 4, 2},
		{Quorum{Percent: 50}, 4, 2},
		{Quorum{Percent: 50}, 3, 2},
		{Quorum{Percent: 1}, 3, 1},
		{Quorum{Percent: 100}, 3, 3},
		{Quorum{Percent: 50}, 0, 1},
	} {
		if got := tc.quorum.Of(tc.n); got != tc.want {
			t.Errorf("%+v of %d is %d, want %d", tc.quorum, tc.n, got, tc.want)
		}
	}
}

func TestPool(t *testing.T) {
	cfg, err := Parse("lb4d.toml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"lb7": true, "ssh": true, "": false, "lb": false, "zzz": false} {
		if p, ok := cfg.Pool(name); ok != want || ok && p.Name != name {
			t.Errorf("pool %q: %q, %v", name, p.Name, ok)
		}
	}
}
