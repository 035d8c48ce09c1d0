package lb7

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"lb4d/control"
	"lb4d/l7"
	"lb4d/l7/runtime"
	"lb4d/l7/slots"
)

const (
	// workEvery is how often HAProxy is compared with what is wanted although
	// nobody has told of a change: it bounds how long a change made by
	// another hand stands.
	workEvery = time.Second
	// workSoon is the same while servers wait for their first passing check, or
	// the last attempt has failed.
	workSoon = 200 * time.Millisecond
)

// worker keeps one back end of HAProxy, and its include file, equal to the back
// end's share of a record.
type worker struct {
	log     *slog.Logger
	name    string
	filter  slots.Filter
	keeper  *keeper
	applier *l7.Applier
	include *l7.Include // nil: none
	changed func()

	wake chan struct{}
	stop context.CancelFunc
	done sync.WaitGroup

	mu   sync.Mutex // guards what follows
	work work
}

// work is what a worker has done.
type work struct {
	seen       time.Time // it was last at work
	tried      bool      // HAProxy and the file have had their turn
	view       []slots.Slot
	report     l7.Report // of the last success
	applied    time.Time
	err        error
	includeErr error
	sent       uint64
	failed     uint64
	repaired   uint64
}

func startWorker(ctx context.Context, w *worker) *worker {
	ctx, cancel := context.WithCancel(ctx)
	w.wake, w.stop = make(chan struct{}, 1), cancel
	w.work.seen = time.Now()
	w.done.Go(func() { w.run(ctx) })
	return w
}

func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) close() {
	w.stop()
	w.done.Wait()
}

// run works whenever there may be something to do, until ctx ends.
func (w *worker) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-w.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		again := w.pass(ctx)
		timer.Reset(again)
	}
}

// pass brings HAProxy and the include file in step with the record once. It
// returns how long to wait for the next time.
func (w *worker) pass(ctx context.Context) time.Duration {
	view, known := w.keeper.share(w.filter)
	if !known {
		// HAProxy stays as it is until it is known what it should have.
		w.mu.Lock()
		w.work.seen = time.Now()
		w.mu.Unlock()
		return workSoon
	}
	// HAProxy first: to write the file takes the disk's time, and it counts for
	// the next start only.
	report, err := w.applier.Apply(ctx, view)
	if ctx.Err() != nil {
		return workEvery
	}
	var includeErr error
	if w.include != nil {
		_, includeErr = w.include.Write(view)
	}
	if err == nil {
		w.keeper.pass(report.Passing)
	}
	w.note(view, report, err, includeErr)
	if err != nil || len(report.Problems) > 0 || len(report.Steps) > 0 || waits(view, report.Servers) {
		return workSoon
	}
	return workEvery
}

// waits tells whether a server has yet to pass its first check.
func waits(view []slots.Slot, servers map[int]runtime.Server) bool {
	return slices.ContainsFunc(view, func(s slots.Slot) bool {
		_, there := servers[s.Number]
		return there && s.State == slots.Ready && s.PassedAt.IsZero()
	})
}

// note takes down what a pass has come to, and tells what is new.
func (w *worker) note(view []slots.Slot, report l7.Report, err, includeErr error) {
	w.mu.Lock()
	before := w.work
	now := before
	now.seen, now.tried, now.view = time.Now(), true, view
	now.err, now.includeErr = err, includeErr
	now.sent += uint64(report.Sent)
	now.failed += uint64(report.Failed)
	now.repaired += uint64(report.Repaired)
	if err == nil {
		now.report, now.applied = report, now.seen
	}
	w.work = now
	w.mu.Unlock()

	same := func(a, b error) bool { return oneLine(a) == oneLine(b) }
	switch {
	case err != nil && !same(err, before.err):
		w.log.Warn("HAProxy not given its servers", "err", err)
	case err == nil && before.err != nil:
		w.log.Info("HAProxy has its servers again")
	}
	switch {
	case includeErr != nil && !same(includeErr, before.includeErr):
		w.log.Warn("include file not kept", "err", includeErr)
	case includeErr == nil && before.includeErr != nil:
		w.log.Info("include file is kept again")
	}
	if err == nil {
		if report.Sent > 0 {
			w.log.Info("HAProxy changed", "commands", report.Sent, "failed", report.Failed, "slots", len(report.Steps),
				"repaired", report.Repaired, "first", firstReason(report.Steps), "took", report.Took.Round(100*time.Microsecond))
		}
		if len(report.Problems) > 0 && !slices.Equal(report.Problems, before.report.Problems) {
			w.log.Warn("slots are not as wanted", "problems", len(report.Problems), "first", report.Problems[0])
		}
	}
	if report.Sent > 0 || !same(err, before.err) || !same(includeErr, before.includeErr) || !before.tried ||
		!slices.Equal(report.Problems, before.report.Problems) {
		w.changed()
	}
}

// firstReason is why the first of the steps was taken.
func firstReason(steps []l7.Step) string {
	if len(steps) == 0 {
		return ""
	}
	return steps[0].Server + ": " + steps[0].Reason
}

// report is the back end for the status, with what is wrong.
func (w *worker) report() (b control.Backend, errs []string, ready bool, seen time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.work
	b = control.Backend{
		Name: w.name, Record: w.keeper.name, Takes: takes(w.filter),
		Error: oneLine(k.err), Problems: k.report.Problems, Applied: k.applied, IncludeError: oneLine(k.includeErr),
		Sent: k.sent, Failed: k.failed, Repaired: k.repaired, LastMicros: k.report.Took.Microseconds(),
	}
	for _, e := range append([]string{b.Error, b.IncludeError}, b.Problems...) {
		if e != "" {
			errs = append(errs, fmt.Sprintf("%s: %s", w.name, e))
		}
	}
	for _, s := range k.view {
		if s.State == slots.Free {
			continue
		}
		shown := control.SlotServer{
			Slot: s.Number, ID: s.ID, Address: s.Addr.String(), Group: s.Group, Zone: s.Zone,
			WantedState: string(s.State), WantedWeight: s.Weight, FullWeight: s.Full,
			Since: s.Since, PassedAt: s.PassedAt, HeldByAgent: k.report.Held[s.Number],
		}
		if is, ok := k.report.Servers[s.Number]; ok && k.err == nil {
			shown.Name, shown.State, shown.Running, shown.Weight = is.Name, string(is.State), is.Running, is.Weight
		}
		b.Servers = append(b.Servers, shown)
	}
	return b, errs, k.tried, k.seen
}
