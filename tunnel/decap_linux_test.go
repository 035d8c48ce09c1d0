package tunnel

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"lb4d/internal/nstest"
)

// The addresses of an LB7 in a namespace of its own, and its VIPs.
const (
	lb7Addr, lb7Addr6 = "192.0.2.139", "2001:db8:2::8b"
	lb7VIPs           = "198.51.100.1 198.51.100.2 2001:db8:1::1"
)

// openDecapsulator is an LB7 in a namespace of its own, with a device "uplink"
// that has its addresses.
func openDecapsulator(t *testing.T) *Decapsulator {
	t.Helper()
	for _, module := range []string{"ipv6", "dummy", "veth", "ipip", "sit", "ip6_tunnel", "ip_gre", "ip6_gre", "fou"} {
		_ = exec.Command("modprobe", "-q", module).Run() // what is built in is no module
	}
	nstest.Enter(t)
	// Link-local addresses are what they will be at once.
	set(t, "net.ipv6.conf.default.accept_dad", "0")
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "world"}); err != nil {
		nstest.Lacking(t, "making a pair of devices: %v", err)
	}
	probe := &netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: "probe"}, Remote: netip.MustParseAddr("192.0.2.9").AsSlice()}
	if err := netlink.LinkAdd(probe); err != nil {
		nstest.Lacking(t, "this kernel has no tunnels: %v", err)
	}
	if err := netlink.LinkDel(probe); err != nil {
		t.Fatal(err)
	}
	h, err := netlink.NewHandle()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	wire(t, h, "uplink", lb7Addr+"/24", lb7Addr6+"/64")
	wire(t, h, "world")
	return reopenDecapsulator(t, filepath.Join(t.TempDir(), "tunnels.json"))
}

func reopenDecapsulator(t *testing.T, stateFile string) *Decapsulator {
	t.Helper()
	d, err := OpenDecapsulator(stateFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func lb7Decapsulation(modes ...Mode) Decapsulation {
	return Decapsulation{VIPs: addrs(lb7VIPs), Modes: modes}
}

// settle applies and fails the test on any error.
func settle(t *testing.T, d *Decapsulator, want Decapsulation) Applied {
	t.Helper()
	a, err := d.Apply(want)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// namespace is all that a test could find changed in the namespace, as the tools
// print it: devices, addresses, routes, GUE ports and sysctls.
func namespace(t *testing.T) string {
	t.Helper()
	var s []string
	for _, command := range []string{"ip -d -o link", "ip -o address", "ip rule", "ip route show table all", "ip fou show", "ip -6 fou show"} {
		out, err := exec.Command(strings.Fields(command)[0], strings.Fields(command)[1:]...).CombinedOutput()
		if err != nil && !strings.Contains(command, "fou") {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		s = append(s, command, string(out))
	}
	for _, pattern := range []string{"/proc/sys/net/ipv4/conf/*/*", "/proc/sys/net/ipv6/conf/*/*"} {
		keys, _ := filepath.Glob(pattern)
		for _, k := range keys {
			if b, err := os.ReadFile(k); err == nil && !strings.Contains(k, "stable_secret") {
				s = append(s, k+" "+strings.TrimSpace(string(b)))
			}
		}
	}
	// A counter, and what is left of lifetimes, change by themselves.
	text := strings.Join(s, "\n")
	return text
}

// TestKernelDecapsulationTwice: the second time there is nothing to do, for each
// mode and for all; what is no longer wanted goes; and a teardown leaves the
// namespace as it was.
func TestKernelDecapsulationTwice(t *testing.T) {
	d := openDecapsulator(t)
	// What the first use of a module brings is not ours to remove.
	before := namespace(t)
	for _, modes := range [][]Mode{{IPIP}, {IP6IP6}, {GUE}, {GRE}, Modes()} {
		a := settle(t, d, lb7Decapsulation(modes...))
		if len(a.Changes) == 0 || len(a.Devices) == 0 {
			t.Errorf("%v: changes %v, devices %v", modes, a.Changes, a.Devices)
		}
		t.Logf("%v: MSS %d and %d, devices %v\n%s", modes, a.MSS4, a.MSS6, a.Devices, strings.Join(a.Changes, "\n"))
		again := reopenDecapsulator(t, d.stateFile)
		if a := settle(t, again, lb7Decapsulation(modes...)); len(a.Changes) != 0 {
			t.Errorf("%v, applied by another process: %v, want no change", modes, a.Changes)
		}
		d = again
	}
	changes, err := d.Teardown()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("teardown:\n%s", strings.Join(changes, "\n"))
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(namespace(t), "\n")); diff != "" {
		t.Errorf("the namespace before and after (-before +after):\n%s", diff)
	}
	if _, err := os.Stat(d.stateFile); !os.IsNotExist(err) {
		t.Errorf("the state file is still there: %v", err)
	}
	if changes, err := d.Teardown(); err != nil || len(changes) != 0 {
		t.Errorf("the second teardown: %v, %v", changes, err)
	}
}
