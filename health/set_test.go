package health

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestSetKeepsWhatStays replaces the targets: one stays, one stays with another
// check, one goes, one comes.
func TestSetKeepsWhatStays(t *testing.T) {
	const interval = time.Second
	synctest.Test(t, func(t *testing.T) {
		d := &diary{answer: func(_ context.Context, target Target, n int) Answer {
			if target.Member == "lb7-1" {
				return verdicts["fail"]
			}
			return verdicts["pass"]
		}}
		o := observe(t, d, nil)
		o.Set(every(interval, 3))
		time.Sleep(10*interval + interval/2)
		synctest.Wait()
		before := o.Statuses()

		targets := every(interval, 4)
		delete(targets, target(2))
		changed := targets[target(1)]
		changed.HTTP, changed.Rise, changed.ExpectStatus = "/new", 9, []int{204}
		targets[target(1)] = changed
		o.Set(targets)
		set := time.Now()
		after := o.Statuses()

		want := map[Target]Status{
			target(0): before[target(0)],
			target(1): before[target(1)],
			target(3): {State: Unknown, Since: set},
		}
		if diff := cmp.Diff(want, after, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("statuses right after Set (-want +got):\n%s", diff)
		}

		gone := len(d.times(target(2)))
		time.Sleep(10 * interval)
		synctest.Wait()
		if more := len(d.times(target(2))); more != gone {
			t.Errorf("the target that is gone was asked %d times more", more-gone)
		}
		for _, i := range []int{0, 1} {
			at := d.times(target(i))[2:]
			for k := range len(at) - 1 {
				if gap := at[k+1].Sub(at[k]); gap != interval {
					t.Errorf("%v lost its place: %v between two probes, want %v", target(i), gap, interval)
				}
			}
		}
		if first := d.times(target(3)); len(first) == 0 || first[0].Sub(set) > firstWithin {
			t.Errorf("the new target was first asked at %v, want it within %v of %v", first, firstWithin, set)
		}
		after = o.Statuses()
		for i, checks := range map[int]uint64{0: 20, 1: 20, 3: 10} {
			if got := after[target(i)].ChecksTotal; got < checks {
				t.Errorf("%v counts %d checks, want at least %d", target(i), got, checks)
			}
		}
	})
}

// TestIntervalChanges on reload, in both directions and over and over.
func TestIntervalChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		o := observe(t, d, nil)
		asked := func() int { return len(d.times(target(0))) }

		o.Set(every(time.Hour, 1))
		time.Sleep(time.Minute) // past the first probe
		before := asked()
		o.Set(every(time.Second, 1))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := asked() - before; n < 9 || n > 11 {
			t.Errorf("asked %d times in 10 s after the interval became 1 s", n)
		}

		before = asked()
		o.Set(every(time.Minute, 1))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := asked() - before; n < 9 || n > 12 {
			t.Errorf("asked %d times in 10 min after the interval became 1 min", n)
		}

		// A reload more often than the interval must not put probes off.
		before = asked()
		for i := range 600 {
			o.Set(every(10*time.Second+time.Duration(i%2), 1))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := asked() - before; n < 59 || n > 63 {
			t.Errorf("asked %d times in 10 min of a reload each second, at an interval of 10 s", n)
		}
	})
}

// TestGoneTargetIsForgotten: its probe is broken off, what that one says is not
// taken into account, and if the target comes back it starts afresh.
func TestGoneTargetIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes atomic.Int32
		d := &diary{answer: func(ctx context.Context, _ Target, n int) Answer {
			if n == 0 {
				<-ctx.Done()
				return verdicts["fail"]
			}
			return verdicts["pass"]
		}}
		o := observe(t, d, func() { changes.Add(1) })
		targets := every(time.Second, 1)
		o.Set(targets)
		time.Sleep(time.Minute)
		o.Set(nil)
		synctest.Wait()
		if d.atOnce != 0 {
			t.Error("the probe of a target that is gone goes on")
		}
		if n := len(o.Statuses()); n != 0 {
			t.Errorf("%d statuses without a target", n)
		}
		o.Set(targets)
		if s := o.Statuses()[target(0)]; s.State != Unknown || !s.Since.Equal(time.Now()) {
			t.Errorf("the target came back as %+v, want unknown since now", s)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := o.Statuses()[target(0)]; s.State != Up || s.FailedTotal != 0 {
			t.Errorf("the target is %+v, want up without a failure", s)
		}
		if n := changes.Load(); n != 1 {
			t.Errorf("%d changes told, want the one to up", n)
		}
	})
}
