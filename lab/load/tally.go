package load

import (
	"maps"
	"math"
	"slices"
	"time"
)

// maxNames bounds the distinct X-LB7 and X-Server values that are counted,
// since they come from outside.
const maxNames = 256

// tally counts what became of one kind's requests. Its Generator's lock
// guards it.
type tally struct {
	name             string
	started, skipped int
	ended            int
	outcomes         [outcomes]int
	bytes            int64
	lb7, servers     map[string]int
	carried          map[string]int // in flight and answered, by X-LB7
	statuses         map[int]int
	latency          histogram
	first            int // the step that index 0 of the timelines stands for
	completed        []int
	broken           []int
}

// count adds one request that ended at a time after the start of the run.
func (t *tally) count(o Outcome, f *flight, took, at time.Duration) {
	t.ended++
	t.outcomes[o]++
	t.bytes += f.body.got
	if f.status != 0 {
		countName(&t.statuses, f.status)
	}
	if o == Completed {
		t.latency.add(took)
		if f.lb7 != "" {
			countName(&t.lb7, f.lb7)
		}
		if f.server != "" {
			countName(&t.servers, f.server)
		}
	}
	i := t.reach(int(at / Step))
	switch {
	case o == Completed:
		t.completed[i]++
	case o.Broken():
		t.broken[i]++
	}
}

func countName[K comparable](m *map[K]int, name K) {
	if *m == nil {
		*m = make(map[K]int)
	}
	if _, ok := (*m)[name]; ok || len(*m) < maxNames {
		(*m)[name]++
	}
}

// reach extends the timelines to a step and returns its index.
func (t *tally) reach(step int) int {
	for t.first+len(t.completed) <= step {
		if len(t.completed) >= maxBuckets {
			// Forget a tenth at once rather than a little each time.
			n := maxBuckets / 10
			t.first += n
			t.completed = slices.Delete(t.completed, 0, n)
			t.broken = slices.Delete(t.broken, 0, n)
		}
		t.completed = append(t.completed, 0)
		t.broken = append(t.broken, 0)
	}
	return max(0, step-t.first)
}

// result is the tally up to a step, with the last steps of its timeline or all
// where 0.
func (t *tally) result(now, last int) KindResult {
	t.reach(now)
	skip := 0
	if last > 0 {
		skip = max(0, len(t.completed)-last)
	}
	k := KindResult{
		Name: t.name, Started: t.started, InFlight: t.started - t.ended, Skipped: t.skipped,
		Outcomes: make(map[Outcome]int), Bytes: t.bytes, Latency: t.latency.percentiles(),
		LB7: maps.Clone(t.lb7), Carried: positive(t.carried), Servers: maps.Clone(t.servers), Statuses: maps.Clone(t.statuses),
		Timeline: Timeline{
			First:     t.first + skip,
			Completed: slices.Clone(t.completed[skip:]),
			Broken:    slices.Clone(t.broken[skip:]),
		},
	}
	for o, n := range t.outcomes {
		if n > 0 {
			k.Outcomes[Outcome(o)] = n
		}
	}
	return k
}

// positive are the names that are counted at all.
func positive(m map[string]int) map[string]int {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(_ string, n int) bool { return n <= 0 })
	return m
}

// histogram counts durations in buckets that grow by 2 %, from a microsecond:
// 1,200 of them reach past five hours.
type histogram struct {
	buckets [1200]int
	n       int
	max     time.Duration
}

var growth = math.Log(1.02)

func (h *histogram) add(d time.Duration) {
	i := 0
	if us := d.Microseconds(); us > 1 {
		i = int(math.Log(float64(us)) / growth)
	}
	h.buckets[min(i, len(h.buckets)-1)]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) percentiles() Latency {
	return Latency{P50: h.quantile(0.5), P90: h.quantile(0.9), P99: h.quantile(0.99), Max: millis(h.max)}
}

// quantile is the upper bound in milliseconds of what a share of the
// durations did not exceed.
func (h *histogram) quantile(q float64) float64 {
	rank := int(math.Ceil(q * float64(h.n)))
	for i, n := range h.buckets {
		if rank -= n; rank <= 0 && h.n > 0 {
			upper := time.Duration(math.Exp(float64(i+1)*growth)) * time.Microsecond
			return millis(min(upper, h.max))
		}
	}
	return 0
}
