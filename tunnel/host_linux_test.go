package tunnel

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lb4d/internal/nstest"
)

// shown is what ip(8) shows of the device's addresses, one a line, without the
// kernel's own link-local one.
func shown(t *testing.T) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(nstest.Run(t, "ip -o addr show dev "+Device)) {
		f := strings.Fields(line)
		if !strings.HasPrefix(f[3], "fe80:") {
			out = append(out, strings.Join(f[2:len(f)-4], " ")+" preferred "+f[len(f)-1])
		}
	}
	return out
}

// isLocal tells whether the kernel takes an address for its own.
func isLocal(t *testing.T, addr netip.Addr) bool {
	t.Helper()
	table := "\n" + nstest.Run(t, "ip -4 route show table local") + nstest.Run(t, "ip -6 route show table local")
	return strings.Contains(table, "\nlocal "+addr.String()+" ")
}

// Each step wants some addresses; they are applied twice, and the second time
// must change nothing.
func TestHost(t *testing.T) {
	const all = "198.51.100.1 198.51.100.2 2001:db8::1 2001:db8::2"
	h := openInNamespace(t)
	steps := []struct {
		name, before, wanted string
		ops                  []string
		shown                []string
	}{
		{
			name: "from nothing", wanted: "2001:db8::1 198.51.100.1",
			ops: []string{"add address 2001:db8::1/128 to lb-vips", "add address 198.51.100.1/32 to lb-vips"},
			shown: []string{
				"inet 198.51.100.1/32 scope host lb-vips\\ preferred forever",
				"inet6 2001:db8::1/128 scope global nodad deprecated noprefixroute \\ preferred 0sec",
			},
		},
		{
			name: "one goes, one comes", wanted: "198.51.100.1 198.51.100.2",
			ops: []string{"add address 198.51.100.2/32 to lb-vips", "remove address 2001:db8::1/128 from lb-vips"},
			shown: []string{
				"inet 198.51.100.1/32 scope host lb-vips\\ preferred forever",
				"inet 198.51.100.2/32 scope host lb-vips\\ preferred forever",
			},
		},
		{
			name: "the device was set down by hand", before: "ip link set lb-vips down", wanted: "198.51.100.1 198.51.100.2",
			ops: []string{"add address 198.51.100.1/32 to lb-vips", "add address 198.51.100.2/32 to lb-vips"},
			shown: []string{
				"inet 198.51.100.1/32 scope host lb-vips\\ preferred forever",
				"inet 198.51.100.2/32 scope host lb-vips\\ preferred forever",
			},
		},
		{
			name: "a local route was deleted by hand", wanted: "198.51.100.1 198.51.100.2",
			before: "ip route del local 198.51.100.1 dev lb-vips table local",
			ops:    []string{"add address 198.51.100.1/32 to lb-vips"},
			shown: []string{
				"inet 198.51.100.2/32 scope host lb-vips\\ preferred forever",
				"inet 198.51.100.1/32 scope host lb-vips\\ preferred forever",
			},
		},
		{
			name: "an IPv6 VIP comes", wanted: "198.51.100.1 2001:db8::1",
			ops: []string{"add address 2001:db8::1/128 to lb-vips", "remove address 198.51.100.2/32 from lb-vips"},
			shown: []string{
				"inet 198.51.100.1/32 scope host lb-vips\\ preferred forever",
				"inet6 2001:db8::1/128 scope global nodad deprecated noprefixroute \\ preferred 0sec",
			},
		},
		{
			name: "its local route was deleted by hand", wanted: "198.51.100.1 2001:db8::1",
			before: "ip -6 route del local 2001:db8::1 dev lb-vips table local",
			ops:    []string{"add address 2001:db8::1/128 to lb-vips"},
			shown: []string{
				"inet 198.51.100.1/32 scope host lb-vips\\ preferred forever",
				"inet6 2001:db8::1/128 scope global nodad deprecated noprefixroute \\ preferred 0sec",
			},
		},
		{
			name: "the device was deleted by hand", before: "ip link delete lb-vips", wanted: "198.51.100.1",
			ops:   []string{"add address 198.51.100.1/32 to lb-vips"},
			shown: []string{"inet 198.51.100.1/32 scope host lb-vips\\ preferred forever"},
		},
		{
			name: "an address that is no VIP is left alone", before: "ip addr add 203.0.113.5/24 dev lb-vips", wanted: "198.51.100.1",
			shown: []string{
				"inet 198.51.100.1/32 scope host lb-vips\\ preferred forever",
				"inet 203.0.113.5/24 scope global lb-vips\\ preferred forever",
			},
		},
		{
			name: "nothing wanted", before: "ip addr del 203.0.113.5/24 dev lb-vips",
			ops: []string{"remove address 198.51.100.1/32 from lb-vips"},
		},
	}
	for _, step := range steps {
		if step.before != "" {
			nstest.Run(t, step.before)
		}
		if diff := cmp.Diff(step.ops, apply(t, h, step.wanted)); diff != "" {
			t.Errorf("%s: operations (-want +got):\n%s", step.name, diff)
		}
		if diff := cmp.Diff(step.shown, shown(t)); diff != "" {
			t.Errorf("%s: ip addr (-want +got):\n%s", step.name, diff)
		}
		for _, a := range addrs(all) {
			wanted := strings.Contains(" "+step.wanted+" ", " "+a.String()+" ")
			if got := isLocal(t, a); got != wanted {
				t.Errorf("%s: %s is local: %v, want %v", step.name, a, got, wanted)
			}
		}
		dump := nstest.Run(t, "ip addr")
		if again := apply(t, h, step.wanted); len(again) != 0 {
			t.Errorf("%s: the second time these operations were needed: %q", step.name, again)
		}
		if diff := cmp.Diff(dump, nstest.Run(t, "ip addr")); diff != "" {
			t.Errorf("%s: the second time changed (-first +second):\n%s", step.name, diff)
		}
	}
}

// An address that is also on another device stays there, and stays local when
// it is no longer wanted here.
func TestHostLeavesOtherDevicesAlone(t *testing.T) {
	const vips = "198.51.100.1 2001:db8::1"
	h := openInNamespace(t)
	nstest.Run(t, "ip addr add 198.51.100.1/32 dev lo")
	nstest.Run(t, "ip addr add 2001:db8::1/128 dev lo")
	lo := nstest.Run(t, "ip addr show dev lo")
	if ops := apply(t, h, vips); len(ops) != 2 {
		t.Errorf("operations: %q, want two additions", ops)
	}
	if ops := apply(t, h, ""); len(ops) != 2 {
		t.Errorf("operations: %q, want two removals", ops)
	}
	if diff := cmp.Diff(lo, nstest.Run(t, "ip addr show dev lo")); diff != "" {
		t.Errorf("lo changed (-before +after):\n%s", diff)
	}
	for _, a := range addrs(vips) {
		if !isLocal(t, a) {
			t.Errorf("%s is no longer local", a)
		}
	}
}

func TestHostErrors(t *testing.T) {
	add, remove := AddressOp{Addr: netip.MustParseAddr("198.51.100.1")}, AddressOp{Addr: netip.MustParseAddr("198.51.100.1"), Remove: true}
	add6 := AddressOp{Addr: netip.MustParseAddr("2001:db8::1")}
	tests := []struct {
		name    string
		prepare func(t *testing.T)
		ops     []AddressOp
		applied int
		want    []string
	}{
		{name: "nothing to remove", ops: []AddressOp{remove}, applied: 1},
		{name: "already gone", ops: []AddressOp{add, remove, remove}, applied: 3},
		{
			name:    "a device of that name",
			prepare: func(t *testing.T) { nstest.Run(t, "ip link add lb-vips type bridge") },
			ops:     []AddressOp{add},
			want:    []string{"device lb-vips is of type bridge, not dummy: rename or delete it"},
		},
		{
			name: "no IPv6 on new devices",
			prepare: func(t *testing.T) {
				set(t, "net.ipv6.conf.default.disable_ipv6", "1")
			},
			ops:     []AddressOp{add6, add},
			applied: 1,
			want: []string{`applying "add address 2001:db8::1/128 to lb-vips": IPv6 is disabled on the device; ` +
				`set net.ipv6.conf.lb-vips.disable_ipv6 and net.ipv6.conf.default.disable_ipv6 to 0: permission denied`},
		},
		{
			name:    "no capability",
			prepare: func(t *testing.T) { only(t, 1234) },
			ops:     []AddressOp{add},
			want:    []string{"making device lb-vips: not permitted; run as root, or with CAP_NET_ADMIN: operation not permitted"},
		},
		{
			name:    "no right but CAP_NET_ADMIN",
			prepare: func(t *testing.T) { only(t, 1234, unix.CAP_NET_ADMIN) },
			ops:     []AddressOp{add, add6},
			applied: 2,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := openInNamespace(t)
			if tt.prepare != nil {
				tt.prepare(t)
			}
			applied, err := h.ApplyAddresses(tt.ops)
			if applied != tt.applied {
				t.Errorf("%d operations applied, want %d", applied, tt.applied)
			}
			checkLines(t, err, tt.want)
		})
	}
}

// set writes a sysctl of the test's namespace.
func set(t *testing.T, key, value string) {
	t.Helper()
	if err := os.WriteFile(path(procSys, key), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// The host must not speak from a VIP: on an uplink without an address of its own
// the kernel looks for one on the other devices, and the VIP here is the one with
// the longest prefix in common with the destination.
func TestHostDoesNotSpeakFromVIPs(t *testing.T) {
	h := openInNamespace(t)
	nstest.Run(t, "ip link add uplink type dummy")
	nstest.Run(t, "ip link set uplink up")
	for _, route := range []string{"-4 route add default dev uplink", "-6 route add default dev uplink"} {
		nstest.Run(t, "ip "+route)
	}
	nstest.Run(t, "ip addr add 192.0.2.1/32 dev lo")
	nstest.Run(t, "ip addr add 2001:db8:0:1::1/128 dev lo nodad")
	apply(t, h, "198.51.100.1 2001:db8:ffff::1")
	for destination, source := range map[string]string{"198.51.100.2": "192.0.2.1", "2001:db8:ffff::2": "2001:db8:0:1::1"} {
		routes, err := netlink.RouteGet(netip.MustParseAddr(destination).AsSlice())
		if err != nil {
			t.Fatal(err)
		}
		if got := routes[0].Src.String(); got != source {
			t.Errorf("to %s the host speaks from %s, want %s", destination, got, source)
		}
	}
}

// A neighbour on the uplink's subnet asks for a VIP in it. The answer can be
// turned off for VIPs alone, and is never given for IPv6.
func TestHostAnswersNeighbours(t *testing.T) {
	h := openInNamespace(t)
	n := connect(t)
	apply(t, h, "192.0.2.77 2001:db8:2::77")
	asks := func() string {
		var answered []string
		for _, a := range addrs("192.0.2.1 192.0.2.77 2001:db8:2::77") {
			if n.asks(t, a) {
				answered = append(answered, a.String())
			}
		}
		return strings.Join(answered, " ")
	}
	if got, want := asks(), "192.0.2.1 192.0.2.77"; got != want {
		t.Errorf("by default it answers for %q, want %q", got, want)
	}
	set(t, "net.ipv4.conf.uplink.arp_ignore", "3")
	if got, want := asks(), "192.0.2.1"; got != want {
		t.Errorf("with arp_ignore 3 it answers for %q, want %q", got, want)
	}
}
