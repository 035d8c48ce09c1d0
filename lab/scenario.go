package lab

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"lb4d/lab/load"
)

// Report is what a scenario measured.
type Report struct {
	Scenario string    `json:"scenario"`
	Started  time.Time `json:"started"`
	Events   []Event   `json:"events"`
	// Between counts the requests that broke in no event's time, and with no
	// excuse.
	Between int `json:"broken_between_events"`
	// Load is what became of all requests.
	Load load.Result `json:"load"`
	// Kept tells whether every promise held.
	Kept bool `json:"kept"`
}

// Event is one thing that was done to the lab, and undone.
type Event struct {
	Name string `json:"event"`
	// From and To bound the time in which broken requests are the event's.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Attempts are one where the times promised were kept at once, else
	// three: of these the median counts, since the machine may have been busy
	// with other things during one. Broken requests count in all.
	Attempts []Attempt `json:"attempts"`
	// React is the time from the event to the state that was waited for,
	// Back the same after it was undone; nil where it did not come.
	React *time.Duration `json:"react_ns"`
	Back  *time.Duration `json:"back_ns"`
	// ReactLimit and BackLimit are promises; 0: none was made.
	ReactLimit time.Duration `json:"react_limit_ns"`
	BackLimit  time.Duration `json:"back_limit_ns"`
	// Broken counts the requests that broke, Excused those of them that
	// could not have been kept.
	Broken  int `json:"broken"`
	Excused int `json:"excused"`
	// Examples are some of those that could have been kept.
	Examples []load.Fault `json:"examples,omitempty"`
	// Excuse says which ones these are; empty: none may break.
	Excuse string `json:"excuse,omitempty"`
	// Failures are the promises that were not kept, in words.
	Failures []string `json:"failures,omitempty"`

	// excused tells whether a request could not have been kept.
	excused func(e *Event, f load.Fault) bool
	// instant events have nothing to wait for or undo.
	instant bool
}

// Attempt is one doing and undoing of an event.
type Attempt struct {
	From  time.Time      `json:"from"`
	React *time.Duration `json:"react_ns"`
	Back  *time.Duration `json:"back_ns"`
}

// maxExamples is how many broken requests a report shows for an event.
const maxExamples = 3

// maxAttempts is odd, for the median.
const maxAttempts = 3

// late tells whether a time was not kept.
func late(d *time.Duration, limit time.Duration) bool { return d == nil || limit > 0 && *d > limit }

// settled tells whether another attempt has nothing to add.
func (e *Event) settled() bool {
	a := e.Attempts[len(e.Attempts)-1]
	return len(e.Attempts) == 1 && !late(a.React, e.ReactLimit) && !late(a.Back, e.BackLimit) ||
		len(e.Attempts) >= maxAttempts
}

// middle is the median one of times, of which nil is the longest.
func middle(all []*time.Duration) *time.Duration {
	slices.SortFunc(all, func(a, b *time.Duration) int {
		switch {
		case a == nil && b == nil:
			return 0
		case a == nil:
			return 1
		case b == nil:
			return -1
		}
		return cmp.Compare(*a, *b)
	})
	if len(all) == 0 {
		return nil
	}
	return all[len(all)/2]
}

// judge compares what was measured with what was promised.
func (e *Event) judge(faults []load.Fault) {
	for _, f := range faults {
		if !f.Outcome.Broken() || !e.holds(f) {
			continue
		}
		e.Broken++
		if e.excused != nil && e.excused(e, f) {
			e.Excused++
		} else if len(e.Examples) < maxExamples {
			e.Examples = append(e.Examples, f)
		}
	}
	fail := func(format string, args ...any) { e.Failures = append(e.Failures, fmt.Sprintf(format, args...)) }
	within := func(what string, d *time.Duration, limit time.Duration) {
		switch {
		case e.instant || !late(d, limit):
		case d == nil:
			fail("%s: it did not come to that", what)
		default:
			fail("%s: it took %s, allowed are %s", what, words(*d), words(limit))
		}
	}
	var reacts, backs []*time.Duration
	for _, a := range e.Attempts {
		reacts, backs = append(reacts, a.React), append(backs, a.Back)
	}
	e.React, e.Back = middle(reacts), middle(backs)
	within("time to react", e.React, e.ReactLimit)
	within("time back", e.Back, e.BackLimit)
	if n := e.Broken - e.Excused; n > 0 {
		fail("%d requests broke that could have been kept", n)
	}
}

// holds tells whether a request broke in the event's time.
func (e *Event) holds(f load.Fault) bool { return !f.At.Before(e.From) && f.At.Before(e.To) }

// judge completes the report from what became of all requests.
func (r *Report) judge() {
	r.Kept = true
	for i := range r.Events {
		r.Events[i].judge(r.Load.Faults)
		r.Kept = r.Kept && len(r.Events[i].Failures) == 0
	}
	for _, f := range r.Load.Faults {
		held := slices.ContainsFunc(r.Events, func(e Event) bool { return e.holds(f) })
		if f.Outcome.Broken() && !held {
			r.Between++
		}
	}
	r.Kept = r.Kept && r.Between == 0 && r.Load.Count(load.Completed) > 0
}

// write prints the table and what did not hold.
func (r *Report) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "EVENT\tTIME TO REACT\tTIME BACK\tREQUESTS BROKEN\tALLOWED\tVERDICT")
	for i := range r.Events {
		e := &r.Events[i]
		verdict := "kept"
		if len(e.Failures) > 0 {
			verdict = "NOT KEPT"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\t%s\n", e.Name, e.measured(e.React), e.measured(e.Back), e.Broken, e.allowed(), verdict)
	}
	if r.Between > 0 {
		fmt.Fprintf(tw, "(in between)\t\t\t%d\t0 broken\tNOT KEPT\n", r.Between)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%d requests completed, %d broken, %d in flight at the end.\n",
		r.Load.Count(load.Completed), r.Load.Broken(), r.Load.Count(load.Unfinished))
	if n := r.Load.Count(load.Local); n > 0 {
		fmt.Fprintf(w, "%d more were never sent: the users' own host was at its limits.\n", n)
	}
	for _, e := range r.Events {
		if n := len(e.Attempts); n > 1 {
			fmt.Fprintf(w, "%s: times are the median of %d attempts.\n", e.Name, n)
		}
	}
	for _, e := range r.Events {
		for _, f := range e.Failures {
			fmt.Fprintf(w, "not kept: %s: %s\n", e.Name, f)
		}
		for _, f := range e.Examples {
			by := "nobody yet"
			if f.LB7 != "" {
				by = f.LB7
			}
			fmt.Fprintf(w, "  broken: %s after the event's start: a %s request from %v to %v, answered by %s, %s: %s\n",
				words(f.At.Sub(e.From)), f.Kind, f.Source, f.Target, by, f.Outcome, f.Error)
		}
	}
	return nil
}

func (e *Event) measured(d *time.Duration) string {
	switch {
	case e.instant:
		return "-"
	case d == nil:
		return "never"
	}
	return words(*d)
}

// allowed are the promises in words.
func (e *Event) allowed() string {
	var parts []string
	if e.ReactLimit > 0 {
		parts = append(parts, words(e.ReactLimit))
	}
	if e.BackLimit > 0 {
		parts = append(parts, "back "+words(e.BackLimit))
	}
	if e.Excuse == "" {
		parts = append(parts, "0 broken")
	} else {
		parts = append(parts, e.Excuse)
	}
	return strings.Join(parts, ", ")
}

// words is a duration as people say it.
func words(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return strings.Replace(fmt.Sprintf("%.1f s", d.Seconds()), ".0 s", " s", 1)
}
