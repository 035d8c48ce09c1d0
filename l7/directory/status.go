package directory

import (
	"fmt"
	"time"
)

// Counters count since the process started.
type Counters struct {
	// Misses are the requests that HAProxy sent here; Known, those of them
	// whose host was known already; Shared, those that waited for a call that
	// was open; Refused, those whose Host header is no name.
	Misses, Known, Shared, Refused uint64
	// Answered, Unknown, Wrong and Failed are the calls by their outcome,
	// answers of the bulk call included; Busy, those that were not made.
	Answered, Unknown, Wrong, Failed, Busy uint64
	// Refreshes are the calls made ahead of time, which count above too.
	Refreshes uint64
	// Bulk and BulkFailed are the calls for all hosts.
	Bulk, BulkFailed uint64
	// Evicted hosts made room for others; Expired ones were not used any more.
	Evicted, Expired uint64
	// Written are lines of HAProxy's map that were changed; Compared, how often
	// it was read in full; Mended, the lines found wrong then; FileWrites, how
	// often the file was written.
	Written, Compared, Mended, FileWrites uint64
	// ForwardFailed are requests that HAProxy's frontend did not take; Shed,
	// those that were too many at once.
	ForwardFailed, Shed uint64
	Latency             Histogram
}

// Bounds are the upper bounds of the histogram's buckets.
var Bounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
}

// Histogram counts how long calls for one host took.
type Histogram struct {
	Count   uint64
	Sum     time.Duration
	Buckets [len(Bounds)]uint64 // each with those below it, as Prometheus counts
}

func (h *Histogram) observe(d time.Duration) {
	h.Count++
	h.Sum += d
	for i, b := range Bounds {
		if d <= b {
			h.Buckets[i]++
		}
	}
}

// state is what the keeper and the listener found, for the status.
type state struct {
	haproxy   string // why the map cannot be kept; empty while it can
	missing   string // back ends of the configuration that HAProxy lacks
	file      string // why the file cannot be written
	bulk      string // why the list of all hosts was not read
	wrong     string // the latest wrong answer
	wrongAt   time.Time
	forward   string // why a request was not taken back
	forwardAt time.Time
	open      int // requests passing through
	entries   int // lines of HAProxy's map, as last known
	stale     int // answers that are too old, and the time of the oldest,
	oldest    time.Time
	agesAt    time.Time // counted then, which took so long
	agesTook  time.Duration
	leftOut   int // hosts of the bulk list beyond max_entries
	bulkAt    time.Time
	filledAt  time.Time
	seen      time.Time    // the keeper's latest pass
	waiting   []chan error // those who wait for the next pass of the keeper
}

// Status is a directory at one moment.
type Status struct {
	Name string `json:"name"`
	// State is "starting" until the map has been read; "serving"; "stale" while
	// the directory is away, and known hosts are served on; "unkept" while
	// HAProxy's map cannot be written.
	State string `json:"state"`
	// Problems are what somebody should look at, in words.
	Problems []string `json:"problems,omitempty"`
	Map      string   `json:"map"`
	Listen   string   `json:"listen"`
	// Hosts are known, InMap of them as far as HAProxy was told; Stale of them
	// are older than ttl; Unknown are remembered for being unknown.
	Hosts   int `json:"hosts"`
	InMap   int `json:"in_map"`
	Stale   int `json:"stale"`
	Unknown int `json:"unknown"`
	Max     int `json:"max_entries"`
	// Asking is how many hosts wait for an answer now; Open, how many requests
	// pass through.
	Asking int `json:"asking"`
	Open   int `json:"open"`
	// Oldest is when the oldest answer was given, AnsweredAt the latest,
	// BulkAt the latest list of all hosts.
	Oldest     time.Time `json:"oldest,omitzero"`
	AnsweredAt time.Time `json:"answered_at,omitzero"`
	BulkAt     time.Time `json:"bulk_at,omitzero"`
	// Wrong is the latest answer that was not taken, and why.
	Wrong   string    `json:"wrong,omitempty"`
	WrongAt time.Time `json:"wrong_at,omitzero"`
	// Seen is when the map was last looked after.
	Seen     time.Time `json:"seen"`
	Counters Counters  `json:"counters"`
}

// Status is the present state.
func (d *Directory) Status() Status {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{
		Name: d.cfg.Name, Map: d.cfg.Map, Listen: d.cfg.Listen, Max: d.cfg.MaxEntries,
		Hosts: len(d.table.entries), InMap: d.now.entries, Unknown: d.none.order.Len(),
		Asking: len(d.pending), Open: d.now.open,
		AnsweredAt: d.service.okAt, BulkAt: d.now.bulkAt, Wrong: d.now.wrong, WrongAt: d.now.wrongAt, Seen: d.now.seen, Counters: d.count,
	}
	if now.Sub(d.now.agesAt) > 100*d.now.agesTook {
		d.now.stale, d.now.oldest = d.table.ages(now)
		d.now.agesAt, d.now.agesTook = now, time.Since(now)
	}
	s.Stale, s.Oldest = d.now.stale, d.now.oldest
	problem := func(text string) {
		if text != "" {
			s.Problems = append(s.Problems, text)
		}
	}
	switch {
	case !d.ready:
		s.State = "starting"
	case d.now.haproxy != "":
		s.State = "unkept"
	case d.service.away():
		s.State = "stale"
	default:
		s.State = "serving"
	}
	problem(d.now.haproxy)
	if d.service.away() {
		problem(fmt.Sprintf("no answer for %s: %s", now.Sub(d.service.since).Round(time.Second), d.service.err))
	} else if s.Stale > 0 {
		problem(fmt.Sprintf("%d of %d answers are older than %s", s.Stale, s.Hosts, d.cfg.TTL))
	}
	problem(d.now.missing)
	problem(d.gone.text(now))
	problem(d.now.bulk)
	problem(d.now.file)
	if now.Sub(d.now.forwardAt) < time.Minute {
		problem("HAProxy's frontend for misses did not take a request: " + d.now.forward)
	}
	problem(d.usage.trouble)
	if d.now.leftOut > 0 {
		problem(fmt.Sprintf("%d hosts of the list of all hosts are beyond max_entries", d.now.leftOut))
	}
	return s
}
