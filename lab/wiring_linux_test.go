package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lb4d/lab/load"
)

func TestMain(m *testing.M) {
	Init()
	os.Exit(m.Run())
}

// needMachine skips a test where it does not run as root in a machine with
// IPVS, unless that is a fault of how the tests were started.
func needMachine(t *testing.T, programs ...string) {
	t.Helper()
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("not root"))
	}
	if os.Getpid() == 1 || os.Getenv("LAB_KERNEL_STREAMS") == "" {
		errs = append(errs, errors.New("not in a machine: go test -exec 'bin/lab test-exec'"))
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			errs = append(errs, err)
		}
	}
	switch err := errors.Join(errs...); {
	case err == nil:
	case os.Getenv("LAB_REQUIRED") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// progress writes a lab's progress to the test's log.
type progress struct{ t *testing.T }

func (p progress) Write(b []byte) (int, error) {
	p.t.Log(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// TestDataPath proves the lab without lb4d: a table made by hand on each LB4
// host and static routes on the routers carry requests of both families
// through all tiers and straight back.
func TestDataPath(t *testing.T) {
	needMachine(t, "ipvsadm", "haproxy", "bird", "gobgpd")
	ctx := t.Context()
	bin, err := filepath.Abs(filepath.Join("..", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Up(ctx, Options{NoDaemon: true, Bin: bin, Progress: progress{t}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	run := func(host, script string) string {
		t.Helper()
		out, err := l.Exec(ctx, host, "sh", "-ec", script)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	top := l.Topology
	for _, h := range top.ByRole(RoleLB7) {
		// The load below begins at once.
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			st, err := l.lb7d(h).LB7Status(ctx)
			if err == nil && st.Tunnel != nil && !st.Tunnel.Applied.IsZero() {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("lb7d of %s has no tunnels after 30s: %+v, %v", h.Name, st, err)
			}
		}
	}
	vips := []string{"198.51.100.1", "2001:db8::c633:6401"}
	var hops4, hops6 strings.Builder
	for _, h := range top.ByRole(RoleLB4) {
		fmt.Fprintf(&hops4, " nexthop via %v", h.Address)
		fmt.Fprintf(&hops6, " nexthop via %v", h.Address6)
		var b strings.Builder
		fmt.Fprintln(&b, "ip addr add 198.51.100.1/32 dev lo; ip addr add 2001:db8::c633:6401/128 dev lo")
		fmt.Fprintln(&b, "{ echo -A -t 198.51.100.1:80 -s mh -b mh-port,mh-fallback; echo -A -t '[2001:db8::c633:6401]:80' -s mh -b mh-port,mh-fallback")
		for _, m := range top.ByRole(RoleLB7) {
			fmt.Fprintf(&b, "echo -a -t 198.51.100.1:80 -r %v:80 -i -w 1; echo -a -t '[2001:db8::c633:6401]:80' -r '[%v]:80' -i -w 1\n", m.Address, m.Address6)
		}
		fmt.Fprintln(&b, "} | ipvsadm -R")
		run(h.Name, b.String())
		table, err := l.IPVS(h.Name)
		if err != nil {
			t.Fatal(err)
		}
		if want := 2 * top.Sizes.LB7; len(table) != want {
			t.Fatalf("%s: %d destinations read, want %d:\n%v", h.Name, len(table), want, table)
		}
	}
	for _, h := range top.ByRole(RoleRouter) {
		run(h.Name, "ip route add 198.51.100.1 proto bird"+hops4.String()+"; ip route add 2001:db8::c633:6401 proto bird"+hops6.String())
		routes, err := l.Routes(h.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vips {
			if got := strings.Count(routes.String(), v+" via"); got != 1 {
				t.Errorf("%s: routes read:\n%v", h.Name, routes)
			}
		}
	}
	targets, err := l.Targets(netip.MustParseAddr(vips[0]), netip.MustParseAddr(vips[1]))
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		traffic, err := l.StartLoad(ctx, load.Options{
			Targets:  []netip.AddrPort{target},
			Kinds:    []load.Kind{load.Quick(20)},
			Duration: 2 * time.Second,
			Linger:   5 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		<-traffic.Done()
		r, err := traffic.Stop()
		if err != nil {
			t.Fatal(err)
		}
		quick := r.Kind("quick")
		// So many flows do not all meet one host by chance.
		if r.Broken() > 0 || quick.Outcomes[load.Completed] < 20 || len(quick.LB7) < 2 || len(quick.Servers) != top.Sizes.Servers {
			t.Errorf("%v: %v, answered by %v and %v; faults %+v", target, quick.Outcomes, quick.LB7, quick.Servers, r.Faults)
		}
	}
	for _, h := range top.ByRole(RoleLB7) {
		t.Logf("%s: packets from the tunnels: %s", h.Name,
			strings.Fields(run(h.Name, "cat /sys/class/net/lb-ipip-*/statistics/rx_packets /sys/class/net/lb-tnl6-*/statistics/rx_packets")))
	}
	if _, err := l.Targets(netip.MustParseAddr("198.51.100.99")); err == nil {
		t.Error("an address that is none of the lab's is a target")
	}
}
