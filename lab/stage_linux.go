package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"lb4d/lab/load"
)

const (
	// waitForEvent bounds the wait for anything that a scenario waits for.
	waitForEvent = 20 * time.Second
	// stallAfter is when a user without a byte gives up, in scenarios. Less
	// would take a pause of the whole machine for a fault.
	stallAfter = 5 * time.Second
	// aftermath is how long broken requests may take to show: whatever an
	// event cut off without a word has stalled by then.
	aftermath = stallAfter + 500*time.Millisecond
	// pollEvery is how often IPVS tables are read where a scenario waits for
	// one, since there is nothing to subscribe to. It is the error of what is measured
	// so, and reading more often would slow down what is measured.
	pollEvery = 25 * time.Millisecond
)

// scenario is a story told with a lab, and what is promised in it.
type scenario struct {
	name, about string
	play        func(ctx context.Context, s *stage) error
}

var scenarios = []scenario{{
	name:  "maintenance",
	about: "disable an LB4, drain an LB7, kill a HAProxy",
	play:  playMaintenance,
}}

// Scenarios lists the names of the scenarios with what happens in each.
func Scenarios() [][2]string {
	var all [][2]string
	for _, s := range scenarios {
		all = append(all, [2]string{s.name, s.about})
	}
	return all
}

// stage is where a scenario is played.
type stage struct {
	*Lab
	out     io.Writer
	traffic *Traffic
	report  Report
	start   time.Time
}

// run plays a scenario by name, tells it to out step by step, and reports. The
// first scenario where the name is empty. Where some time was spent before, the
// steps count from its beginning. The error is about what kept it from being
// played; promises that were not kept are in the report.
func (l *Lab) run(ctx context.Context, name string, out io.Writer, elapsed time.Duration) (*Report, error) {
	sc := scenarios[0]
	if name != "" {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario is named %q; lab run -list names them", name)
		}
		sc = scenarios[i]
	}
	s := &stage{Lab: l, out: out, start: time.Now().Add(-elapsed)}
	s.report.Scenario, s.report.Started = sc.name, time.Now()
	if err := sc.play(ctx, s); err != nil {
		if s.traffic != nil {
			s.traffic.kill()
		}
		return nil, fmt.Errorf("playing %s: %w", sc.name, err)
	}
	var err error
	if s.report.Load, err = s.traffic.Stop(); err != nil {
		return nil, fmt.Errorf("playing %s: %w", sc.name, err)
	}
	s.report.judge()
	return &s.report, nil
}

// tell writes one step.
func (s *stage) tell(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.2fs  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

// startTraffic starts users' requests and returns when they are served by all
// servers and the slow ones are all in flight.
func (s *stage) startTraffic(ctx context.Context, slow int, takes time.Duration, rate float64) error {
	var err error
	s.traffic, err = s.StartLoad(ctx, load.Options{
		Kinds:        []load.Kind{load.Quick(rate), load.Slow(slow, takes)},
		StallTimeout: stallAfter,
	})
	if err != nil {
		return err
	}
	e := Event{Name: "requests through all tiers", From: time.Now(), instant: true}
	ctx, cancel := context.WithTimeout(ctx, takes+waitForEvent)
	defer cancel()
	err = s.traffic.Wait(ctx, func(r load.Result) bool {
		quick := r.Kind("quick")
		return len(quick.Servers) == s.Topology.Sizes.Servers && len(quick.LB7) == s.Topology.Sizes.LB7 &&
			r.Kind("slow").InFlight == slow
	})
	if err != nil {
		r := s.traffic.Snapshot()
		return fmt.Errorf("%w; so far %v by %v and %v, and %d slow downloads in flight", err,
			r.Kind("quick").Outcomes, r.Kind("quick").LB7, r.Kind("quick").Servers, r.Kind("slow").InFlight)
	}
	e.To = time.Now()
	s.report.Events = append(s.report.Events, e)
	quick := s.traffic.Snapshot().Kind("quick")
	s.tell("users' requests pass all tiers: answered by LB7s %v and servers %v; %d slow downloads in flight",
		counts(quick.LB7), counts(quick.Servers), slow)
	return nil
}

// counts writes how often each was seen, by name.
func counts(m map[string]int) string {
	var words []string
	for name, n := range m {
		words = append(words, fmt.Sprintf("%s:%d", name, n))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// deed is one half of an event: something done, and what must come of it.
type deed struct {
	told string // what is done
	do   func() error
	// seen returns when what must come of it has come, and when that was.
	seen func(ctx context.Context) (time.Time, error)
	came string // what has come of it
}

// event does something, measures the reaction, undoes it and measures again.
// Requests that break from the start until an aftermath after the end are its.
func (s *stage) event(ctx context.Context, e Event, do, undo deed) error {
	e.From = time.Now()
	for {
		a := Attempt{From: time.Now()}
		var err error
		if a.React, err = s.perform(ctx, do); err != nil {
			return err
		}
		if a.Back, err = s.perform(ctx, undo); err != nil {
			return err
		}
		e.Attempts = append(e.Attempts, a)
		if e.settled() {
			break
		}
		if len(e.Attempts) == 1 {
			s.tell("later than promised; twice more, for the median")
		}
	}
	e.To = time.Now()
	s.report.Events = append(s.report.Events, e)
	return nil
}

// perform returns how long the deed took to show, nil where it did not, and
// leaves what it broke the time to show as well.
func (s *stage) perform(ctx context.Context, d deed) (took *time.Duration, err error) {
	if took, err = s.carryOut(ctx, d); err != nil {
		return nil, err
	}
	return took, pause(ctx, aftermath)
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// carryOut returns how long the deed took to show, nil where it did not.
func (s *stage) carryOut(ctx context.Context, d deed) (took *time.Duration, err error) {
	s.tell("%s", d.told)
	start := time.Now()
	if err := d.do(); err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, waitForEvent)
	defer cancel()
	at, err := d.seen(wait)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		s.tell("not %s after %s", d.came, words(waitForEvent))
	case err != nil:
		return nil, err
	default:
		// What was so before it was done came at once.
		after := max(0, at.Sub(start))
		took = &after
		s.tell("%s after %s", d.came, words(after))
	}
	return took, nil
}

// scenario serves the request to run one.
func (l *Lab) scenario(ctx context.Context, ses *session) (int, error) {
	name := ""
	if len(ses.Args) > 0 {
		name = ses.Args[0]
	}
	told := ses.out
	if ses.JSON {
		told = ses.err
	}
	r, err := l.run(ctx, name, told, ses.Elapsed)
	if err != nil {
		return 1, err
	}
	if ses.JSON {
		enc := json.NewEncoder(ses.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		fmt.Fprintln(ses.out)
		err = r.write(ses.out)
	}
	if err == nil && !r.Kept {
		return 1, nil
	}
	return 0, err
}
