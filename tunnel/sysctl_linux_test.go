package tunnel

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"lb4d/internal/nstest"
)

const vip, vip6 = "198.51.100.1", "2001:db8:1::1"

// forwarder makes the test's namespace an LB4 with a service in each family,
// which has the given destinations, and connects it to the outside.
func forwarder(t *testing.T, destinations ...string) *outside {
	t.Helper()
	h := openInNamespace(t)
	requireIPVS(t)
	o := connect(t)
	apply(t, h, vip+" "+vip6)
	nstest.Run(t, "ipvsadm -A -t "+service(vip)+" -s mh -b mh-port,mh-fallback")
	nstest.Run(t, "ipvsadm -A -t "+service(vip6)+" -s mh -b mh-port,mh-fallback")
	for _, d := range destinations {
		add(t, d)
	}
	return o
}

// requireIPVS loads IPVS, by asking for its table.
func requireIPVS(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("ipvsadm", "-L", "-n").CombinedOutput(); err != nil {
		nstest.Lacking(t, "this kernel has no IPVS, or the machine no ipvsadm: %v\n%s", err, out)
	}
}

func service(addr string) string {
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return addr + ":80"
}

// add adds an LB7 to the service of its family.
func add(t *testing.T, lb7 string) {
	t.Helper()
	to := vip
	if strings.Contains(lb7, ":") {
		to = vip6
	}
	nstest.Run(t, "ipvsadm -a -t "+service(to)+" -r "+service(lb7)+" -i")
}

// An LB4 need not be a router, and may filter strictly.
func TestForwardingNeedsNoRouter(t *testing.T) {
	o := forwarder(t, "192.0.2.139", "2001:db8:2::8b")
	set(t, "net.ipv4.ip_forward", "0")
	set(t, "net.ipv6.conf.all.forwarding", "0")
	set(t, "net.ipv4.conf.all.rp_filter", "1")
	o.send(t, ip4(userAddr, vip, unix.IPPROTO_TCP, tcp(1000, syn, 0)))
	o.send(t, ip6(userAddr6, vip6, unix.IPPROTO_TCP, tcp(1001, syn, 0)))
	want := []string{"192.0.2.139 gets port 1000", "an LB7 gets port 1001"}
	if diff := cmp.Diff(want, o.arrivals(t, 2)); diff != "" {
		t.Errorf("arrived (-want +got):\n%s", diff)
	}
}

// Each sysctl of the list is tried out with the kernel's default and with its
// value here, all others being as listed.
func TestLB4SysctlsMatter(t *testing.T) {
	tests := map[string]struct {
		unset string
		lb7s  []string
		// play sends packets and returns what arrived. works tells
		// whether something should, hence is worth waiting for.
		play          func(t *testing.T, o *outside, works bool) []string
		with, without []string
	}{
		"net.ipv4.vs.sloppy_tcp": {
			unset: "0", lb7s: []string{"192.0.2.139", "2001:db8:2::8b"},
			play: func(t *testing.T, o *outside, works bool) []string {
				o.send(t, ip4(userAddr, vip, unix.IPPROTO_TCP, tcp(1000, ack, 10)))
				o.send(t, ip6(userAddr6, vip6, unix.IPPROTO_TCP, tcp(1001, ack, 10)))
				return o.arrivals(t, count(works, 2))
			},
			with: []string{"192.0.2.139 gets port 1000", "an LB7 gets port 1001"},
		},
		"net.ipv4.vs.schedule_icmp": {
			unset: "0", lb7s: []string{"192.0.2.139", "192.0.2.140", "192.0.2.141"},
			play: func(t *testing.T, o *outside, works bool) []string {
				// Each error has to go where the flow itself goes,
				// which is only seen afterwards.
				for port := 1000; port < 1020; port++ {
					o.send(t, ip4(routerAddr, vip, unix.IPPROTO_ICMP, fragmentationNeeded(port)))
				}
				errors := o.arrivals(t, count(works, 20))
				// What the errors left in the connection table
				// would lead the flows the same way. It expires.
				nstest.Run(t, "ipvsadm -C")
				nstest.Run(t, "ipvsadm -A -t "+service(vip)+" -s mh -b mh-port,mh-fallback")
				for _, lb7 := range []string{"192.0.2.139", "192.0.2.140", "192.0.2.141"} {
					add(t, lb7)
				}
				awaitNoFlows(t)
				for port := 1000; port < 1020; port++ {
					o.send(t, ip4(userAddr, vip, unix.IPPROTO_TCP, tcp(port, ack, 10)))
				}
				agree := 0
				for _, flow := range o.arrivals(t, 20) {
					if slices.Contains(errors, strings.Replace(flow, "port", "error for port", 1)) {
						agree++
					}
				}
				return []string{fmt.Sprintf("%d errors arrive, %d where the flow does", len(errors), agree)}
			},
			with:    []string{"20 errors arrive, 20 where the flow does"},
			without: []string{"0 errors arrive, 0 where the flow does"},
		},
		"net.ipv4.vs.expire_nodest_conn": {
			unset: "0", lb7s: []string{"192.0.2.139"},
			play: func(t *testing.T, o *outside, works bool) []string {
				o.send(t, ip4(userAddr, vip, unix.IPPROTO_TCP, tcp(1000, syn, 0)))
				o.arrivals(t, 1)
				add(t, "192.0.2.140")
				nstest.Run(t, "ipvsadm -d -t "+service(vip)+" -r 192.0.2.139:80")
				o.send(t, ip4(userAddr, vip, unix.IPPROTO_TCP, tcp(1000, ack, 10)))
				return o.arrivals(t, count(works, 1))
			},
			with: []string{"192.0.2.140 gets port 1000"},
		},
		"net.ipv4.vs.conn_reuse_mode": {
			unset: "1", lb7s: []string{"192.0.2.139"},
			play: func(t *testing.T, o *outside, _ bool) []string {
				for port := 1000; port < 1020; port++ {
					for _, flags := range []byte{syn, ack, fin | ack} {
						o.send(t, ip4(userAddr, vip, unix.IPPROTO_TCP, tcp(port, flags, 0)))
					}
				}
				o.arrivals(t, 60)
				add(t, "192.0.2.140")
				for port := 1000; port < 1020; port++ {
					o.send(t, ip4(userAddr, vip, unix.IPPROTO_TCP, tcp(port, syn, 0)))
				}
				follow := false
				for _, flow := range o.arrivals(t, 20) {
					follow = follow || strings.HasPrefix(flow, "192.0.2.140 ")
				}
				return []string{fmt.Sprintf("new flows follow the table: %v", follow)}
			},
			with:    []string{"new flows follow the table: true"},
			without: []string{"new flows follow the table: false"},
		},
	}
	for _, s := range LB4Sysctls() {
		tt, ok := tests[s.Key]
		if !ok {
			t.Errorf("%s: nothing shows that it is needed", s.Key)
		}
		for _, value := range []string{tt.unset, s.Value} {
			t.Run(s.Key+"="+value, func(t *testing.T) {
				o := forwarder(t, tt.lb7s...)
				if _, err := ApplySysctls(LB4Sysctls()); err != nil {
					t.Fatal(err)
				}
				set(t, s.Key, value)
				want, works := tt.without, value == s.Value
				if works {
					want = tt.with
				}
				if diff := cmp.Diff(want, tt.play(t, o, works)); diff != "" {
					t.Errorf("arrived (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// count is n, or 0 where nothing should come.
func count(works bool, n int) int {
	if works {
		return n
	}
	return 0
}

// awaitNoFlows waits until the connection table is empty.
func awaitNoFlows(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if strings.Count(nstest.Run(t, "ipvsadm -L -n -c"), "\n") == 2 {
			return
		}
	}
	t.Fatalf("flows remain:\n%s", nstest.Run(t, "ipvsadm -L -n -c"))
}

// What the comment of LB4Sysctls says of pmtu_disc.
func TestPathMTU(t *testing.T) {
	o := forwarder(t, "192.0.2.139")
	if _, err := ApplySysctls(LB4Sysctls()); err != nil {
		t.Fatal(err)
	}
	o.send(t, ip4(userAddr, vip, unix.IPPROTO_TCP, tcp(1000, ack, 1460)))
	if got := o.arrivals(t, 0); len(got) != 0 {
		t.Errorf("a packet that is too large arrives: %q", got)
	}
	answer := receive(t, o.icmp4)
	if len(answer) < 28 || answer[20] != 3 || answer[21] != 4 || binary.BigEndian.Uint16(answer[26:]) != 1480 {
		t.Errorf("the user hears %x, want fragmentation needed with 1480", answer)
	}
	set(t, "net.ipv4.vs.pmtu_disc", "0")
	o.send(t, ip4(userAddr, vip, unix.IPPROTO_TCP, tcp(1000, ack, 1460)))
	if diff := cmp.Diff([]string{"192.0.2.139 gets port 1000"}, o.arrivals(t, 1)); diff != "" {
		t.Errorf("arrived (-want +got):\n%s", diff)
	}
}

func TestApplySysctlsToKernel(t *testing.T) {
	forwarder(t)
	changes, err := ApplySysctls(LB4Sysctls())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"net.ipv4.vs.sloppy_tcp = 1 (was 0)", "net.ipv4.vs.schedule_icmp = 1 (was 0)",
		"net.ipv4.vs.expire_nodest_conn = 1 (was 0)", "net.ipv4.vs.conn_reuse_mode = 2 (was 1)",
	}
	if diff := cmp.Diff(want, changed(changes)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	again, err := ApplySysctls(LB4Sysctls())
	if err != nil || len(again) != 0 {
		t.Errorf("the second time: %q, error %v", changed(again), err)
	}
	for _, s := range LB4Sysctls() {
		if got := strings.TrimSpace(nstest.Run(t, "sysctl -n "+s.Key)); got != s.Value {
			t.Errorf("sysctl shows %s = %s, want %s", s.Key, got, s.Value)
		}
	}
}

func TestApplySysctlsErrors(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T)
		wanted  []Sysctl
		want    []string // changes
		wantErr []string
	}{
		{
			name:    "no right but CAP_NET_ADMIN",
			prepare: func(t *testing.T) { only(t, 1234, unix.CAP_NET_ADMIN) },
			wanted:  []Sysctl{{Key: "net.ipv4.vs.sloppy_tcp", Value: "1"}, {Key: "net.ipv4.conf.lo.rp_filter", Value: "2"}},
			want:    []string{"net.ipv4.vs.sloppy_tcp = 1 (was 0)", "net.ipv4.conf.lo.rp_filter = 2 (was 0)"},
		},
		{
			name:    "no capability",
			prepare: func(t *testing.T) { only(t, 1234) },
			wanted:  []Sysctl{{Key: "net.ipv4.vs.sloppy_tcp", Value: "1"}, {Key: "net.ipv4.vs.schedule_icmp", Value: "0"}},
			wantErr: []string{`setting net.ipv4.vs.sloppy_tcp = 1 (was 0): not permitted; run as root, or with CAP_NET_ADMIN, ` +
				`or set it beforehand with "sysctl -w net.ipv4.vs.sloppy_tcp=1": `},
		},
		{
			name: "a container's /proc/sys",
			prepare: func(t *testing.T) {
				if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
					t.Fatal(err)
				}
				nstest.Run(t, "mount --make-rprivate /")
				nstest.Run(t, "mount -o bind /proc/sys /proc/sys")
				nstest.Run(t, "mount -o remount,bind,ro /proc/sys")
			},
			wanted: []Sysctl{{Key: "net.ipv4.vs.sloppy_tcp", Value: "1"}},
			wantErr: []string{`setting net.ipv4.vs.sloppy_tcp = 1 (was 0): /proc/sys is read-only here, as in a container; ` +
				`run "sysctl -w net.ipv4.vs.sloppy_tcp=1" outside: `},
		},
		{
			name:    "a value that the kernel does not like",
			wanted:  []Sysctl{{Key: "net.ipv4.vs.drop_entry", Value: "7"}, {Key: "net.ipv4.vs.sloppy_tcp", Value: "1"}},
			want:    []string{"net.ipv4.vs.sloppy_tcp = 1 (was 0)"},
			wantErr: []string{"setting net.ipv4.vs.drop_entry = 7 (was 0): "},
		},
		{
			name:    "a key that the kernel does not have",
			wanted:  []Sysctl{{Key: "net.ipv4.vs.nonesuch", Value: "1"}, {Key: "net.ipv4.vs.neither", Value: "1", Optional: true}},
			wantErr: []string{"setting net.ipv4.vs.nonesuch to 1: this kernel does not have it; is its module loaded?"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nstest.Enter(t)
			requireIPVS(t)
			if tt.prepare != nil {
				tt.prepare(t)
			}
			changes, err := ApplySysctls(tt.wanted)
			if diff := cmp.Diff(tt.want, changed(changes)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			checkLines(t, err, tt.wantErr)
		})
	}
}
