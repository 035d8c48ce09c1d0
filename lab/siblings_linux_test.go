package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lb4d/control"
)

// reconfigure changes the configuration of lb4d on a host and has it reload.
func (b *bed) reconfigure(host string, change func(string) string) (undo func()) {
	b.t.Helper()
	path := b.Path(host, "/etc/lb/lb4d.toml")
	was, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	write := func(text string) {
		b.t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.t.Fatal(err)
		}
		if err := b.Kill(host, "lb4d", syscall.SIGHUP); err != nil {
			b.t.Fatal(err)
		}
	}
	now := change(string(was))
	if now == string(was) {
		b.t.Fatal("nothing of the configuration is changed")
	}
	write(now)
	return func() { write(string(was)) }
}

// vips waits until every VIP of a host is as wanted.
func (b *bed) vips(host, what string, within time.Duration, wanted func(control.VIP) bool) {
	b.t.Helper()
	var last []control.VIP
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		last = b.status(host).VIPs
		if len(last) > 0 && !slices.ContainsFunc(last, func(v control.VIP) bool { return !wanted(v) }) {
			return
		}
	}
	b.t.Fatalf("the VIPs of %s: not %s within %v: %+v", host, what, within, last)
}

// logged counts the lines of a host's lb4d with a text in them.
func (b *bed) logged(host, text string) int {
	b.t.Helper()
	log, err := os.ReadFile(filepath.Join(b.dir, "log", host, "lb4d.log"))
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.Count(string(log), text)
}

// siblings tells whether a VIP has so many siblings that stand as told.
func siblings(n int, tables string) func(control.VIP) bool {
	return func(v control.VIP) bool {
		if v.SiblingsKnown != "all" || len(v.Siblings) != n {
			return false
		}
		return !slices.ContainsFunc(v.Siblings, func(s control.Sibling) bool {
			return tables != "" && s.Tables != tables || s.State != "announced" || s.RouterID == ""
		})
	}
}

// TestSiblings: three hosts learn of each other from the reflectors of each
// kind, notice that one of them has other tables, and tell members that fail for
// one of them from members that fail for all.
func TestSiblings(t *testing.T) {
	for _, reflector := range []Reflector{BIRD, GoBGP} {
		t.Run(fmt.Sprint(reflector), func(t *testing.T) {
			b := newBedOf(t, Options{Reflector: reflector, Sizes: Sizes{Routers: 1, Reflectors: 2, LB4: 3, LB7: 2, Servers: 1, Users: 2}})
			const patience = 60 * time.Second
			hosts := []string{"LB4-1", "LB4-2", "LB4-3"}
			for _, h := range hosts {
				b.reconfigure(h, func(s string) string {
					return strings.Replace(s, "[bgp]\n", "[bgp]\nsiblings_settle = \"3s\"\n", 1)
				})
			}
			for _, h := range hosts {
				b.vips(h, "with two siblings that agree", patience, siblings(2, "agree"))
			}

			heavier := func(s string) string {
				return strings.Replace(s, "[pool.lb7.member.lb7-1]\n", "[pool.lb7.member.lb7-1]\nweight = 2\n", 1)
			}
			undo := b.reconfigure("LB4-3", heavier)
			differ := func(v control.VIP) bool { return v.TablesDiffer }
			b.vips("LB4-1", "differing", patience, differ)
			b.vips("LB4-3", "differing, with two siblings that do", patience, func(v control.VIP) bool { return differ(v) && siblings(2, "differ")(v) })
			vips := len(b.Topology.VIPs)
			if n := strings.Count(b.sh("LB4-1", "curl -s http://127.0.0.1:9404/metrics"), "\nlb4d_vip_tables_differ"); n != vips {
				t.Errorf("%d metrics of tables that differ, want %d", n, vips)
			}
			if n := strings.Count(b.sh("LB4-1", "curl -s http://127.0.0.1:9404/metrics | grep tables_differ.*1$ || true"), "\n"); n != vips {
				t.Errorf("%d metrics say that tables differ, want %d", n, vips)
			}
			router, _ := b.addrs("LB4-3")
			// One line for all that is noticed at the same moment; the UPDATEs of
			// the other host may arrive in two.
			if n := b.logged("LB4-1", "tables differ from those of other hosts"); n < 1 || n > 2 || b.logged("LB4-1", "hosts="+router.String()) != n {
				t.Errorf("%d lines of LB4-1 tell that tables differ, want one or two that name %s", n, router)
			}
			undo()
			for _, h := range hosts {
				b.vips(h, "with siblings that agree again", patience, func(v control.VIP) bool { return !v.TablesDiffer && siblings(2, "agree")(v) })
			}
			if n := b.logged("LB4-1", "tables agree with those of other hosts again"); n < 1 || n > 2 {
				t.Errorf("%d lines tell that tables agree again, want one or two", n)
			}

			b.run("LB4-2", "touch", "/etc/lb/disable")
			b.vips("LB4-1", "with one sibling", patience, siblings(1, "agree"))
			b.vips("LB4-2", "with two siblings still", patience, siblings(2, ""))
			b.run("LB4-2", "rm", "/etc/lb/disable")
			b.vips("LB4-1", "with two siblings again", patience, siblings(2, "agree"))

			undo = b.reconfigure("LB4-1", func(s string) string { return strings.Replace(s, "/healthcheck", "/nowhere", 1) })
			b.vips("LB4-1", "failing here", patience, func(v control.VIP) bool {
				return v.Failing == "here" && !v.Announced && strings.HasSuffix(v.Reason, "; other hosts still announce it")
			})
			undo()
			b.vips("LB4-1", "back", patience, func(v control.VIP) bool { return v.Announced && v.Failing == "" })
			for _, h := range b.Topology.ByRole(RoleLB7) {
				if err := b.Kill(h.Name, "haproxy", syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			for _, h := range hosts {
				b.vips(h, "failing everywhere", patience, func(v control.VIP) bool {
					return v.Failing == "everywhere" && strings.HasSuffix(v.Reason, "; no other host announces it")
				})
			}
		})
	}
}
