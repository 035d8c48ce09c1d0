package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/config"
)

// damped tolerates two failures and holds for 10 s to 1 min.
func damped() *config.Config {
	return with(twoMembers(), func(c *config.Config) {
		c.Damping = config.Damping{Tolerate: 2, HoldDown: 10 * time.Second, MaxHoldDown: time.Minute, ForgetAfter: 5 * time.Minute}
	})
}

// TestFlapsGrowAndDecay: what is remembered, and until when a VIP is held.
func TestFlapsGrowAndDecay(t *testing.T) {
	d := damped().Damping
	for _, tt := range []struct {
		name     string
		failures []string // when, after the beginning
		at       string
		count    int
		held     string // after the last failure; empty: not
	}{
		{"never failed", nil, "0s", 0, ""},
		{"once", []string{"0s"}, "0s", 1, ""},
		{"twice", []string{"0s", "1s"}, "1s", 2, ""},
		{"three times", []string{"0s", "1s", "2s"}, "2s", 3, "10s"},
		{"four times", []string{"0s", "1s", "2s", "3s"}, "3s", 4, "20s"},
		{"five times", []string{"0s", "1s", "2s", "3s", "4s"}, "4s", 5, "40s"},
		{"six times: the bound", []string{"0s", "1s", "2s", "3s", "4s", "5s"}, "5s", 6, "1m"},
		{"and no further", strings.Split(strings.Repeat("9s ", 40)+"9s", " "), "9s", 6, "1m"},
		{"one forgotten", []string{"0s", "1s", "2s"}, "302s", 2, "10s"},
		{"all forgotten", []string{"0s", "1s", "2s"}, "902s", 0, "10s"},
		{"a bad night is forgotten in bounded time", strings.Split(strings.Repeat("9s ", 400)+"9s", " "), "1809s", 0, "1m"},
		{"slow enough never to be held", []string{"0s", "301s", "602s", "903s", "1204s"}, "1204s", 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			after := func(s string) time.Time { return now.Add(now.Sub(ago(s))) }
			var f Flaps
			for _, s := range tt.failures {
				f = f.failed(after(s), d)
			}
			held := ""
			if until := f.heldUntil(d); !until.IsZero() {
				held = strings.TrimSuffix(strings.TrimSuffix(until.Sub(f.Last).String(), "0s"), "m")
				if until.Sub(f.Last) < time.Minute {
					held = until.Sub(f.Last).String()
				} else {
					held += "m"
				}
			}
			if got := f.at(after(tt.at), d); got != tt.count || held != tt.held {
				t.Errorf("%d failures, held for %q; want %d, %q", got, held, tt.count, tt.held)
			}
		})
	}
	off := d
	off.HoldDown = 0
	if until := (Flaps{Count: 100, Last: now}).heldUntil(off); !until.IsZero() {
		t.Errorf("with hold_down 0 held until %v", until)
	}
}

// TestDamping plays a night second by second: what the checks say, what the
// operator does, and what becomes of the VIP.
func TestDamping(t *testing.T) {
	const bad, good = "a down, b down", "a up, b up"
	for _, tt := range []struct {
		name  string
		steps string // a second each: + good, - bad, d drained, r reload to quorum 3, m maintenance
		want  string // A announced, w withdrawn, h held, D draining
	}{
		{"a first failure costs nothing", "+-+", "AwA"},
		{"nor does a second", "+-+-+", "AwAwA"},
		{"a third is held for ten seconds", "+-+-+-+++++++++++", "AwAwAwhhhhhhhhhAA"},
		{"failing while held doubles it", "+-+-+-+-++++++++++++++++++++", "AwAwAwhwhhhhhhhhhhhhhhhhhhhA"},
		{"a withdrawal is never delayed", "+-+-+-+++++++++++-", "AwAwAwhhhhhhhhhAAw"},
		{"the first announcement is not held", "---+", "wwwA"},
		{"a drain of all members is no failure", "+d+d+d+d+d+", "AwAwAwAwAwA"},
		{"nor is maintenance", "+m+m+m+m+m+", "AwAwAwAwAwA"},
		{"nor a reload that asks for more", "+r+r+r+r+r+", "AwAwAwAwAwA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vip := addr("198.51.100.1")
			obs := Observations{}
			var got strings.Builder
			for i, step := range tt.steps {
				cfg := damped()
				cfg.BGP.DrainTime = 0
				obs.Now = now.Add(time.Duration(i) * time.Second)
				obs.Health, obs.Drains, obs.Reloaded = members(cfg, good), nil, false
				obs.Maintenance.Present = step == 'm'
				obs.Maintenance.Since = obs.Now
				switch step {
				case '-':
					obs.Health = members(cfg, bad)
				case 'd':
					obs.Drains = drained("a:, b:")
				case 'r':
					cfg.Services[0].Quorum, obs.Reloaded = config.Quorum{Members: 3}, true
				}
				d := Decide(cfg, obs)
				v := d.VIPs[0]
				obs.Announced = map[netip.Addr]bool{vip: v.State != Withdrawn}
				obs.Forwarding, obs.Flaps = d.Forwarding, d.Flaps
				switch {
				case v.State == Announced:
					got.WriteByte('A')
				case v.State == Draining:
					got.WriteByte('D')
				case strings.HasPrefix(v.Reason, "held down until "):
					got.WriteByte('h')
				default:
					got.WriteByte('w')
				}
			}
			if diff := cmp.Diff(tt.want, got.String()); diff != "" {
				t.Errorf("VIP, second by second (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHeldInWords: the reason names the time, so that it stays the same.
func TestHeldInWords(t *testing.T) {
	cfg := damped()
	vip := addr("198.51.100.1")
	d := Decide(cfg, Observations{Now: now, Health: members(cfg, "a up, b up"), Flaps: map[netip.Addr]Flaps{vip: {Count: 4, Last: ago("5s")}}})
	want := fmt.Sprintf("%s withdrawn: held down until 2026-03-01T03:00:15Z, because it has failed 4 times\n", vip)
	if diff := cmp.Diff(want, show(Decision{}, d.VIPs)); diff != "" {
		t.Errorf("VIPs (-want +got):\n%s", diff)
	}
	if d.Next != now.Add(15*time.Second) || d.VIPs[0].HeldUntil != d.Next || d.VIPs[0].Failures != 4 {
		t.Errorf("next %v, held until %v after %d failures", d.Next, d.VIPs[0].HeldUntil, d.VIPs[0].Failures)
	}
	// What is announced already, as after a restart, stays so.
	d = Decide(cfg, Observations{
		Now: now, Health: members(cfg, "a up, b up"), Announced: map[netip.Addr]bool{vip: true},
		Flaps: map[netip.Addr]Flaps{vip: {Count: 4, Last: ago("5s")}},
	})
	if d.VIPs[0].State != Announced {
		t.Errorf("what was announced is %s: %s", d.VIPs[0].State, d.VIPs[0].Reason)
	}
}
