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

// TestMeasuredDrain plays drains quarter second by quarter second, with a kernel
// that adds its counters up every two seconds: how long a VIP is announced with
// GRACEFUL_SHUTDOWN, and what is told at the end.
func TestMeasuredDrain(t *testing.T) {
	const quarter = time.Second / 4
	second := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	for _, tt := range []struct {
		name  string
		drain time.Duration
		// packets per second until the routers have turned away, the time of
		// that, and what still comes then
		rate, late float64
		turned     time.Duration
		// phase is when after the beginning the kernel adds up for the first time.
		phase time.Duration
		// until is how long packets were seen to come before the drain; 0: none
		// for long.
		idle            bool
		enabled, hurry  time.Duration // when the operator wants it back, or out at once
		wantWithdrawn   string        // after the beginning
		wantEarly       bool
		wantLate        uint64
		wantReturned    bool
		wantNoDrainEver bool
	}{
		{name: "no traffic: as soon as the routers have heard of it", drain: second(5), idle: true, wantWithdrawn: "500ms", wantEarly: true},
		{name: "the routers turn away at once", drain: second(5), rate: 100, turned: second(0.1), phase: second(1), wantWithdrawn: "3.5s", wantEarly: true},
		{name: "the kernel adds up late", drain: second(5), rate: 100, turned: second(0.1), phase: second(1.75), wantWithdrawn: "4.25s", wantEarly: true},
		{name: "nobody turns away: drain_time", drain: second(5), rate: 100, turned: second(60), phase: second(1), wantWithdrawn: "5s", wantLate: 250},
		{name: "a few still come: drain_time", drain: second(5), rate: 100, turned: second(0.1), late: 1, phase: second(1), wantWithdrawn: "5s", wantLate: 3},
		{name: "drain_time is shorter than the kernel's step", drain: second(2), rate: 100, turned: second(0.1), phase: second(1), wantWithdrawn: "2s"},
		{name: "a long drain_time ends early all the same", drain: 10 * time.Minute, rate: 1e6, turned: second(1), phase: second(1), wantWithdrawn: "3.5s", wantEarly: true},
		{name: "wanted back", drain: second(5), rate: 100, turned: second(0.1), phase: second(1), enabled: second(1), wantReturned: true},
		{name: "wanted out at once", drain: second(5), rate: 100, turned: second(60), phase: second(1), hurry: second(1), wantWithdrawn: "1s", wantEarly: true, wantLate: 250},
		{name: "drain_time 0", rate: 100, turned: second(60), wantWithdrawn: "0s", wantNoDrainEver: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vip := addr("198.51.100.1")
			cfg := with(twoMembers(), func(c *config.Config) { c.BGP.DrainTime = tt.drain })
			var m Meter
			truth, counter := 1000.0, uint64(1000)
			announced, withdrawn := map[netip.Addr]bool{vip: true}, ""
			var report *DrainReport
			// Two seconds before the beginning, so that the meter knows the VIP.
			for at := -4 * time.Second; at < 30*time.Second && report == nil; at += quarter {
				clock := now.Add(at)
				if (at-tt.phase)%(2*time.Second) == 0 {
					counter = uint64(truth)
				}
				m.Count(clock, map[netip.Addr]uint64{vip: counter})
				obs := Observations{
					Now: clock, Health: members(cfg, "a up, b up"), Announced: announced,
					DrainBegan: m.Began(), Still: m.Still(),
				}
				if at >= 0 && (tt.enabled == 0 || at < tt.enabled) {
					obs.Stopping = now
				}
				obs.Hurry = tt.hurry > 0 && at >= tt.hurry
				d := Decide(cfg, obs)
				announced = map[netip.Addr]bool{vip: d.VIPs[0].State != Withdrawn}
				if withdrawn == "" && !announced[vip] {
					withdrawn = at.String()
				}
				report = m.Follow(clock, d.VIPs)
				switch {
				case tt.idle:
				case at < tt.turned:
					truth += tt.rate / 4
				default:
					truth += tt.late / 4
				}
			}
			if withdrawn != tt.wantWithdrawn {
				t.Errorf("withdrawn after %q, want %q", withdrawn, tt.wantWithdrawn)
			}
			if tt.wantNoDrainEver {
				if report != nil || m.Active() {
					t.Errorf("a drain of no time is told: %+v", report)
				}
				return
			}
			if report == nil {
				t.Fatal("no report")
			}
			want := DrainReport{VIPs: 1, Took: report.Took}
			if tt.wantEarly {
				want.Early = 1
			}
			if tt.wantReturned {
				want.Returned = 1
			}
			if tt.wantLate > 0 {
				// The kernel's steps do not end with the watch.
				if report.Late == 0 || report.Late > 2*tt.wantLate {
					t.Errorf("%d late packets, want about %d", report.Late, tt.wantLate)
				}
				want.Late = report.Late
			}
			if diff := cmp.Diff(want, *report); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if tt.wantWithdrawn != "" && report.Took.String() != tt.wantWithdrawn {
				t.Errorf("took %v, want %s", report.Took, tt.wantWithdrawn)
			}
		})
	}
}

// TestMeterProgress: phases, rates and late packets of two VIPs that drain
// together, and one report of both.
func TestMeterProgress(t *testing.T) {
	one, two := addr("198.51.100.1"), addr("2001:db8::1")
	var m Meter
	var got strings.Builder
	for _, step := range []struct {
		at       time.Duration
		packets1 uint64
		packets2 uint64
		state1   VIPState
		state2   VIPState
	}{
		{0, 100, 0, Announced, Announced},
		{2, 300, 0, Draining, Draining},
		{3, 300, 0, Draining, Withdrawn},
		{4, 500, 0, Draining, Withdrawn},
		{6, 500, 7, Withdrawn, Withdrawn},
		{8, 512, 7, Withdrawn, Withdrawn},
		{9, 512, 7, Withdrawn, Withdrawn},
	} {
		clock := now.Add(step.at * time.Second)
		m.Count(clock, map[netip.Addr]uint64{one: step.packets1, two: step.packets2})
		r := m.Follow(clock, []VIP{{Addr: one, State: step.state1, Deadline: now.Add(6 * time.Second)}, {Addr: two, State: step.state2, Deadline: now.Add(6 * time.Second)}})
		fmt.Fprintf(&got, "%d:", step.at)
		for _, vip := range []netip.Addr{one, two} {
			switch p := m.Progress(vip); {
			case p == nil:
				fmt.Fprint(&got, " -")
			case p.Withdrawn.IsZero():
				fmt.Fprintf(&got, " draining %.0f/s", p.Rate)
			default:
				fmt.Fprintf(&got, " lingering %.0f/s late %d", p.Rate, p.Late)
			}
		}
		if r != nil {
			fmt.Fprintf(&got, " %+v", *r)
		}
		fmt.Fprintln(&got)
	}
	const want = `0: - -
2: draining 100/s draining 0/s
3: draining 100/s lingering 0/s late 0
4: draining 100/s lingering 0/s late 0
6: lingering 100/s late 0 -
8: lingering 3/s late 12 -
9: - - {VIPs:2 Took:4s Early:1 Returned:0 Late:19}
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if m.Active() || len(m.Began()) > 0 || !m.LingersUntil().IsZero() {
		t.Error("something is left")
	}
}

// TestMeterForgets what is in the kernel no longer, and begins anew where a
// counter does.
func TestMeterForgets(t *testing.T) {
	vip := addr("198.51.100.1")
	var m Meter
	m.Count(now, map[netip.Addr]uint64{vip: 5})
	m.Count(now.Add(time.Second), nil)
	if len(m.Still()) > 0 {
		t.Errorf("known: %v", m.Still())
	}
	m.Count(now, map[netip.Addr]uint64{vip: 5})
	m.Follow(now, []VIP{{Addr: vip, State: Draining, Deadline: now}})
	m.Follow(now, []VIP{{Addr: vip, State: Withdrawn}})
	m.Count(now.Add(time.Second), map[netip.Addr]uint64{vip: 2})
	if p := m.Progress(vip); p == nil || p.Late != 2 {
		t.Errorf("after the counter began anew: %+v", p)
	}
	// A daemon that stays no longer tells what it knows.
	if r := m.End(now.Add(time.Second)); r == nil || r.VIPs != 1 || r.Late != 2 || m.Active() {
		t.Errorf("end: %+v", r)
	}
}
