package lab

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/control"
	"lb4d/lab/load"
)

// lb7Status asks lb7d of a host, and fails the test where it does not answer.
func (b *bed) lb7Status(host string) *control.LB7Status {
	b.t.Helper()
	st, err := b.lb7d(must(b.Host(host))).LB7Status(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

// showLB7Logs tells what lb7d of each host has logged, where the test fails.
func (b *bed) showLB7Logs() {
	b.t.Cleanup(func() {
		if !b.t.Failed() {
			return
		}
		for _, h := range b.Topology.ByRole(RoleLB7) {
			log, _ := os.ReadFile(filepath.Join(b.dir, "log", h.Name, "lb7d.log"))
			b.t.Logf("log of lb7d on %s:\n%s", h.Name, log)
		}
	})
}

// awaitWeight waits until a host has a weight in every LB4's IPVS.
func (b *bed) awaitWeight(host string, weight int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 60*time.Second)
	defer cancel()
	if _, err := b.weights(must(b.Host(host)), func(w int) bool { return w == weight })(ctx); err != nil {
		b.t.Fatal(err)
	}
}

// TestLB7Host: an LB7 host is drained and comes back without a broken flow; what
// its lb7d has made is put right when it goes, stays when lb7d ends, and goes when
// it is told to.
func TestLB7Host(t *testing.T) {
	b := newBedOf(t, Options{Sizes: Sizes{Routers: 1, Reflectors: 1, LB4: 1, LB7: 2, Servers: 1, Users: 20}})
	b.showLB7Logs()
	b.awaitWeight("LB7-1", 1)
	b.awaitWeight("LB7-2", 1)

	t.Run("drain and undrain", func(t *testing.T) {
		b := b.with(t)
		const flows = 20
		traffic, err := b.StartLoad(t.Context(), load.Options{
			Kinds:        []load.Kind{load.Slow(flows, 5*time.Second), load.Quick(5)},
			StallTimeout: stallAfter,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		if err := traffic.Wait(ctx, func(r load.Result) bool { return r.Kind("slow").InFlight == flows }); err != nil {
			t.Fatal(err)
		}
		out := b.run("LB7-1", "lbctl", "drain", "--reason", "new disk", "--timeout", "60s")
		if !strings.Contains(out, "LB7-1 is drained") || !strings.Contains(out, "new disk") || !strings.Contains(out, "0 sessions left") {
			t.Errorf("lbctl drain said %q", out)
		}
		b.awaitWeight("LB7-1", 0)
		if got := b.sh("LB7-1", "cat /etc/lb/agent-check"); got != "drain # new disk\n" {
			t.Errorf("the agent check's file is %q", got)
		}
		// HAProxy's own words, from the agent check's port.
		if got := b.run("LB7-1", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5555; cat <&3"); !strings.Contains(got, "drain") {
			t.Errorf("the agent check answers %q", got)
		}
		if got := b.sh("LB7-1", "curl -s -o /dev/null -w '%%{http_code}' http://%s/healthcheck", must(b.Host("LB7-1")).Address); got != "503" {
			t.Errorf("the health check is answered with %s, want 503", got)
		}
		b.run("LB7-1", "lbctl", "undrain")
		b.awaitWeight("LB7-1", 1)
		before := traffic.Snapshot().Kind("quick").LB7["LB7-1"]
		if err := traffic.Wait(ctx, func(r load.Result) bool { return r.Kind("quick").LB7["LB7-1"] > before }); err != nil {
			t.Errorf("no request went to LB7-1 after the drain: %v", err)
		}
		r, err := traffic.Stop()
		if err != nil {
			t.Fatal(err)
		}
		if r.Broken() > 0 || r.Kind("slow").Outcomes[load.Completed] < flows {
			t.Errorf("%d broken, and %v downloads; faults %+v", r.Broken(), r.Kind("slow").Outcomes, r.Faults)
		}
	})

	// made is what lb7d makes, without the numbers of devices and the addresses
	// that the kernel makes of them.
	made := func(b *bed) string {
		return b.sh("LB7-1", `for d in $(ls /sys/class/net | grep ^lb-); do
				echo $d $(cat /sys/class/net/$d/flags) $(ip -o addr show dev $d | awk '{print $4}' | grep -v ^fe80 | sort)
			done
			ip route; ip -6 route | grep -v 'dev lb-'
			cd /proc/sys/net/ipv4/conf; grep -s . eth0/arp_ignore eth0/arp_announce lb-*/rp_filter lb-*/forwarding || true`)
	}
	t.Run("what another hand changes", func(t *testing.T) {
		b := b.with(t)
		before := made(b)
		repaired := b.lb7Status("LB7-1").Tunnel.Repaired
		for _, spoil := range []string{
			"ip link del $(ls /sys/class/net | grep ^lb-ipip)",
			"ip addr del 198.51.100.2/32 dev lb-vips",
			"ip link del lb-vips",
			"echo 0 > /proc/sys/net/ipv4/conf/eth0/arp_ignore",
			"echo 1 > /proc/sys/net/ipv4/conf/$(ls /sys/class/net | grep ^lb-ipip)/forwarding",
			// Without its advmss.
			"ip route change $(ip route show 192.0.2.128/25 | sed 's/advmss [0-9]*//')",
		} {
			b.sh("LB7-1", "%s", spoil)
			begin := time.Now()
			b.eventually("after "+spoil+" it is put right", func() bool { return made(b) == before })
			// 2 s, and what a machine that carries all hosts may add.
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("after %s it took %v", spoil, took)
			}
		}
		st := b.lb7Status("LB7-1")
		if st.Tunnel.Error != "" || st.Tunnel.Repaired < repaired+6 || len(st.Tunnel.Devices) != 4 || st.Tunnel.MSS4 != 1460 || st.Tunnel.MSS6 != 1440 {
			t.Errorf("status: %+v", st.Tunnel)
		}
	})

	t.Run("end, start and teardown", func(t *testing.T) {
		b := b.with(t)
		before := made(b)
		refused, err := b.Exec(t.Context(), "LB7-1", "lb7d", "-teardown", "-config", "/etc/lb/lb7d.toml")
		if err == nil || !strings.Contains(err.Error()+string(refused), "stop it first") {
			t.Errorf("a teardown while lb7d runs: %q, %v", refused, err)
		}
		if err := b.Stop("LB7-1", "lb7d"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, made(b)); diff != "" {
			t.Errorf("after the end of lb7d (-before +after):\n%s", diff)
		}
		out := b.run("LB7-1", "lb7d", "-teardown", "-config", "/etc/lb/lb7d.toml")
		if !strings.Contains(out, "remove device lb-vips") || !strings.Contains(out, "net.ipv4.conf.eth0.arp_ignore = 0") {
			t.Errorf("the teardown said %q", out)
		}
		if left := made(b); strings.Contains(left, "lb-") || strings.Contains(left, "advmss") || !strings.Contains(left, "eth0/arp_ignore:0") {
			t.Errorf("after the teardown there is\n%s", left)
		}
		if out := b.run("LB7-1", "lb7d", "-teardown", "-config", "/etc/lb/lb7d.toml"); out != "nothing to remove\n" {
			t.Errorf("the second teardown said %q", out)
		}
		if err := b.Start("LB7-1", "lb7d"); err != nil {
			t.Fatal(err)
		}
		b.eventually("all is made again", func() bool { return made(b) == before })
		b.awaitWeight("LB7-1", 1)
	})
}

// TestEncapsulations: in every encapsulation, and for IPv6 VIPs over IPv4, checks
// and downloads of both families go through.
func TestEncapsulations(t *testing.T) {
	for _, pool := range []Pool{
		{Encapsulation: GUE},
		{Encapsulation: GRE},
		{Encapsulation: IPIP, Underlay4: true},
	} {
		name := string(pool.Encapsulation)
		if pool.Underlay4 {
			name += " over IPv4"
		}
		t.Run(name, func(t *testing.T) {
			b := newBedOf(t, Options{Sizes: Sizes{Routers: 1, Reflectors: 1, LB4: 1, LB7: 2, Servers: 1, Users: 4}, Pool: pool})
			b.showLB7Logs()
			up := 0
			b.eventually("both members are up", func() bool {
				up = 0
				for _, m := range b.status("LB4-1").Members {
					if isUp(m) && m.CheckedVIP != "" {
						up++
					}
				}
				return up >= 2 && up == len(b.status("LB4-1").Members)
			})
			if want := map[bool]int{false: 4, true: 2}[pool.Underlay4]; up < want {
				t.Errorf("%d addresses of members are up, want %d", up, want)
			}
			for _, vip := range []string{"198.51.100.1", "2001:db8::c633:6401"} {
				targets, err := b.Targets(netip.MustParseAddr(vip))
				if err != nil {
					t.Fatal(err)
				}
				traffic, err := b.StartLoad(t.Context(), load.Options{
					Targets: targets, Kinds: []load.Kind{load.Quick(10)}, Duration: 2 * time.Second, Linger: 5 * time.Second,
				})
				if err != nil {
					t.Fatal(err)
				}
				<-traffic.Done()
				r, err := traffic.Stop()
				if err != nil {
					t.Fatal(err)
				}
				if quick := r.Kind("quick"); r.Broken() > 0 || quick.Outcomes[load.Completed] < 10 || len(quick.LB7) != 2 {
					t.Errorf("%s: %v, answered by %v; faults %+v", vip, quick.Outcomes, quick.LB7, r.Faults)
				}
			}
			if st := b.lb7Status("LB7-1"); st.Tunnel.Error != "" || !cmp.Equal(st.Tunnel.Modes, []string{string(pool.Encapsulation)}) {
				t.Errorf("lb7d: %+v", st.Tunnel)
			}
		})
	}
}
