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

// Trials is what one balancer was put through.
type Trials struct {
	Balancer Balancer  `json:"balancer"`
	Started  time.Time `json:"started"`
	// Flows is how many downloads were in flight at the start of each event.
	Flows  int     `json:"flows"`
	Seed   uint64  `json:"seed"`
	Events []Trial `json:"events"`
}

// Trial is one event, with downloads in flight that were started for it and
// that end with it, and with new requests all the while.
type Trial struct {
	Name string `json:"event"`
	// Allowed are the promises in words.
	Allowed string `json:"allowed"`
	// Broken counts the downloads that broke, Lost those of them that could
	// not have been kept, because what carried them was gone.
	Broken int `json:"broken"`
	Lost   int `json:"lost"`
	// New counts the requests begun during the event that broke, and
	// NewFor is how long after it the last of them was begun.
	New    int           `json:"new_broken"`
	NewFor time.Duration `json:"new_broken_for_ns"`
	// React is the time from the event to the state that was waited for,
	// Back the same after it was undone; nil where it did not come.
	React *time.Duration `json:"react_ns"`
	Back  *time.Duration `json:"back_ns"`
	// Notes are measured beside that, in words.
	Notes []string `json:"notes,omitempty"`
	// Failures are the promises that were not kept, in words.
	Failures []string `json:"failures,omitempty"`
	// Examples are some of the broken that could have been kept.
	Examples []load.Fault `json:"examples,omitempty"`

	// Instant events have nothing to wait for, OneWay ones nothing to undo.
	Instant bool `json:"instant,omitempty"`
	OneWay  bool `json:"one_way,omitempty"`
	// Found is shown in place of the broken flows, where something else is
	// counted.
	Found string `json:"found,omitempty"`
}

// fail notes a promise that was not kept.
func (t *Trial) fail(format string, args ...any) {
	t.Failures = append(t.Failures, fmt.Sprintf(format, args...))
}

// note tells what was measured besides.
func (t *Trial) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

// mercy tells which requests an event may break.
type mercy struct {
	// lost tells of an LB7 host whether what it carried is lost.
	lost map[string]bool
	// from and newFor bound the time in which a request may be begun that is
	// sent to one of them, and has no answer.
	from   time.Time
	newFor time.Duration
	// reset are the kinds whose flows, where they are lost, must be reset
	// within a time from from.
	reset  map[string]time.Duration
	resets *resets
}

// resets are how flows ended that had to be reset.
type resets struct {
	inTime, late, silent int
	last                 time.Duration
}

func (m mercy) takeReset(f load.Fault, limit time.Duration) {
	after := f.At.Sub(m.from)
	switch {
	case f.Outcome != load.Reset:
		m.resets.silent++
		return
	case after > limit:
		m.resets.late++
	default:
		m.resets.inTime++
	}
	m.resets.last = max(m.resets.last, after)
}

func (m mercy) tellResets(t *Trial) {
	r := m.resets
	all := r.inTime + r.late + r.silent
	if len(m.reset) == 0 {
		return
	}
	t.note("of %d users who sent, %d had a reset in time, the last after %s", all, r.inTime, words(r.last))
	if all == 0 {
		t.fail("no user who sent was cut off: nothing was measured")
	}
	if r.late+r.silent > 0 {
		t.fail("of %d users who sent, %d had their reset late and %d none", all, r.late, r.silent)
	}
}

// held tells whether a kind of request is a download that is held.
func held(kind string) bool { return strings.HasPrefix(kind, kindHeld) }

// judge counts what broke, of which kept is what should not have.
func (t *Trial) judge(faults []load.Fault, m mercy) {
	m.resets = new(resets)
	kept := 0
	for _, f := range faults {
		if !f.Outcome.Broken() {
			continue
		}
		began := f.At.Add(-time.Duration(f.After * float64(time.Millisecond)))
		excused := m.lost[f.LB7]
		if held(f.Kind) {
			t.Broken++
			if excused {
				t.Lost++
			}
			if limit := m.reset[f.Kind]; limit > 0 && excused {
				m.takeReset(f, limit)
			}
		} else {
			t.New++
			if f.LB7 == "" {
				t.NewFor = max(t.NewFor, began.Sub(m.from))
				excused = len(m.lost) > 0 && !began.After(m.from.Add(m.newFor))
			}
		}
		if !excused {
			kept++
			if len(t.Examples) < maxExamples {
				t.Examples = append(t.Examples, f)
			}
		}
	}
	m.tellResets(t)
	if t.NewFor > 0 && !m.from.IsZero() {
		t.note("new requests failed for %s", words(t.NewFor))
	}
	if kept > 0 {
		t.fail("%d flows broke that could have been kept", kept)
	}
	if !t.Instant && (t.React == nil || !t.OneWay && t.Back == nil) {
		t.fail("what was waited for did not come")
	}
}

// kindHeld begins the names of the kinds of downloads that are held.
const kindHeld = "hold"

// Comparison is the trials of this project's daemon beside those of what it
// replaces.
type Comparison struct {
	Ours Trials `json:"ours"`
	// Theirs has no events where only ours were measured.
	Theirs Trials `json:"theirs"`
}

// Kept tells whether all of our promises held.
func (c *Comparison) Kept() bool {
	return len(c.Ours.Events) > 0 && !slices.ContainsFunc(c.Ours.Events, func(t Trial) bool { return len(t.Failures) > 0 })
}

// Write prints the table, and which of our promises did not hold.
func (c *Comparison) Write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "\tBROKEN FLOWS\t\t\tTIME TO REACT, AND BACK\t\t")
	fmt.Fprintln(tw, "EVENT\tLB4D\tKEEPALIVED\tALLOWED\tLB4D\tKEEPALIVED\tVERDICT")
	for i := range c.Ours.Events {
		ours := &c.Ours.Events[i]
		broken, times := "-", "-"
		if theirs := c.theirs(ours.Name); theirs != nil {
			broken, times = theirs.broken(), theirs.times()
		}
		verdict := "kept"
		if len(ours.Failures) > 0 {
			verdict = "NOT KEPT"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", ours.Name, ours.broken(), broken, ours.Allowed, ours.times(), times, verdict)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, legend, c.Ours.Flows, c.Ours.Seed)
	for _, t := range []Trials{c.Ours, c.Theirs} {
		for _, e := range t.Events {
			for _, n := range e.Notes {
				fmt.Fprintf(w, "%s: %s: %s\n", t.Balancer, e.Name, n)
			}
		}
	}
	for _, e := range c.Ours.Events {
		for _, f := range e.Failures {
			fmt.Fprintf(w, "not kept: %s: %s\n", e.Name, f)
		}
		for _, f := range e.Examples {
			fmt.Fprintf(w, "  broken: a %s request from %v to %v, answered by %s, %s ms after its start, %s: %s\n",
				f.Kind, f.Source, f.Target, cmp.Or(f.LB7, "nobody yet"), fmt.Sprintf("%.0f", f.After), f.Outcome, f.Error)
		}
	}
	return nil
}

// legend explains the words of the table.
const legend = `
%d downloads were in flight at the start of each event; "+ N new" are requests begun during it. Seed %d.
carried: what the LB7 host carried may break, since it is gone with it. new: so long may requests begun
then fail. reset: so soon must a user who sends learn that the host is gone.

`

// theirs is the rival's trial of the same name.
func (c *Comparison) theirs(name string) *Trial {
	for i := range c.Theirs.Events {
		if c.Theirs.Events[i].Name == name {
			return &c.Theirs.Events[i]
		}
	}
	return nil
}

// broken are the broken flows: how many, and how many of them were lost with
// what carried them.
func (t *Trial) broken() string {
	s := cmp.Or(t.Found, fmt.Sprint(t.Broken))
	if t.Lost > 0 && t.Lost < t.Broken {
		s += fmt.Sprintf(" (%d carried)", t.Lost)
	}
	if t.New > 0 {
		s += fmt.Sprintf(" + %d new", t.New)
	}
	return s
}

func (t *Trial) times() string {
	if t.Instant {
		return "-"
	}
	say := func(d *time.Duration) string {
		if d == nil {
			return "never"
		}
		return words(*d)
	}
	if t.OneWay {
		return say(t.React)
	}
	return say(t.React) + ", " + say(t.Back)
}
