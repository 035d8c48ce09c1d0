package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"lb4d/lab/load"
)

const (
	// newRate is how many new requests start a second beside the downloads.
	newRate = 20
	// holdRamp spreads the starts of the downloads.
	holdRamp = 2 * time.Second
	// between is the time from one half of an event to the other.
	between = 3 * time.Second
	// trialPurge is purge_after in trials: long enough to be told from fall x
	// interval, short enough to wait for.
	trialPurge = 5 * time.Second
)

// bout is a balancer being put through trials.
type bout struct {
	*stage
	flows int
	// noise is what a busy machine may add to the times that are promised.
	noise time.Duration
	// stall is when a user without a byte gives up, where an event has no
	// time of its own.
	stall  time.Duration
	rng    *rand.Rand
	trials Trials
}

// newBout starts with all LB7 hosts but the last in the pool, so that one can
// be added: see [TrialPool].
func (l *Lab) newBout(out io.Writer, flows int, seed uint64) *bout {
	return &bout{
		stage:  &stage{Lab: l, out: out, start: time.Now()},
		flows:  flows,
		stall:  stallAfter,
		rng:    rand.New(rand.NewPCG(seed, 0)),
		trials: Trials{Balancer: l.Topology.Balancer, Started: time.Now(), Flows: flows, Seed: seed},
	}
}

// TrialPool is what the LB4 hosts must be told when a lab for trials comes up:
// all LB7 hosts but the last.
func TrialPool(s Sizes) Pool {
	pool := Pool{PurgeAfter: trialPurge}
	for i := range s.LB7 - 1 {
		pool.Members = append(pool.Members, fmt.Sprintf("LB7-%d", i+1))
	}
	return pool
}

// act is one event to be played.
type act struct {
	trial Trial // its name and what is allowed
	// kinds are the downloads; all the same where nil.
	kinds []load.Kind
	// stall is when a user without a byte gives up; the bout's where 0.
	stall time.Duration
	// prepare is done before any of that.
	prepare func() error
	// quiet leaves out the new requests.
	quiet bool
	// play does it, and tells what it may break.
	play func(ctx context.Context, t *Trial) (mercy, error)
}

// maxFreeze is how late the lab's own clock may be. Users give up after a few
// seconds without a byte, whatever kept it from them.
const maxFreeze = time.Second

// try plays an event, and again where promises were not kept while the whole
// machine stood still: then nothing was measured.
func (b *bout) try(ctx context.Context, a act) error {
	for attempt := 1; ; attempt++ {
		ends := watchClock()
		err := b.measure(ctx, a)
		late := ends()
		if err != nil {
			return err
		}
		last := len(b.trials.Events) - 1
		if late <= maxFreeze || len(b.trials.Events[last].Failures) == 0 {
			return nil
		}
		b.tell("the machine stood still for %s", words(late))
		if attempt == maxAttempts || a.trial.Name == addedName {
			b.trials.Events[last].note("the machine stood still for %s meanwhile", words(late))
			return nil
		}
		b.trials.Events = b.trials.Events[:last]
	}
}

// watchClock looks at the clock all the time until ends is called, which returns
// by how much it was late at most.
func watchClock() (ends func() time.Duration) {
	const every = 50 * time.Millisecond
	stop, result := make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		last, most := time.Now(), time.Duration(0)
		for {
			select {
			case <-tick.C:
			case <-stop:
				result <- most
				return
			}
			now := time.Now()
			most, last = max(most, now.Sub(last)-every), now
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-result
	}
}

// measure plays an event with downloads in flight from as many addresses, and
// judges what became of them.
func (b *bout) measure(ctx context.Context, a act) error {
	t := a.trial
	b.tell("== %s", t.Name)
	kinds := a.kinds
	if kinds == nil {
		kinds = []load.Kind{load.Hold(b.flows, holdRamp)}
	}
	if a.stall == 0 {
		a.stall = b.stall
	}
	if !a.quiet {
		kinds = append(kinds, load.Quick(newRate))
	}
	if a.prepare != nil {
		if err := a.prepare(); err != nil {
			return err
		}
	}
	if err := b.hold(ctx, load.Options{Kinds: kinds, StallTimeout: a.stall}); err != nil {
		return err
	}
	m, err := a.play(ctx, &t)
	if err == nil {
		// What was lost for long has stalled by then; this is for what the
		// last deed broke.
		err = pause(ctx, min(a.stall, b.stall)+500*time.Millisecond)
	}
	if err != nil {
		b.traffic.kill()
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	r, err := b.traffic.Stop()
	if err != nil {
		return err
	}
	t.judge(r.Faults, m)
	b.tell("broken: %s", t.broken())
	for _, f := range t.Examples {
		b.tell("  for one, %v to %v, answered by %q, %s: %s", f.Source, f.Target, f.LB7, f.Outcome, f.Error)
	}
	b.trials.Events = append(b.trials.Events, t)
	return nil
}

// hold starts the load and returns when all downloads are in flight. One that
// breaks before is not replaced, so then all begin anew, when all is well.
func (b *bout) hold(ctx context.Context, o load.Options) error {
	for attempt := 1; ; attempt++ {
		if err := b.well(ctx); err != nil {
			return err
		}
		var err error
		if b.traffic, err = b.StartLoad(ctx, o); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, holdRamp+waitForEvent/2)
		err = b.traffic.Wait(wait, func(r load.Result) bool { return total(carried(r)) == b.flows })
		cancel()
		inFlight := counts(carried(b.traffic.Snapshot()))
		if err == nil {
			b.tell("downloads in flight: %s", inFlight)
			return nil
		}
		b.traffic.kill()
		if attempt == maxAttempts || ctx.Err() != nil {
			return fmt.Errorf("%w; so far %s in flight", err, inFlight)
		}
		b.tell("not all %d downloads came in flight, only %s; again", b.flows, inFlight)
	}
}

// well waits until every VIP is in every router's table through every LB4 host,
// and every LB7 host that takes part in every LB4's IPVS.
func (b *bout) well(ctx context.Context) error {
	err := b.settle(ctx)
	if err != nil && b.Topology.Balancer != LB4D && ctx.Err() == nil {
		// An event that it did not survive must not decide about the next. lb4d
		// has no such help.
		b.tell("not well again by itself: all of it is restarted")
		for _, h := range b.Topology.ByRole(RoleLB4) {
			for _, name := range b.Topology.balancers() {
				if err := b.Restart(h.Name, name); err != nil {
					return err
				}
			}
		}
		err = b.settle(ctx)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, waitForEvent)
	defer cancel()
	for _, h := range b.Topology.ByRole(RoleLB7) {
		if len(b.trials.Events) == 0 && h == b.Topology.last() {
			continue // It has not been added yet.
		}
		if _, err := b.weights(h, func(w int) bool { return w > 0 })(ctx); err != nil {
			return err
		}
	}
	return nil
}

// carried counts the downloads in flight whose answer has begun, by LB7 host.
func carried(r load.Result) map[string]int {
	all := make(map[string]int)
	for _, k := range r.Kinds {
		if held(k.Name) {
			for lb7, n := range k.Carried {
				all[lb7] += n
			}
		}
	}
	return all
}

func total(m map[string]int) int {
	n := 0
	for v := range maps.Values(m) {
		n += v
	}
	return n
}

// do carries a deed out, and its time is how long that took to show.
func (b *bout) do(ctx context.Context, took **time.Duration, d deed) error {
	t, err := b.carryOut(ctx, d)
	*took = t
	return err
}

// doAndUndo carries out two deeds with a while between them.
func (b *bout) doAndUndo(ctx context.Context, t *Trial, do, undo deed) error {
	return errors.Join(b.do(ctx, &t.React, do), pause(ctx, between), b.do(ctx, &t.Back, undo))
}

// try puts the lab's balancer through all trials, or those named.
func (l *Lab) try(ctx context.Context, out io.Writer, flows int, seed uint64, only []string, elapsed time.Duration) (*Trials, error) {
	b := l.newBout(out, flows, seed)
	b.start = b.start.Add(-elapsed)
	all := b.acts()
	// The host that waits to be added is needed by all that follow.
	if len(only) > 0 && !slices.Contains(only, addedName) {
		if err := b.addLast(ctx); err != nil {
			return nil, err
		}
	}
	for _, a := range all {
		if len(only) > 0 && !slices.Contains(only, a.trial.Name) {
			continue
		}
		if err := b.try(ctx, a); ctx.Err() != nil {
			return nil, err
		} else if err != nil {
			// The others are told of all the same.
			b.tell("%v", err)
			t := a.trial
			t.Found = "not played"
			t.fail("it could not be played: %v", err)
			b.trials.Events = append(b.trials.Events, t)
		}
	}
	return &b.trials, nil
}

// trial serves the request for trials. What happens is told on the error
// stream, the [Trials] are the output, as JSON.
func (l *Lab) trial(ctx context.Context, ses *session) (int, error) {
	req := ses.Try
	if req == nil || req.Flows < 1 || req.Flows > l.Topology.Sizes.Users {
		return 2, fmt.Errorf("trials need 1 to %d downloads", l.Topology.Sizes.Users)
	}
	trials, err := l.try(ctx, ses.err, req.Flows, req.Seed, req.Only, ses.Elapsed)
	if err != nil {
		return 1, err
	}
	if err := json.NewEncoder(ses.out).Encode(trials); err != nil {
		return 1, fmt.Errorf("telling of the trials: %w", err)
	}
	return 0, nil
}
