package load

import (
	"math"
	"net/netip"
	"slices"
	"time"
)

const (
	// Step is the width of a timeline's buckets.
	Step = 100 * time.Millisecond
	// maxBuckets is an hour; a longer run forgets its beginning.
	maxBuckets = 36000
	// maxFaults is how many faults are remembered one by one, the last ones.
	maxFaults = 1000
)

// Result is what became of all requests so far. Durations in the JSON are
// milliseconds.
type Result struct {
	Started time.Time `json:"started"`
	// Elapsed is the time from the start to the end of the last request, or
	// to the snapshot.
	Elapsed float64      `json:"elapsed_ms"`
	Running bool         `json:"running"`
	Kinds   []KindResult `json:"kinds"`
	// Faults are the last thousand requests that broke. Snapshots with a
	// limited timeline have none.
	Faults []Fault `json:"faults,omitempty"`
}

// KindResult is what became of one kind's requests.
type KindResult struct {
	Name     string `json:"name"`
	Started  int    `json:"started"`
	InFlight int    `json:"in_flight"`
	// Skipped requests were due while Concurrency were in flight.
	Skipped  int             `json:"skipped"`
	Outcomes map[Outcome]int `json:"outcomes"`
	Bytes    int64           `json:"bytes"`
	// Latency is that of completed requests, from the first packet to the
	// body's end.
	Latency Latency        `json:"latency"`
	LB7     map[string]int `json:"lb7,omitempty"`    // completed, by X-LB7
	Servers map[string]int `json:"server,omitempty"` // completed, by X-Server
	// Carried are those in flight whose answer has begun, by X-LB7.
	Carried  map[string]int `json:"carried,omitempty"`
	Statuses map[int]int    `json:"status,omitempty"`
	Timeline Timeline       `json:"timeline"`
}

// Latency is percentiles in milliseconds, right to 2 %.
type Latency struct {
	P50 float64 `json:"p50_ms"`
	P90 float64 `json:"p90_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// Timeline counts by Step. Index 0 is First steps after the start. A request
// is counted where it ended.
type Timeline struct {
	First     int   `json:"first"`
	Completed []int `json:"completed"`
	Broken    []int `json:"broken"`
}

// Fault is one request that broke.
type Fault struct {
	At      time.Time      `json:"at"`
	After   float64        `json:"after_ms"` // since its start
	Kind    string         `json:"kind"`
	Outcome Outcome        `json:"outcome"`
	Source  netip.Addr     `json:"source,omitzero"`
	Target  netip.AddrPort `json:"target"`
	LB7     string         `json:"lb7,omitempty"`
	Server  string         `json:"server,omitempty"`
	Bytes   int64          `json:"bytes"`
	Error   string         `json:"error"`
}

// Kind returns the result of a kind by name, an empty one where there is none.
func (r Result) Kind(name string) KindResult {
	for _, k := range r.Kinds {
		if k.Name == name {
			return k
		}
	}
	return KindResult{Name: name}
}

// Count is the number of requests with an outcome, of all kinds.
func (r Result) Count(o Outcome) int {
	n := 0
	for _, k := range r.Kinds {
		n += k.Outcomes[o]
	}
	return n
}

// Broken is the number of broken requests of all kinds.
func (r Result) Broken() int {
	n := 0
	for _, k := range r.Kinds {
		n += k.Broken()
	}
	return n
}

// Broken is the number of broken requests.
func (k KindResult) Broken() int {
	n := 0
	for o, count := range k.Outcomes {
		if o.Broken() {
			n += count
		}
	}
	return n
}

// BrokenBetween is the number of requests, of all kinds, that broke between
// two moments, to the Step.
func (r Result) BrokenBetween(from, to time.Time) int {
	n := 0
	for _, k := range r.Kinds {
		for i, b := range k.Timeline.Broken {
			if at := r.at(k.Timeline.First + i); at.Add(Step).After(from) && at.Before(to) {
				n += b
			}
		}
	}
	return n
}

// LongestGap is the longest time between two moments in which no request of a
// kind was completed, to the Step, and when it began.
func (r Result) LongestGap(kind string, from, to time.Time) (gap time.Duration, began time.Time) {
	t := r.Kind(kind).Timeline
	last := from
	note := func(at time.Time) {
		if d := at.Sub(last); d > gap {
			gap, began = d, last
		}
	}
	for i, n := range t.Completed {
		at := r.at(t.First + i)
		if n == 0 || at.Before(from) || !at.Before(to) {
			continue
		}
		note(at)
		last = at.Add(Step)
	}
	note(to)
	return gap, began
}

// at is when a bucket begins.
func (r Result) at(bucket int) time.Time { return r.Started.Add(time.Duration(bucket) * Step) }

// Snapshot is the result so far. Its timelines hold the last part of the run
// that is asked for, all where 0.
func (g *Generator) Snapshot(last time.Duration) Result {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := Result{Started: g.started, Running: !g.started.IsZero() && g.ended.IsZero()}
	switch {
	case g.started.IsZero():
		return r
	case r.Running:
		r.Elapsed = millis(time.Since(g.started))
	default:
		r.Elapsed = millis(g.ended.Sub(g.started))
	}
	now := int(time.Duration(r.Elapsed*float64(time.Millisecond)) / Step)
	for _, t := range g.kinds {
		r.Kinds = append(r.Kinds, t.result(now, int(last/Step)))
	}
	if last == 0 {
		r.Faults = slices.Clone(g.faults)
	}
	return r
}

// fault remembers a broken request; the caller holds the lock.
func (g *Generator) fault(f Fault) {
	if len(g.faults) == maxFaults {
		g.faults = append(g.faults[:0], g.faults[maxFaults/10:]...)
	}
	g.faults = append(g.faults, f)
}

func millis(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Millisecond)*100) / 100
}
