package health

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// diary is a probe that asks nobody. It notes when each target was asked, by
// the fake clock of a synctest bubble, and answers what the test wants.
type diary struct {
	answer func(ctx context.Context, target Target, n int) Answer

	mu      sync.Mutex
	started map[Target][]time.Time
	running map[Target]int
	overlap bool
	atOnce  int
	peak    int
}

func (d *diary) probe(ctx context.Context, target Target, _ Check) Answer {
	d.mu.Lock()
	if d.started == nil {
		d.started, d.running = map[Target][]time.Time{}, map[Target]int{}
	}
	n := len(d.started[target])
	d.started[target] = append(d.started[target], time.Now())
	d.running[target]++
	d.atOnce++
	d.overlap = d.overlap || d.running[target] > 1
	d.peak = max(d.peak, d.atOnce)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.running[target]--
		d.atOnce--
	}()
	if d.answer == nil {
		return verdicts["pass"]
	}
	return d.answer(ctx, target, n)
}

// times are the starts of a target's probes so far.
func (d *diary) times(target Target) []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.started[target])
}

// observe is an Observer that asks d, and ends with the test.
func observe(t *testing.T, d *diary, changed func()) *Observer {
	t.Helper()
	if changed == nil {
		changed = func() {}
	}
	o := New(slog.New(slog.DiscardHandler), changed)
	o.probe = d.probe
	t.Cleanup(o.Close)
	return o
}

// target is the nth of a pool.
func target(n int) Target {
	return Target{
		Pool:   "lb7",
		Member: fmt.Sprintf("lb7-%d", n),
		Addr:   netip.AddrFrom4([4]byte{192, 0, byte(2 + n/256), byte(n)}),
	}
}

// every is n targets with a check at that interval.
func every(interval time.Duration, n int) map[Target]Check {
	targets := make(map[Target]Check, n)
	for i := range n {
		targets[target(i)] = Check{Port: 80, Interval: interval, Timeout: interval / 2, Rise: 2, Fall: 3}
	}
	return targets
}

// TestFirstProbesComeSoon: a start waits for them, whatever the interval.
func TestFirstProbesComeSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		o := observe(t, d, nil)
		start := time.Now()
		o.Set(every(10*time.Second, 100))
		time.Sleep(firstWithin)
		synctest.Wait()

		var at []time.Duration
		for i := range 100 {
			first := d.times(target(i))
			if len(first) == 0 {
				t.Fatalf("%v was not asked within %v", target(i), firstWithin)
			}
			at = append(at, first[0].Sub(start))
		}
		slices.Sort(at)
		for i := 1; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap > 2*firstWithin/100 {
				t.Errorf("no target is asked for %v after %v, of %v for 100 of them", gap, at[i-1], firstWithin)
			}
		}
		for target, s := range o.Statuses() {
			if s.State != Up {
				t.Errorf("%v is %v after one pass, want up", target, s.State)
			}
		}
	})
}

// TestProbesKeepTheirPlace lets 13 targets answer after any part of the interval
// for a thousand intervals. Each keeps its own place to the nanosecond, and the
// places are spread.
func TestProbesKeepTheirPlace(t *testing.T) {
	const interval, n, rounds = time.Second, 13, 1000
	synctest.Test(t, func(t *testing.T) {
		d := &diary{answer: func(_ context.Context, _ Target, n int) Answer {
			time.Sleep(time.Duration(n*7919%950) * time.Millisecond)
			return verdicts["pass"]
		}}
		o := observe(t, d, nil)
		o.Set(every(interval, n))
		time.Sleep(rounds*interval + interval/2)
		o.Close()

		var places []float64
		for i := range n {
			at := d.times(target(i))
			if len(at) < rounds || len(at) > rounds+2 {
				t.Errorf("%v was asked %d times in %d intervals", target(i), len(at), rounds)
			}
			at = at[3:] // the first probe is soon, not in its place
			for k := range len(at) - 1 {
				if gap := at[k+1].Sub(at[k]); gap != interval {
					t.Fatalf("%v: %v between probes %d and %d, want %v", target(i), gap, k, k+1, interval)
				}
			}
			places = append(places, float64(at[0].Sub(o.epoch)%interval)/float64(interval))
		}
		slices.Sort(places)
		if gap := widestGap(places); gap > 2.0/n {
			t.Errorf("the widest gap between %d targets is %v of the interval", n, gap)
		}
		if d.overlap {
			t.Error("a target was asked twice at a time")
		}
	})
}

// TestHostsAreNotInStep: hosts started together ask at different times.
func TestHostsAreNotInStep(t *testing.T) {
	a, b := observe(t, &diary{}, nil), observe(t, &diary{}, nil)
	if placed(0, a.offset) == placed(0, b.offset) {
		t.Errorf("two observers share the offset %v", a.offset)
	}
}

// TestSlowTargetIsAskedOnceAtATime: a probe that outlasts the interval is
// followed by the next at once, and the ones between are left out.
func TestSlowTargetIsAskedOnceAtATime(t *testing.T) {
	const interval, takes = time.Second, 2500 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		d := &diary{answer: func(context.Context, Target, int) Answer {
			time.Sleep(takes)
			return verdicts["fail"]
		}}
		o := observe(t, d, nil)
		o.Set(every(interval, 3))
		time.Sleep(100 * takes)
		o.Close()
		if d.overlap {
			t.Error("a target was asked twice at a time")
		}
		for i := range 3 {
			at := d.times(target(i))
			for k := range len(at) - 1 {
				if gap := at[k+1].Sub(at[k]); gap != takes {
					t.Fatalf("%v: %v between probes %d and %d, want %v", target(i), gap, k, k+1, takes)
				}
			}
		}
	})
}

// TestWaitingIsNotHeldAgainstATarget asks more targets at once than there are
// turns. All are asked, later, and none fails for it.
func TestWaitingIsNotHeldAgainstATarget(t *testing.T) {
	const n, interval, takes = 4 * maxProbes, time.Second, 900 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		d := &diary{answer: func(ctx context.Context, _ Target, _ int) Answer {
			ctx, cancel := context.WithTimeout(ctx, takes+1)
			defer cancel()
			time.Sleep(takes)
			if ctx.Err() != nil {
				return verdicts["fail"]
			}
			return verdicts["pass"]
		}}
		o := observe(t, d, nil)
		o.Set(every(interval, n))
		time.Sleep(40 * time.Second)
		o.Close()
		if d.peak > maxProbes {
			t.Errorf("%d probes ran at once, want at most %d", d.peak, maxProbes)
		}
		fewest, most := n, 0
		for i := range n {
			asked := len(d.times(target(i)))
			fewest, most = min(fewest, asked), max(most, asked)
		}
		// 40 s of 0.9 s each in a quarter of the turns.
		if fewest < 10 || most > fewest+1 {
			t.Errorf("targets were asked %d to %d times, want the same for all and at least 10", fewest, most)
		}
		for target, s := range o.Statuses() {
			if s.State != Up || s.FailedTotal != 0 {
				t.Fatalf("%v is %+v, want up and no failure", target, s)
			}
		}
	})
}

// TestChangesAreTold once each, in words, and nothing else is.
func TestChangesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []string{
			"pass", "pass", "fail", "fail", "pass", // nothing but up
			"drain", "drain", "pass", // up again at once
			"fail", "fail", "fail", "fail", // down
			"pass", "pass", // and up
		}
		d := &diary{answer: func(_ context.Context, _ Target, n int) Answer {
			return verdicts[answers[min(n, len(answers)-1)]]
		}}
		var log bytes.Buffer
		var changes atomic.Int32
		o := observe(t, d, func() { changes.Add(1) })
		o.offset = 0.5
		o.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		}))
		o.Set(every(time.Second, 1))
		time.Sleep(time.Minute)
		o.Close()

		const want = `level=INFO msg="member up" pool=lb7 member=lb7-0 address=192.0.2.0 was=unknown after=100ms answer="200 OK in 1ms"
level=INFO msg="member draining" pool=lb7 member=lb7-0 address=192.0.2.0 was=up after=4.4s answer="503 Service Unavailable (drain)"
level=INFO msg="member up" pool=lb7 member=lb7-0 address=192.0.2.0 was=draining after=2s answer="200 OK in 1ms"
level=WARN msg="member down" pool=lb7 member=lb7-0 address=192.0.2.0 was=up after=3s answer="connection refused"
level=INFO msg="member up" pool=lb7 member=lb7-0 address=192.0.2.0 was=down after=3s answer="200 OK in 1ms"
`
		if diff := cmp.Diff(want, log.String()); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
		if n := changes.Load(); n != 5 {
			t.Errorf("%d changes told, want 5", n)
		}
	})
}

// TestLogOfPresumedUp: the word "up" does not stand alone beside an answer that
// says the contrary.
func TestLogOfPresumedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{answer: func(context.Context, Target, int) Answer { return verdicts["fail"] }}
		var log bytes.Buffer
		o := observe(t, d, nil)
		o.offset = 0.5
		o.log = slog.New(slog.NewTextHandler(&log, nil))
		checks := every(time.Second, 1)
		for target, check := range checks {
			check.PresumedUp = true
			checks[target] = check
		}
		o.Set(checks)
		time.Sleep(10 * time.Second)
		o.Close()

		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		want := []string{
			`level=WARN msg="member presumed up" pool=lb7 member=lb7-0 address=192.0.2.0 was=unknown after=100ms answer="connection refused" why="the kernel sent it new flows when lb4d started; it is down after 3 failed checks in a row"`,
			`level=WARN msg="member down" pool=lb7 member=lb7-0 address=192.0.2.0 was=up after=`,
		}
		if len(lines) != len(want) {
			t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), log.String())
		}
		for i, line := range lines {
			if !strings.Contains(line, want[i]) {
				t.Errorf("line is\n%s\nwant in it\n%s", line, want[i])
			}
		}
	})
}

// TestCloseEndsAll: synctest itself fails where a goroutine is left.
func TestCloseEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{answer: func(ctx context.Context, _ Target, _ int) Answer {
			<-ctx.Done()
			return verdicts["fail"]
		}}
		o := observe(t, d, func() { t.Error("a probe that was broken off counts as an answer") })
		o.Set(every(time.Second, 2*maxProbes)) // half of them wait for a turn
		time.Sleep(time.Second)
		o.Close()
		o.Close()
		o.Set(every(time.Second, 10))
		if n := len(o.Statuses()); n != 2*maxProbes {
			t.Errorf("%d statuses after Close, want those of before", n)
		}
		for _, s := range o.Statuses() {
			if s.State != Unknown {
				t.Fatalf("a target is %v, want unknown", s.State)
			}
		}
	})
}
