package health

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestPlacesAreEven takes places one by one and looks at the widest gap after
// each, since targets come in any number and one by one later on.
func TestPlacesAreEven(t *testing.T) {
	for _, offset := range []float64{0, 0.25, 0.999} {
		var taken []float64
		for n := range 2000 {
			p := float64(placed(n, offset))
			if p < 0 || p >= 1 {
				t.Fatalf("placed(%d, %v) = %v, want a fraction", n, offset, p)
			}
			i, _ := slices.BinarySearch(taken, p)
			taken = slices.Insert(taken, i, p)
			if gap, even := widestGap(taken), 1/float64(n+1); gap > 2*even {
				t.Fatalf("offset %v: the widest gap of %d places is %v, more than twice the even %v", offset, n+1, gap, even)
			}
		}
	}
}

// widestGap is the widest distance between sorted places on a circle of 1.
func widestGap(places []float64) float64 {
	gap := places[0] + 1 - places[len(places)-1]
	for i := 1; i < len(places); i++ {
		gap = max(gap, places[i]-places[i-1])
	}
	return gap
}

func TestTicks(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for _, tt := range []struct {
		phase    phase
		t        time.Duration
		interval time.Duration
		want     time.Duration
	}{
		{0, 0, s, s},
		{0, s, s, 2 * s},
		{0.25, 0, s, 250 * ms},
		{0.25, 250*ms - 1, s, 250 * ms},
		{0.25, 250 * ms, s, 1250 * ms}, // later than, never the same again
		{0.25, 250*ms + 1, s, 1250 * ms},
		{0.75, 100 * s, s, 100*s + 750*ms},
		{0.5, 86400 * s, 10 * s, 86405 * s},
	} {
		name := fmt.Sprintf("%v after %v every %v", tt.phase, tt.t, tt.interval)
		if got := tt.phase.after(tt.t, tt.interval); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

func TestNextTick(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for _, tt := range []struct {
		name     string
		due, now time.Duration
		want     time.Duration
	}{
		{"a quick probe waits for its next tick", 10500 * ms, 10501 * ms, 11500 * ms},
		{"one that takes nearly the interval too", 10500 * ms, 11499 * ms, 11500 * ms},
		{"one that takes a little more is late", 10500 * ms, 11510 * ms, 11500 * ms},
		{"one that takes many intervals is late once", 10500 * ms, 19700 * ms, 19500 * ms},
		{"the first probe is off the ticks, the next is on one", 100 * ms, 110 * ms, 500 * ms},
		{"but not on one that follows at once", 300 * ms, 310 * ms, 1500 * ms},
	} {
		got := phase(0.5).next(tt.due, tt.now, s)
		if got != tt.want {
			t.Errorf("%s: due %v, now %v: got %v, want %v", tt.name, tt.due, tt.now, got, tt.want)
		}
	}
}
