package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/control"
)

// await asks lb4d for its status until the members of a name, with both their
// addresses, are as wanted.
func (b *bed) await(member, what string, within time.Duration, wanted func(control.Member) bool) {
	b.t.Helper()
	var last []control.Member
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		n := 0
		last = nil
		for _, m := range b.status("LB4-1").Members {
			if m.Name != member {
				continue
			}
			last = append(last, m)
			if wanted(m) {
				n++
			}
		}
		if n == 2 {
			return
		}
	}
	b.t.Fatalf("%s is not %s within %v: %+v", member, what, within, last)
}

func isUp(m control.Member) bool { return m.State == "up" && m.Weight == 1 }

// sh runs shell commands on a host.
func (b *bed) sh(host, format string, args ...any) string {
	b.t.Helper()
	return b.run(host, "sh", "-ec", fmt.Sprintf(format, args...))
}

// is6 is the option of ip(8) for the family of an address, and the length of its
// prefix.
func is6(a netip.Addr) (option string, bits int) {
	if a.Is6() {
		return "-6", 128
	}
	return "-4", 32
}

// TestTunnelCheck: the checks of lb4d fail where a user's packet would be lost,
// and what they need on an LB4 is kept and undone.
func TestTunnelCheck(t *testing.T) {
	b := newBedOf(t, Options{Sizes: Sizes{Routers: 1, Reflectors: 1, LB4: 1, LB7: 2, Servers: 1, Users: 2}})
	const patience = 60 * time.Second
	first, second := "lb7-1", "lb7-2"
	b.await(first, "up", patience, isUp)
	b.await(second, "up", patience, isUp)
	probed := map[netip.Addr]bool{}
	for _, m := range b.status("LB4-1").Members {
		vip, err := netip.ParseAddr(m.CheckedVIP)
		if err != nil || vip.Is6() != strings.Contains(m.Address, ":") {
			t.Errorf("%s (%s) is checked to the VIP %q, want one of its family", m.Name, m.Address, m.CheckedVIP)
		}
		probed[vip] = true
	}
	if len(probed) != 2 {
		t.Fatalf("the VIPs %v are probed, want one of each family", probed)
	}
	// each runs a command on LB7-1 for each of the VIPs.
	each := func(b *bed, format string, only func(netip.Addr) bool) {
		b.t.Helper()
		for _, vip := range b.Topology.VIPs {
			if option, bits := is6(vip); only(vip) {
				b.sh("LB7-1", "ip "+option+" "+format, fmt.Sprintf("%s/%d", vip, bits))
			}
		}
	}
	theProbed := func(vip netip.Addr) bool { return probed[vip] }
	// withoutKeeper ends lb7d on LB7-1, which would put right what a command does
	// to each device whose name begins with one of some words.
	withoutKeeper := func(b *bed, command, devices string) {
		b.t.Helper()
		if err := b.Stop("LB7-1", "lb7d"); err != nil {
			b.t.Fatal(err)
		}
		b.sh("LB7-1", "for word in %s; do for d in $(ls /sys/class/net | grep ^$word); do %s; done; done", devices, command)
	}
	startKeeper := func(b *bed) {
		b.t.Helper()
		if err := b.Start("LB7-1", "lb7d"); err != nil {
			b.t.Fatal(err)
		}
	}

	for _, tt := range []struct {
		name         string
		fail, repair func(b *bed)
		words        string
	}{
		{
			name: "no VIP",
			fail: func(b *bed) { withoutKeeper(b, "ip addr flush dev $d", "lb-") },
			// It puts back what is missing.
			repair: startKeeper,
			words:  "; the member itself answers: has it the tunnel device, the VIP and a route back?",
		},
		{
			name:   "no tunnel device",
			fail:   func(b *bed) { withoutKeeper(b, "ip link set $d down", "lb-ipip lb-tnl6") },
			repair: startKeeper,
			words:  "; the member itself answers: has it the tunnel device, ",
		},
		{
			name:   "no route back",
			fail:   func(b *bed) { each(b, "rule add from %s blackhole", theProbed) },
			repair: func(b *bed) { each(b, "rule del from %s blackhole", theProbed) },
			words:  "; the member itself answers: has it the tunnel device, the VIP and a route back?",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := b.with(t)
			tt.fail(b)
			b.await(first, "down", patience, func(m control.Member) bool {
				return m.State == "down" && m.Weight == 0 && strings.Contains(m.LastAnswer, tt.words)
			})
			b.await(second, "up still", patience, isUp)
			if len(b.missing(must(b.Routes("R1")))) > 0 {
				t.Error("a VIP is withdrawn, although the other member is up")
			}
			tt.repair(b)
			b.await(first, "up again", patience, isUp)
		})
	}

	t.Run("full-size packets get lost", func(t *testing.T) {
		b := b.with(t)
		b.await(first, "with room for full-size packets", patience, func(m control.Member) bool { return m.FullSize == "ok" })
		// The LB7 promises 1500 bytes to users, and nobody says that 1520 do not
		// arrive.
		b.sh("LB7-1", "ip link set eth0 mtu 1500")
		lost := func(m control.Member) bool {
			return m.FullSize == "failed" && strings.Contains(m.Warning, "full-size packets (1500 bytes) get lost in the tunnel")
		}
		b.await(first, "with a warning", patience, func(m control.Member) bool { return isUp(m) && lost(m) })
		b.await(second, "without a warning", patience, func(m control.Member) bool { return isUp(m) && m.Warning == "" })
		if out := b.run("LB4-1", "lbctl", "status"); strings.Count(out, "WARNING lb7-1 (") != 2 || !strings.Contains(out, "1 with a warning") {
			t.Errorf("lbctl status:\n%s", out)
		}
		metrics := b.sh("LB4-1", "curl -s http://127.0.0.1:9404/metrics | grep ^lb4d_member_full_size_packets")
		lacking := regexp.MustCompile(`(?m)member="lb7-1".* 0$`).FindAllString(metrics, -1)
		if strings.Count(metrics, "\n") != 4 || len(lacking) != 2 {
			t.Errorf("metrics:\n%s", metrics)
		}
		b.reload(t, "fall = 3", "fall = 3\nmtu_required = true")
		b.await(first, "down as it is required", patience, func(m control.Member) bool {
			return m.State == "down" && m.Weight == 0 && strings.Contains(m.Reason, "full-size packets")
		})
		b.reload(t, "mtu_required = true\n", "")
		b.await(first, "up as it is not required", patience, isUp)
		b.sh("LB7-1", "ip link set eth0 mtu 1600")
		b.await(first, "without a warning", patience, func(m control.Member) bool { return isUp(m) && m.FullSize == "ok" && m.Warning == "" })
		// One line a change, for each address.
		told := map[string]string{}
		for line := range strings.Lines(string(must(os.ReadFile(filepath.Join(b.dir, "log", "LB4-1", "lb4d.log"))))) {
			_, rest, found := strings.Cut(line, "room for full-size packets\"")
			if !found {
				continue
			}
			_, rest, _ = strings.Cut(rest, "address=")
			address, _, _ := strings.Cut(rest, " ")
			if strings.Contains(line, "no longer lacks") {
				told[address] += "regained "
			} else {
				told[address] += "lost "
			}
		}
		for address, changes := range told {
			if strings.ReplaceAll(changes, "lost regained ", "") != "" {
				t.Errorf("the log tells of %s: %s", address, changes)
			}
		}
		if len(told) != 2 {
			t.Errorf("the log tells of %v, want both addresses of %s", told, first)
		}
	})

	// What lb4d may change for the checks alone, and what users' packets meet.
	checks := func(b *bed) string {
		return b.sh("LB4-1", `ip rule; ip -6 rule; ip route; ip -6 route | grep -v 'dev lb-vips'
			ipvsadm -Sn | grep -e ' -f ' || true
			cd /proc/sys/net; grep -r . ipv4/conf ipv6/conf 2>/dev/null | grep -v -e /lb-vips/ -e stable_secret | sort`)
	}
	forwarding := func(b *bed) string {
		return b.sh("LB4-1", "ipvsadm -Sn; ip addr show dev lb-vips; ip rule; ip route; ip -6 route; cat /proc/sys/net/ipv4/conf/eth0/accept_local")
	}

	t.Run("kill -9 and start", func(t *testing.T) {
		b := b.with(t)
		before := forwarding(b)
		if err := b.Kill("LB4-1", "lb4d", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.until(time.Now(), patience, "withdrawn", not(b.through("LB4-1")))
		if diff := cmp.Diff(before, forwarding(b)); diff != "" {
			t.Errorf("after kill -9 (-before +after):\n%s", diff)
		}
		if err := b.Start("LB4-1", "lb4d"); err != nil {
			t.Fatal(err)
		}
		b.until(time.Now(), patience, "announced", b.all("LB4-1"))
		b.await(first, "up", patience, isUp)
		if diff := cmp.Diff(before, forwarding(b)); diff != "" {
			t.Errorf("after a start (-before +after):\n%s", diff)
		}
		if n := b.status("LB4-1").Counters.KernelWrites; n != 0 {
			t.Errorf("the start wrote to the kernel %d times, want none", n)
		}
	})

	t.Run("what another hand changes", func(t *testing.T) {
		b := b.with(t)
		before := forwarding(b)
		b.sh("LB4-1", "ipvsadm -C; echo 0 > /proc/sys/net/ipv4/conf/eth0/accept_local")
		b.eventually("it is put right", func() bool { return forwarding(b) == before })
	})

	t.Run("the end leaves nothing of the checks", func(t *testing.T) {
		b := b.with(t)
		stop := func() {
			t.Helper()
			if err := b.Stop("LB4-1", "lb4d"); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		// As if there had never been an lb4d, on a host that filters strictly.
		b.sh("LB4-1", "ipvsadm -C; ip link del lb-vips; rm /var/lib/lb/lb4d.json; echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter")
		before := checks(b)
		if err := b.Start("LB4-1", "lb4d"); err != nil {
			t.Fatal(err)
		}
		b.until(time.Now(), patience, "announced", b.all("LB4-1"))
		during := checks(b)
		for _, want := range []string{"eth0/accept_local:1", "eth0/rp_filter:2", "-A -f 1279393792 -s rr", "-A -f 1279393795 -6 -s rr"} {
			if !strings.Contains(during, want) {
				t.Errorf("while lb4d runs there is no %q in\n%s", want, during)
			}
		}
		stop()
		if diff := cmp.Diff(before, checks(b)); diff != "" {
			t.Errorf("before and after (-before +after):\n%s", diff)
		}
		if table := b.run("LB4-1", "ipvsadm", "-Sn"); strings.Count(table, "-A ") != len(b.Topology.VIPs) {
			t.Errorf("the table is\n%s\nwant it left forwarding for %d VIPs", table, len(b.Topology.VIPs))
		}
	})
}

// reload changes the configuration of LB4-1.
func (b *bed) reload(t *testing.T, old, new string) {
	t.Helper()
	path := b.Path("LB4-1", "/etc/lb/lb4d.toml")
	text := must(os.ReadFile(path))
	if !strings.Contains(string(text), old) {
		t.Fatalf("the configuration has no %q", old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.Kill("LB4-1", "lb4d", syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}
