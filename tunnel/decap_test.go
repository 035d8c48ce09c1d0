package tunnel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// in words, a device a line.
func words(w desired) string {
	var s []string
	for _, e := range w.endpoints {
		s = append(s, fmt.Sprintf("%s %s<-%s", e.kind, e.local, e.remote))
	}
	for _, l := range w.listeners {
		s = append(s, l.String())
	}
	return strings.Join(append(s, fmt.Sprintf("mss %d %d", w.mss4, w.mss6)), "\n")
}

func lines(s ...string) string { return strings.Join(s, "\n") }

// TestWant: which devices each combination of modes, VIPs and addresses takes,
// and which segments fit.
func TestWant(t *testing.T) {
	const both = "192.0.2.139 2001:db8:2::8b"
	for _, tt := range []struct {
		name                     string
		modes                    []Mode
		vips, found, local, from string
		want                     string
		err                      string
	}{
		{
			name: "IPv4 alone", modes: []Mode{IPIP}, vips: "198.51.100.1", found: both,
			want: lines("ipip 192.0.2.139<-0.0.0.0", "mss 1440 0"),
		},
		{
			name: "IPv6 VIP in IPv4", modes: []Mode{IPIP}, vips: "2001:db8:1::1", found: both,
			want: lines("sit 192.0.2.139<-0.0.0.0", "mss 0 1420"),
		},
		{
			name: "the design's modes", modes: []Mode{IPIP, IP6IP6}, vips: "198.51.100.1 2001:db8:1::1", found: both,
			want: lines("ipip 192.0.2.139<-0.0.0.0", "sit 192.0.2.139<-0.0.0.0", "tnl6 2001:db8:2::8b<-::", "mss 1420 1400"),
		},
		{
			name: "GUE and IPIP share devices", modes: []Mode{GUE, IPIP}, vips: "198.51.100.1", found: both,
			want: lines("ipip 192.0.2.139<-0.0.0.0", "tnl6 2001:db8:2::8b<-::", "GUE port 6080 (IPv4)", "GUE port 6080 (IPv6)", "mss 1408 0"),
		},
		{
			name: "GRE", modes: []Mode{GRE}, vips: "198.51.100.1 2001:db8:1::1", found: both,
			want: lines("gre 192.0.2.139<-0.0.0.0", "gre6 2001:db8:2::8b<-::", "mss 1416 1396"),
		},
		{
			name: "a VIP that another device has is no address to send to", modes: []Mode{IPIP}, vips: "198.51.100.1", found: both + " 198.51.100.1",
			want: lines("ipip 192.0.2.139<-0.0.0.0", "mss 1440 0"),
		},
		{
			name: "sources", modes: []Mode{IPIP}, vips: "198.51.100.1", found: both + " 192.0.2.200", from: "192.0.2.2 192.0.2.1",
			want: lines("ipip 0.0.0.0<-192.0.2.1", "ipip 0.0.0.0<-192.0.2.2", "mss 1440 0"),
		},
		{
			name: "sources and local", modes: []Mode{IPIP}, vips: "198.51.100.1", found: both + " 192.0.2.200", local: "192.0.2.139", from: "192.0.2.1",
			want: lines("ipip 192.0.2.139<-192.0.2.1", "mss 1440 0"),
		},
		{
			name: "GUE from IPv4 sources takes no IPv6 port", modes: []Mode{GUE}, vips: "198.51.100.1", found: both, from: "192.0.2.1",
			want: lines("ipip 0.0.0.0<-192.0.2.1", "GUE port 6080 (IPv4)", "mss 1428 0"),
		},
		{
			name: "no IPv6 address", modes: []Mode{IPIP, IP6IP6}, vips: "198.51.100.1", found: "192.0.2.139",
			want: lines("ipip 192.0.2.139<-0.0.0.0", "mss 1440 0"),
			err:  "mode ip6ip6: this host and the sources have no address in common",
		},
		{name: "no VIP", modes: []Mode{IPIP}, found: both, want: "mss 0 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Decapsulation{Modes: tt.modes, VIPs: addrs(tt.vips), Local: addrs(tt.local), Sources: addrs(tt.from)}
			w, err := d.want(addrs(tt.found), 1500)
			if diff := cmp.Diff(tt.want, words(w)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
	// An underlay that is too narrow for IPv6, and a host with too many addresses.
	if _, err := (Decapsulation{Modes: []Mode{IPIP}, VIPs: addrs("2001:db8::1")}).want(addrs("192.0.2.139"), 1280); err == nil || !strings.Contains(err.Error(), "IPv6 needs more") {
		t.Errorf("an underlay of 1280: %v", err)
	}
	var many []netip.Addr
	for a := netip.MustParseAddr("10.0.0.1"); len(many) <= maxTunnels; a = a.Next() {
		many = append(many, a)
	}
	if w, err := (Decapsulation{Modes: []Mode{IPIP}, VIPs: addrs("198.51.100.1")}).want(many, 1500); err == nil || len(w.endpoints) != maxTunnels {
		t.Errorf("%d addresses: %d devices, %v", len(many), len(w.endpoints), err)
	}
}

// TestValidateDecapsulation: each fault is told by what is wrong.
func TestValidateDecapsulation(t *testing.T) {
	for _, tt := range []struct {
		d    Decapsulation
		want string // in the error; "" for none
	}{
		{Decapsulation{}, ""},
		{Decapsulation{VIPs: addrs("198.51.100.1"), Modes: Modes()}, ""},
		{Decapsulation{VIPs: addrs("198.51.100.1"), Modes: []Mode{"vxlan"}}, `mode "vxlan"`},
		{Decapsulation{VIPs: addrs("198.51.100.1")}, "no mode is named"},
		{Decapsulation{VIPs: addrs("127.0.0.1"), Modes: Modes()}, "VIP 127.0.0.1"},
		{Decapsulation{VIPs: []netip.Addr{{}}, Modes: Modes()}, "VIP"},
		{Decapsulation{VIPs: addrs("::ffff:192.0.2.1"), Modes: Modes()}, "VIP ::ffff:192.0.2.1"},
		{Decapsulation{Sources: addrs("0.0.0.0")}, "source 0.0.0.0"},
		{Decapsulation{Local: addrs("fe80::1")}, "local address fe80::1"},
		{Decapsulation{VIPs: addrs("198.51.100.1"), Local: addrs("198.51.100.1"), Modes: Modes()}, "is a VIP"},
		{Decapsulation{MTU: 500}, "mtu 500"},
		{Decapsulation{MTU: 70000}, "mtu 70000"},
	} {
		err := tt.d.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.d, err, tt.want)
		}
	}
}

// TestDiffTunnels: what is there, what is wanted, and the operations in order.
func TestDiffTunnels(t *testing.T) {
	a := endpoint{kindIPIP, netip.MustParseAddr("192.0.2.139"), netip.IPv4Unspecified()}
	b := endpoint{kindSIT, netip.MustParseAddr("192.0.2.139"), netip.IPv4Unspecified()}
	is := func(e endpoint, up bool) foundTunnel { return foundTunnel{e.name(), e, up} }
	for _, tt := range []struct {
		name   string
		listed []foundTunnel
		wanted []endpoint
		want   []string
	}{
		{name: "nothing", want: nil},
		{name: "as it should be", listed: []foundTunnel{is(b, true), is(a, true)}, wanted: []endpoint{a, b}},
		{name: "new", wanted: []endpoint{a}, want: []string{"add device " + a.String(), "set up device " + a.name()}},
		{name: "down", listed: []foundTunnel{is(a, false)}, wanted: []endpoint{a}, want: []string{"set up device " + a.name()}},
		{name: "unwanted", listed: []foundTunnel{is(a, true), is(b, true)}, wanted: []endpoint{b}, want: []string{"remove device " + a.name()}},
		{
			name: "of another sort than its name says", listed: []foundTunnel{{name: a.name(), up: true}}, wanted: []endpoint{a},
			want: []string{"remove device " + a.name(), "add device " + a.String(), "set up device " + a.name()},
		},
		{
			name: "with another's addresses", listed: []foundTunnel{{b.name(), a, true}}, wanted: []endpoint{a},
			want: []string{"remove device " + b.name(), "add device " + a.String(), "set up device " + a.name()},
		},
	} {
		var got []string
		for _, op := range diffTunnels(tt.listed, tt.wanted) {
			got = append(got, op.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestDeviceNames fit the kernel, differ, and are known again.
func TestDeviceNames(t *testing.T) {
	seen := make(map[string]bool)
	for k := range kinds {
		for a := netip.MustParseAddr("10.0.0.1"); a != netip.MustParseAddr("10.0.4.1"); a = a.Next() {
			name := endpoint{k, a, netip.IPv4Unspecified()}.name()
			if len(name) > 15 || seen[name] || !ours(name) {
				t.Fatalf("name %q: %d characters, seen %t, ours %t", name, len(name), seen[name], ours(name))
			}
			seen[name] = true
		}
	}
	for _, name := range []string{Device, "lb-ipip", "lb-ipip-short", "lb-vxlan-abcdefg", "ipip-abcdefg", "lb-gre-abcdefgh"} {
		if ours(name) {
			t.Errorf("%q is not ours", name)
		}
	}
}

// TestDiffMSS: what a route has, what was noted of it, what is done to it, and
// what is noted then.
func TestDiffMSS(t *testing.T) {
	v4 := routeKey{Dst: netip.MustParsePrefix("0.0.0.0/0")}
	v6 := routeKey{Dst: netip.MustParsePrefix("::/0"), Priority: 1024}
	for _, tt := range []struct {
		name       string
		route      routeMSS
		noted      []notedMSS
		limit      int
		want       string // "" for no change
		wantsNoted *notedMSS
	}{
		{"limited", routeMSS{v4, 0, 1460}, nil, 1440, "set advmss of route to 0.0.0.0/0 to 1440 (was none)", &notedMSS{v4, 0, 1440}},
		{"IPv6", routeMSS{v6, 0, 1440}, nil, 1420, "set advmss of route to ::/0 metric 1024 to 1420 (was none)", &notedMSS{v6, 0, 1420}},
		{"as it should be", routeMSS{v4, 1440, 1460}, []notedMSS{{v4, 0, 1440}}, 1440, "", &notedMSS{v4, 0, 1440}},
		{"narrow enough by its MTU", routeMSS{v4, 0, 1360}, nil, 1440, "", nil},
		{"narrow enough by its owner", routeMSS{v4, 1300, 1460}, nil, 1440, "", nil},
		{"too wide by its owner", routeMSS{v4, 8000, 1460}, nil, 1440, "set advmss of route to 0.0.0.0/0 to 1440 (was 8000)", &notedMSS{v4, 8000, 1440}},
		{"another limit", routeMSS{v4, 1440, 1460}, []notedMSS{{v4, 0, 1440}}, 1408, "set advmss of route to 0.0.0.0/0 to 1408 (was 1440)", &notedMSS{v4, 0, 1408}},
		{"a wider limit", routeMSS{v4, 1408, 1460}, []notedMSS{{v4, 0, 1408}}, 1440, "set advmss of route to 0.0.0.0/0 to 1440 (was 1408)", &notedMSS{v4, 0, 1440}},
		{"no need any more", routeMSS{v4, 1440, 1460}, []notedMSS{{v4, 0, 1440}}, 8940, "set advmss of route to 0.0.0.0/0 to none (was 1440)", nil},
		{"set back", routeMSS{v4, 1440, 1460}, []notedMSS{{v4, 8000, 1440}}, 0, "set advmss of route to 0.0.0.0/0 to 8000 (was 1440)", nil},
		{"somebody else's since", routeMSS{v4, 1300, 1460}, []notedMSS{{v4, 0, 1440}}, 0, "", nil},
		{"written anew by its owner", routeMSS{v4, 0, 1460}, []notedMSS{{v4, 0, 1440}}, 1440, "set advmss of route to 0.0.0.0/0 to 1440 (was none)", &notedMSS{v4, 0, 1440}},
		{"gone since", routeMSS{v6, 0, 1400}, []notedMSS{{v4, 0, 1440}}, 1440, "", nil},
	} {
		ops, noted := diffMSS([]routeMSS{tt.route}, tt.noted, tt.limit, tt.limit)
		got := ""
		for _, op := range ops {
			got += op.String()
		}
		var wanted []notedMSS
		if tt.wantsNoted != nil {
			wanted = append(wanted, *tt.wantsNoted)
		}
		if got != tt.want || !slices.Equal(noted, wanted) {
			t.Errorf("%s: %q, noted %v; want %q, noted %v", tt.name, got, noted, tt.want, wanted)
		}
	}
}

// TestDecapsulationSysctls: what a host has, and what is set.
func TestDecapsulationSysctls(t *testing.T) {
	for _, tt := range []struct {
		all, device string // arp_ignore arp_announce rp_filter
		want        string
	}{
		{"0 0 0", "0 0 0", "arp_ignore=3 arp_announce=2"},
		{"0 0 1", "0 0 0", "arp_ignore=3 arp_announce=2 rp_filter=2"},
		{"0 0 0", "1 2 1", "rp_filter=2"},
		{"1 2 2", "0 0 1", ""},
		{"2 1 0", "0 0 2", "arp_announce=2"},
		{"8 2 0", "0 0 0", ""},
		{"0 0 0", "3 2 0", ""},
		{"4 2 0", "0 0 0", "arp_ignore=3"},
	} {
		present := make(map[string]string)
		for device, values := range map[string]string{"all": tt.all, "x": tt.device} {
			for i, v := range strings.Fields(values) {
				present[confKey(device, []string{"arp_ignore", "arp_announce", keyRPFilter}[i])] = v
			}
		}
		var got []string
		for _, s := range slices.Concat(underlaySysctls("x", present), tunnelSysctls("x", present)) {
			got = append(got, strings.TrimPrefix(s.Key, "net.ipv4.conf.x.")+"="+s.Value)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("all %s, device %s: %q, want %q", tt.all, tt.device, got, tt.want)
		}
	}
}
