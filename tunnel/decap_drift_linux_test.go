package tunnel

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lb4d/internal/nstest"
)

// drifting is an LB7 with every mode, whose namespace others meddle with.
func drifting(t *testing.T) (*Decapsulator, Decapsulation) {
	t.Helper()
	d := openDecapsulator(t)
	nstest.Run(t, "ip route add default via 192.0.2.254")
	nstest.Run(t, "ip -6 route add default via 2001:db8:2::fe")
	// ECMP, as a host with two routers has.
	nstest.Run(t, "ip route add 203.0.113.0/24 nexthop via 192.0.2.253 weight 2 nexthop via 192.0.2.254")
	nstest.Run(t, "ip -6 route add 2001:db8:cafe::/48 nexthop via 2001:db8:2::fd nexthop via 2001:db8:2::fe")
	want := lb7Decapsulation(Modes()...)
	settle(t, d, want)
	return d, want
}

// state is what the tools print of all that is made here.
func state(t *testing.T) string {
	t.Helper()
	// Without the number that each device has for itself.
	var s []string
	for _, command := range []string{"ip -o -br link", "ip -br address", "ip route show", "ip -6 route show", "ip fou show"} {
		for line := range strings.Lines(nstest.Run(t, command)) {
			if f := strings.Fields(line); len(f) > 0 {
				s = append(s, strings.Join(f, " "))
			}
		}
	}
	return strings.Join(s, "\n")
}

// TestKernelDriftRepaired: whatever another hand changes, the next Apply puts
// right and tells, and the one after it has nothing to do.
func TestKernelDriftRepaired(t *testing.T) {
	local, local6 := netip.MustParseAddr(lb7Addr), netip.MustParseAddr(lb7Addr6)
	ipip := endpoint{kindIPIP, local, netip.IPv4Unspecified()}.name()
	sit := endpoint{kindSIT, local, netip.IPv4Unspecified()}.name()
	tnl6 := endpoint{kindTNL6, local6, netip.IPv6Unspecified()}.name()
	gre := endpoint{kindGRE, local, netip.IPv4Unspecified()}.name()
	gre6 := endpoint{kindGRE6, local6, netip.IPv6Unspecified()}.name()
	d, want := drifting(t)
	for command, want := range map[string]string{
		"ip route show default": "advmss 1408", "ip -6 route show default": "advmss 1388",
		"ip route show 203.0.113.0/24": "advmss 1408", "ip -6 route show 2001:db8:cafe::/48": "advmss 1388",
	} {
		if got := nstest.Run(t, command); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	// The kernel makes addresses up for a sit device (addrconf.c, add_v4_addrs),
	// unless it is told not to.
	if got := nstest.Run(t, "ip -br -6 address show dev "+sit); strings.Contains(got, "::") {
		t.Errorf("addresses that nobody asked for: %s", got)
	}
	for _, spoil := range []string{
		"ip link delete " + ipip,
		"ip link delete " + sit,
		"ip link delete " + tnl6,
		"ip link delete " + gre,
		"ip link delete " + gre6,
		"ip link set " + ipip + " down",
		"ip link set " + tnl6 + " down",
		"ip link change " + gre + " type gre local 192.0.2.139 remote any key 7",
		"ip link delete " + sit + "; ip link add " + sit + " type dummy",
		"ip link delete " + ipip + "; ip link add " + ipip + " type ipip local 192.0.2.139 remote 192.0.2.7",
		"ip address flush dev " + ipip,
		"ip address add 203.0.113.7/32 dev " + ipip,
		"ip link delete lb-vips",
		"ip link set lb-vips down",
		"ip address delete 198.51.100.1/32 dev lb-vips",
		"ip address delete 2001:db8:1::1/128 dev lb-vips",
		"ip address add 198.51.100.99/32 dev lb-vips",
		"ip route delete local 198.51.100.2 dev lb-vips table local",
		"ip -6 route delete local 2001:db8:1::1 dev lb-vips table local",
		"ip fou del port 6080",
		"ip -6 fou del port 6080",
		"sysctl -q -w net.ipv4.conf.uplink.arp_ignore=0",
		"sysctl -q -w net.ipv4.conf.uplink.arp_announce=0",
		"sysctl -q -w net.ipv4.conf." + ipip + ".rp_filter=1",
		"sysctl -q -w net.ipv4.conf." + ipip + ".forwarding=1",
		"sysctl -q -w net.ipv6.conf." + sit + ".accept_ra=1",
		"ip route change default via 192.0.2.254",
		"ip route change default via 192.0.2.253 advmss 9000",
		"ip -6 route change default via 2001:db8:2::fe",
		"ip route change 203.0.113.0/24 nexthop via 192.0.2.253 weight 2 nexthop via 192.0.2.254",
		"ip -6 route change 2001:db8:cafe::/48 nexthop via 2001:db8:2::fd nexthop via 2001:db8:2::fe",
	} {
		before := state(t)
		for command := range strings.SplitSeq(spoil, ";") {
			nstest.Run(t, command)
		}
		a, err := d.Apply(want)
		if err != nil {
			t.Errorf("after %q: %v", spoil, err)
		}
		if len(a.Changes) == 0 {
			t.Errorf("after %q there was nothing to repair", spoil)
		}
		if a := settle(t, d, want); len(a.Changes) != 0 {
			t.Errorf("after %q, the second time: %q", spoil, a.Changes)
		}
		after := state(t)
		if spoil == "ip route change default via 192.0.2.253 advmss 9000" {
			before = strings.Replace(before, "default via 192.0.2.254", "default via 192.0.2.253", 1)
		}
		if sorted(before) != sorted(after) {
			t.Errorf("after %q:\n%s\nwant:\n%s", spoil, sorted(after), sorted(before))
		}
	}
	// A device and a route that come later.
	nstest.Run(t, "ip link add later type veth peer name later2")
	nstest.Run(t, "ip route add 203.0.113.128/25 via 192.0.2.1")
	if a := settle(t, d, want); len(a.Changes) != 5 {
		t.Errorf("two devices and a route that come later: %q, want five changes", a.Changes)
	}
	nstest.Run(t, "ip link delete later")
	if a := settle(t, d, want); len(a.Changes) != 0 {
		t.Errorf("a device that goes: %q", a.Changes)
	}
}

func sorted(s string) string {
	var keep []string
	for line := range strings.SplitSeq(s, "\n") {
		// Link-local addresses and random Ethernet ones differ each time.
		var fields []string
		for _, f := range strings.Fields(line) {
			if !strings.Contains(f, "fe80:") && strings.Count(f, ":") != 5 {
				fields = append(fields, f)
			}
		}
		slices.Sort(fields) // an address that comes back is the last one
		if len(fields) > 0 && !strings.HasPrefix(line, "fe80") {
			keep = append(keep, strings.Join(fields, " "))
		}
	}
	slices.Sort(keep)
	return strings.Join(keep, "\n")
}

// TestKernelWatch: a device or a route that another hand removes is told at once.
func TestKernelWatch(t *testing.T) {
	d, want := drifting(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	changed, err := d.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []string{"ip link delete lb-vips", "ip address delete 198.51.100.1/32 dev lb-vips", "ip route change default via 192.0.2.254"} {
		// What was told before is over when it is quiet for a while.
		for quiet := false; !quiet; {
			select {
			case <-changed:
			case <-time.After(300 * time.Millisecond):
				quiet = true
			}
		}
		nstest.Run(t, spoil)
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("%q was not told", spoil)
		}
		if a := settle(t, d, want); len(a.Changes) == 0 {
			t.Errorf("after %q there was nothing to repair", spoil)
		}
	}
	cancel()
	for range changed {
	}
}

// TestKernelTeardownLeavesOthers: what somebody else changed in the meantime, and
// what is not ours, stays.
func TestKernelTeardownLeavesOthers(t *testing.T) {
	d, _ := drifting(t)
	nstest.Run(t, "ip link add tunl9 type ipip local 192.0.2.200 remote any")
	nstest.Run(t, "ip fou add port 7777 gue")
	nstest.Run(t, "sysctl -q -w net.ipv4.conf.uplink.arp_ignore=8")
	nstest.Run(t, "ip route change default via 192.0.2.254 advmss 1200")
	var on noted
	content, err := os.ReadFile(d.stateFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &on); err != nil || len(on.Sysctls) == 0 || len(on.GUE) != 2 || len(on.MSS) == 0 {
		t.Fatalf("noted: %+v, %v", on, err)
	}
	// Another process does it, as lb7d -teardown.
	changes, err := reopenDecapsulator(t, d.stateFile).Teardown()
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []struct{ command, want string }{
		{"ip -br link show tunl9", "tunl9"},
		{"ip fou show", "7777"},
		{"sysctl -n net.ipv4.conf.uplink.arp_ignore", "8"},
		{"sysctl -n net.ipv4.conf.uplink.arp_announce", "0"},
		{"ip route show default", "advmss 1200"},
	} {
		if got := nstest.Run(t, left.command); !strings.Contains(got, left.want) {
			t.Errorf("%s: %q, want %q\n%s", left.command, got, left.want, strings.Join(changes, "\n"))
		}
	}
	for _, gone := range []string{"lb-"} {
		if got := nstest.Run(t, "ip -br link"); strings.Contains(got, gone) {
			t.Errorf("still there:\n%s", got)
		}
	}
	if got := nstest.Run(t, "ip -6 route show") + nstest.Run(t, "ip route show 203.0.113.0/24"); strings.Contains(got, "advmss") {
		t.Errorf("advmss is still there:\n%s", got)
	}
}

// TestKernelFaults: each is one clear line, and does not keep the rest from being
// made.
func TestKernelFaults(t *testing.T) {
	t.Run("another device decapsulates the same", func(t *testing.T) {
		d := openDecapsulator(t)
		nstest.Run(t, "ip link add tunlv4 type ipip local 192.0.2.139 remote any")
		a, err := d.Apply(lb7Decapsulation(IPIP))
		oneLine(t, err, "device tunlv4 decapsulates the same: delete it")
		if len(a.Devices) != 1 || !strings.HasPrefix(a.Devices[0], "lb-sit-") {
			t.Errorf("devices %q, want the one for IPv6", a.Devices)
		}
	})
	t.Run("the VIP is on another device", func(t *testing.T) {
		d := openDecapsulator(t)
		nstest.Run(t, "ip address add 198.51.100.1/32 dev uplink")
		_, err := d.Apply(lb7Decapsulation(IPIP))
		oneLine(t, err, "VIP 198.51.100.1 is on device uplink as well")
	})
	t.Run("the port is taken", func(t *testing.T) {
		d := openDecapsulator(t)
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: DefaultGUEPort})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = d.Apply(lb7Decapsulation(GUE))
		oneLine(t, err, "opening GUE port 6080 (IPv4): another program has the UDP port")
	})
	t.Run("the port is for FOU", func(t *testing.T) {
		d := openDecapsulator(t)
		nstest.Run(t, "ip fou add port 6080 ipproto 4")
		_, err := d.Apply(lb7Decapsulation(GUE))
		oneLine(t, err, "the port takes other UDP encapsulation")
	})
	t.Run("no IPv6 on the host", func(t *testing.T) {
		d := openDecapsulator(t)
		nstest.Run(t, "ip -6 address flush dev uplink")
		_, err := d.Apply(lb7Decapsulation(IPIP, IP6IP6))
		oneLine(t, err, "mode ip6ip6: this host and the sources have no address")
	})
	t.Run("not permitted", func(t *testing.T) {
		d := openDecapsulator(t)
		// It may write its notes and sweep its directory, and no more.
		only(t, 65534, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER)
		_, err := d.Apply(lb7Decapsulation(IPIP))
		if err == nil || !strings.Contains(err.Error(), "run as root, or with CAP_NET_ADMIN") {
			t.Errorf("error %v", err)
		}
	})
	for _, tt := range []struct {
		module string
		mode   Mode
	}{{"ipip", IPIP}, {"sit", IPIP}, {"ip6_tunnel", IP6IP6}, {"ip_gre", GRE}, {"ip6_gre", GRE}, {"fou", GUE}} {
		t.Run("no module "+tt.module, func(t *testing.T) {
			d := openDecapsulator(t)
			// Those that use it go first; what the kernel has built in cannot
			// be missing.
			for _, user := range []string{"fou6", "ip6_gre", "ip_gre", tt.module} {
				_ = exec.Command("modprobe", "-r", user).Run()
			}
			loader := strings.TrimSpace(nstest.Run(t, "sysctl -n kernel.modprobe"))
			set(t, "kernel.modprobe", "/bin/false")
			defer set(t, "kernel.modprobe", loader)
			if _, err := os.Stat("/sys/module/" + tt.module); err == nil {
				nstest.Lacking(t, "module %s cannot be unloaded", tt.module)
			}
			// With IPv4 alone, as what else is missing would be told too.
			nstest.Run(t, "ip -6 address flush dev uplink")
			if tt.mode == IP6IP6 || tt.module == "ip6_gre" {
				nstest.Run(t, "ip address flush dev uplink")
				nstest.Run(t, "ip address add 2001:db8:2::8b/64 dev uplink nodad")
			}
			_, err := d.Apply(lb7Decapsulation(tt.mode))
			oneLine(t, err, fmt.Sprintf("modprobe %s\"", tt.module))
		})
	}
}

// oneLine fails the test unless the error has one line, with these words.
func oneLine(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line with %q", err, words)
	}
}
