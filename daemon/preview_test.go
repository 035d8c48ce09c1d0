package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"lb4d/control"
	"lb4d/health"
)

// planned asks for a plan and tells it in lines.
func planned(t *testing.T, d *Daemon, text string) string {
	t.Helper()
	a, err := d.Plan(t.Context(), control.PlanRequest{Name: "new.toml", Config: text})
	if err != nil {
		return "refused: " + err.Error()
	}
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, f := range slices.Concat(a.Faults, a.Restart) {
		say("refused: %s", f)
	}
	if a.Refused != (len(a.Faults)+len(a.Restart) > 0) {
		t.Errorf("refused is %t with %q and %q", a.Refused, a.Faults, a.Restart)
	}
	for _, s := range a.Settings {
		say("%s", s)
	}
	for _, list := range []struct {
		what    string
		changes []control.Change
	}{{"check of", a.Checks}, {"vip", a.VIPs}} {
		for _, c := range list.changes {
			say("%s", strings.TrimSuffix(fmt.Sprintf("%s %s %s: %s", list.what, c.What, c.Change, c.Reason), ": "))
		}
	}
	for _, op := range a.Operations {
		say("%s", op)
	}
	if a.MoreOperations > 0 {
		say("%d more", a.MoreOperations)
	}
	for _, c := range a.Peers {
		say("%s", strings.TrimSuffix(fmt.Sprintf("peer %s %s: %s", c.What, c.Change, c.Reason), ": "))
	}
	for _, s := range a.Services {
		share := ""
		if s.Error != "" {
			share = ", unknown: " + s.Error
		}
		if s.Moved != nil {
			share = fmt.Sprintf(", %.0f%% of its flows move", 100**s.Moved)
		}
		say("%s %s%s", s.Service, s.Change, share)
	}
	return strings.Join(lines, "\n")
}

// TestPlan: what a reload would do, of one change at a time.
func TestPlan(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"nothing", "", "", "198.51.100.1:80/tcp none, 0% of its flows move"},
		{"a member more", `member.lb7-2.address`, "member.lb7-3.address = \"192.0.2.141\"\nmember.lb7-2.address", `
check of lb7-3 (192.0.2.141) of pool lb7 added
add destination 198.51.100.1:80/tcp -> 192.0.2.141:80 weight 1 ipip
move destination 198.51.100.1:80/tcp -> 192.0.2.140:80 to the head, weight 1 ipip
move destination 198.51.100.1:80/tcp -> 192.0.2.139:80 to the head, weight 1 ipip
198.51.100.1:80/tcp changed, 33% of its flows move`},
		{"a member less", `member.lb7-2.address = "192.0.2.140"`, "", `
check of lb7-2 (192.0.2.140) of pool lb7 removed
delete destination 198.51.100.1:80/tcp -> 192.0.2.140:80
198.51.100.1:80/tcp changed, 50% of its flows move`},
		{"a VIP more", `["198.51.100.1"]`, `["198.51.100.1", "198.51.100.2"]`, `
vip 198.51.100.2 announced: www forwards to 2 of 2 members
add service 198.51.100.2:80/tcp scheduler none flags mh-fallback,mh-port
add destination 198.51.100.2:80/tcp -> 192.0.2.140:80 weight 1 ipip
add destination 198.51.100.2:80/tcp -> 192.0.2.139:80 weight 1 ipip
edit service 198.51.100.2:80/tcp scheduler mh flags mh-fallback,mh-port (was scheduler none flags mh-fallback,mh-port)
198.51.100.1:80/tcp none, 0% of its flows move
198.51.100.2:80/tcp added`},
		{"another VIP", `["198.51.100.1"]`, `["198.51.100.2"]`, `
vip 198.51.100.1 withdrawn: no longer in the configuration
vip 198.51.100.2 announced: www forwards to 2 of 2 members
add service 198.51.100.2:80/tcp scheduler none flags mh-fallback,mh-port
add destination 198.51.100.2:80/tcp -> 192.0.2.140:80 weight 1 ipip
add destination 198.51.100.2:80/tcp -> 192.0.2.139:80 weight 1 ipip
edit service 198.51.100.2:80/tcp scheduler mh flags mh-fallback,mh-port (was scheduler none flags mh-fallback,mh-port)
delete service 198.51.100.1:80/tcp
198.51.100.2:80/tcp added
198.51.100.1:80/tcp removed`},
		{"a quorum out of reach", `pool = "lb7"`, "pool = \"lb7\"\nquorum = 3", "refused: new.toml:"},
		{"an attribute", `pool = "lb7"`, "pool = \"lb7\"\n[service.www.bgp]\nmed = 50", `
vip 198.51.100.1 changed: attributes med 50, were none
198.51.100.1:80/tcp none, 0% of its flows move`},
		{"another peer", `address = "192.0.2.254"`, `address = "192.0.2.253"`, `
peer rr1 (192.0.2.253) added
peer rr1 (192.0.2.254) removed
198.51.100.1:80/tcp none, 0% of its flows move`},
		{"another AS of a peer", `address = "192.0.2.254"`, "address = \"192.0.2.254\"\nas = 65001", `
peer rr1 (192.0.2.254) changed: as 65001, was 65000; the session ends and begins anew
198.51.100.1:80/tcp none, 0% of its flows move`},
		{"another check", `http = "/healthcheck"`, `http = "/"`, `
check of lb7-1 (192.0.2.139) of pool lb7 changed
check of lb7-2 (192.0.2.140) of pool lb7 changed
198.51.100.1:80/tcp none, 0% of its flows move`},
		{"another scheduler", `pool = "lb7"`, "pool = \"lb7\"\nscheduler = \"wrr\"", `
edit service 198.51.100.1:80/tcp scheduler wrr (was scheduler mh flags mh-fallback,mh-port)
198.51.100.1:80/tcp changed, unknown: computing the Maglev table of 198.51.100.1:80/tcp: its scheduler is wrr`},
		{"a setting", `drain_time = "0s"`, `drain_time = "5s"`, `
bgp.drain_time changes from 0s to 5s
198.51.100.1:80/tcp none, 0% of its flows move`},
		{"what siblings may take", `drain_time = "0s"`, "drain_time = \"0s\"\nsiblings_settle = \"1m\"", `
bgp.siblings_settle changes from 30s to 1m0s
198.51.100.1:80/tcp none, 0% of its flows move`},
		{"the AS", `as = 65000`, `as = 65001`, "refused: bgp.as: cannot change from 65000 to 65001 in a running daemon; restart lb4d\npeer rr1"},
		{"two faults", `pool = "lb7"`, "pool = \"lb8\"\nflags = [\"mh-prot\"]", "refused: new.toml:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, d := announcing(t, named)
				text := strings.Replace(named, tt.old, tt.new, 1)
				got := planned(t, d, text)
				t.Logf("\n%s", got)
				if strings.HasPrefix(tt.want, "refused: ") {
					if !strings.HasPrefix(got, tt.want) {
						t.Errorf("got\n%s\nwant\n%s", got, tt.want)
					}
				} else {
					expect(t, "plan", got, tt.want)
				}
				expect(t, "done", w.since(), "")
				expect(t, "logged", w.log.String(), "")
			})
		})
	}
}

// TestPlanComesTrue: the operations told are those that the reload issues.
func TestPlanComesTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := announcing(t, named)
		text := strings.Replace(named, `member.lb7-2.address`, "member.lb7-0.address = \"192.0.2.138\"\nmember.lb7-2.address", 1)
		a, err := d.Plan(t.Context(), control.PlanRequest{Config: text})
		if err != nil {
			t.Fatal(err)
		}
		d.cfg = parse(t, text)
		w.are(d.cfg, health.Up)
		d.pass()
		expect(t, "done", w.since(), strings.Join(a.Operations, "\n"))
	})
}

// TestQuestionsBesideTheLoop: questions are answered while the loop works, and
// nobody trips over the other.
func TestQuestionsBesideTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, d := announcing(t, named)
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for range 10 {
					if _, err := d.Plan(t.Context(), control.PlanRequest{Config: named}); err != nil {
						t.Error(err)
					}
					if _, err := d.Explain(t.Context(), control.ExplainRequest{Client: "203.0.113.7:40000", Service: "198.51.100.1:80"}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 10 {
			drain(t, d, "lb7-1", "new disk")
			undrain(t, d, "lb7-1")
		}
		asking.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Plan(ctx, control.PlanRequest{Config: named}); !errors.Is(err, context.Canceled) {
			t.Errorf("for one who has left: got %v, want that nothing is computed", err)
		}
	})
}

// TestPlanBounds: a large change is told in part, and a large text not at all.
func TestPlanBounds(t *testing.T) {
	_, d := announcing(t, named)
	var vips []string
	for addr := netip.MustParseAddr("198.51.100.1"); len(vips) < 100; addr = addr.Next() {
		vips = append(vips, `"`+addr.String()+`"`)
	}
	a, err := d.Plan(t.Context(), control.PlanRequest{Config: strings.Replace(named, `"198.51.100.1"`, strings.Join(vips, ", "), 1)})
	if err != nil || len(a.Operations) != maxOperations || a.MoreOperations != 4*99-maxOperations || len(a.Services) != 100 {
		t.Errorf("got %d operations and %d more, %v", len(a.Operations), a.MoreOperations, err)
	}
	if got, want := planned(t, d, strings.Repeat(" ", control.MaxConfig+1)), "refused: the configuration has 1048577 bytes: the most is 1048576"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
