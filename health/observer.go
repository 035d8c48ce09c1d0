package health

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxProbes bounds the probes that run at the same time, and with them the
// sockets. It is enough for 2,000 silent targets at one probe a second and half
// a second of timeout; beyond that probes wait for their turn and come late,
// which is not held against the target.
const maxProbes = 1024

// Observer probes a set of targets, each at its interval, and keeps what it
// finds.
type Observer struct {
	log     *slog.Logger
	changed func()
	probe   func(context.Context, Target, Check) Answer
	fill    func(ctx context.Context, target Target, check Check, mss int) mtuAnswer // see fillTunnel

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// turns holds one token for each probe under way. Those that wait are
	// served in the order in which they came.
	turns chan struct{}
	// epoch is when the timetable begins; offset shifts it by a random part
	// of the interval, so that hosts started together do not probe together.
	epoch  time.Time
	offset float64

	mu      sync.Mutex
	closed  bool
	watched map[Target]*watch
}

// watch is one target under observation. A goroutine of its own runs its
// probes, so there are never two at a time.
type watch struct {
	target Target
	place  int // see placed; unique among the watched
	phase  phase
	cancel context.CancelFunc
	// rescheduled wakes the goroutine when the check has changed.
	rescheduled chan struct{}
	// filled is when full-size packets were last asked for; risen tells that
	// the target has come up since. Both are the goroutine's own.
	filled time.Time
	risen  bool

	// Guarded by Observer.mu.
	check  Check
	status Status
}

// New is an Observer without targets. It calls changed after a target entered
// another state, its first one included, and not for other probes; changed must
// return quickly and may be called from several goroutines.
func New(log *slog.Logger, changed func()) *Observer {
	ctx, cancel := context.WithCancel(context.Background())
	return &Observer{
		log:     log,
		changed: changed,
		probe: func(ctx context.Context, target Target, check Check) Answer {
			return probe(ctx, way(check), target, check)
		},
		fill:    fillTunnel,
		ctx:     ctx,
		cancel:  cancel,
		turns:   make(chan struct{}, maxProbes),
		epoch:   time.Now(),
		offset:  rand.Float64(),
		watched: make(map[Target]*watch),
	}
}

// Set replaces the targets and their checks in one step. A target that stays
// keeps its status and its place in time, also where its check has changed; a
// new one starts as Unknown and is probed at once; the probe of one that is gone
// is broken off. Set after Close does nothing.
func (o *Observer) Set(targets map[Target]Check) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}

	taken := make(map[int]bool, len(targets))
	for target, w := range o.watched {
		if _, stays := targets[target]; !stays {
			w.cancel()
			delete(o.watched, target)
			continue
		}
		taken[w.place] = true
	}

	var added []Target
	for target, check := range targets {
		w, stays := o.watched[target]
		if !stays {
			added = append(added, target)
		} else if !reflect.DeepEqual(w.check, check) {
			w.check = cloned(check)
			select {
			case w.rescheduled <- struct{}{}:
			default: // it is awake already and will read the latest
			}
		}
	}

	// Sorted, so that the members of a pool take places in a row.
	slices.SortFunc(added, compareTargets)
	place := 0
	for _, target := range added {
		for taken[place] {
			place++
		}
		o.start(target, cloned(targets[target]), place)
		place++
	}
}

// start puts a target under observation. o.mu is held.
func (o *Observer) start(target Target, check Check, place int) {
	ctx, cancel := context.WithCancel(o.ctx)
	w := &watch{
		target:      target,
		place:       place,
		phase:       placed(place, o.offset),
		cancel:      cancel,
		rescheduled: make(chan struct{}, 1),
		check:       check,
		status:      Status{Since: time.Now()},
	}
	o.watched[target] = w
	o.wg.Go(func() { o.run(ctx, w) })
}

// Statuses is what is known of each target of the last Set.
func (o *Observer) Statuses() map[Target]Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	statuses := make(map[Target]Status, len(o.watched))
	for target, w := range o.watched {
		statuses[target] = w.status
	}
	return statuses
}

// Close breaks off all probes and returns when none is left. What was known
// stays readable.
func (o *Observer) Close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.cancel()
	o.wg.Wait()
}

// run probes one target until ctx ends.
func (o *Observer) run(ctx context.Context, w *watch) {
	due := w.phase.first(o.now(), o.check(w).Interval)
	timer := time.NewTimer(due - o.now())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.rescheduled:
			// A shorter interval counts from now; a longer one after the
			// probe that is due already, so that no number of changes can
			// put it off for ever.
			due = min(due, w.phase.after(o.now(), o.check(w).Interval))
			timer.Reset(due - o.now())
			continue
		case <-timer.C:
		}

		select {
		case <-ctx.Done():
			return
		case o.turns <- struct{}{}:
		}
		check := o.check(w) // only now: it may have changed while waiting
		o.ask(ctx, w, check)
		<-o.turns
		if ctx.Err() != nil {
			return
		}

		due = w.phase.next(due, o.now(), o.check(w).Interval)
		timer.Reset(due - o.now())
	}
}

// ask probes a target once, and takes the answer into account unless ctx has
// ended: then the answer is ours, not the target's.
//
// Where it is time to ask for full-size packets too, that comes after the answer
// has been taken into account, which it must not hold up; or before, where the
// answer depends on it.
func (o *Observer) ask(ctx context.Context, w *watch, check Check) {
	begin := time.Now()
	answer := o.probe(ctx, w.target, check)
	fill := answer.Verdict == Pass && o.fillDue(w, check, begin)
	if fill && check.MTURequired {
		o.askMTU(ctx, w, check, answer.mss, begin)
	}
	if ctx.Err() != nil {
		return
	}
	w.risen = o.record(w, answer, check) || w.risen
	if fill && !check.MTURequired {
		o.askMTU(ctx, w, check, answer.mss, begin)
	}
}

// fillDue tells whether full-size packets should be asked for.
func (o *Observer) fillDue(w *watch, check Check, now time.Time) bool {
	if check.Through == nil {
		return false
	}
	o.mu.Lock()
	soon := w.risen || w.status.MTU == MTUFailed || w.status.MTUFailures+w.status.MTUUntold > 0
	o.mu.Unlock()
	return w.filled.IsZero() || now.Sub(w.filled) >= mtuWait(check.Interval, soon)
}

// askMTU asks a target for full-size packets, and takes the answer into account
// unless ctx has ended.
func (o *Observer) askMTU(ctx context.Context, w *watch, check Check, mss int, begin time.Time) {
	w.filled, w.risen = begin, false
	if answer := o.fill(ctx, w.target, check, mss); ctx.Err() == nil {
		o.recordMTU(w, answer, check)
	}
}

// now is the time since the epoch, by the monotonic clock.
func (o *Observer) now() time.Duration { return time.Since(o.epoch) }

func (o *Observer) check(w *watch) Check {
	o.mu.Lock()
	defer o.mu.Unlock()
	return w.check
}

// record takes an answer into account, and tells of it where the state changed.
// It returns whether the target has come up.
func (o *Observer) record(w *watch, answer Answer, check Check) (rose bool) {
	o.mu.Lock()
	before := w.status
	after := before.Next(before.withMTU(answer, check), check, time.Now())
	if check.Through == nil {
		// What was found through the tunnel says nothing of another way.
		after.MTU, after.MTUSince, after.MTUAnswer, after.MTUFailures, after.MTUUntold = 0, time.Time{}, "", 0, 0
	}
	w.status = after
	// A target that was removed while its answer came in is nobody's news.
	current := o.watched[w.target] == w
	o.mu.Unlock()
	if after.State == before.State || !current {
		return false
	}

	level := slog.LevelInfo
	if after.State == Down {
		level = slog.LevelWarn
	}
	msg := "member " + after.State.String()
	attrs := []any{
		"pool", w.target.Pool,
		"member", w.target.Member,
		"address", w.target.Where(),
		"was", before.State.String(),
		"after", short(after.Since.Sub(before.Since)),
		"answer", after.LastAnswer,
	}
	if after.State == Up && answer.Verdict == Fail {
		// An answer that failed beside the word "up" would be a riddle.
		msg, level = "member presumed up", slog.LevelWarn
		attrs = append(attrs, "why", fmt.Sprintf("the kernel sent it new flows when lb4d started; it is down after %d failed checks in a row", check.Fall))
	}
	o.log.Log(o.ctx, level, msg, attrs...)
	o.changed()
	return after.State == Up
}

// recordMTU takes an answer about full-size packets into account, and tells of
// it where their state changed, except where all is well from the beginning.
func (o *Observer) recordMTU(w *watch, answer mtuAnswer, check Check) {
	o.mu.Lock()
	before := w.status
	after := before.nextMTU(answer, check, time.Now())
	w.status = after
	current := o.watched[w.target] == w
	o.mu.Unlock()
	if after.MTU == before.MTU || !current {
		return
	}

	switch {
	case after.MTU == MTUFailed:
		o.log.Warn("member lacks room for full-size packets", "pool", w.target.Pool, "member", w.target.Member,
			"address", w.target.Where(), "answer", after.MTUAnswer)
	case before.MTU == MTUFailed:
		o.log.Info("member no longer lacks room for full-size packets", "pool", w.target.Pool, "member", w.target.Member,
			"address", w.target.Where(), "after", short(after.MTUSince.Sub(before.MTUSince)), "answer", after.MTUAnswer)
	}
	o.changed()
}

// compareTargets orders by pool, member and address.
func compareTargets(a, b Target) int {
	return cmp.Or(
		strings.Compare(a.Pool, b.Pool),
		strings.Compare(a.Member, b.Member),
		a.Addr.Compare(b.Addr))
}

// cloned shares nothing with a check that its owner may change later.
func cloned(c Check) Check {
	c.ExpectStatus = slices.Clone(c.ExpectStatus)
	c.DrainStatus = slices.Clone(c.DrainStatus)
	if c.Through != nil {
		t := *c.Through
		c.Through = &t
	}
	return c
}
