package lb7

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"lb4d/control"
	"lb4d/discovery"
	"lb4d/l7/slots"
	"lb4d/l7/store"
)

const (
	// keepEvery is how often a keeper looks although nobody has told of a
	// change.
	keepEvery = 5 * time.Second
	// storeRetry is how long a write that failed waits.
	storeRetry = time.Second
	// rollback is how long the watch must go on telling an older record than
	// the one that was written last, until it is believed: what was on its way
	// meanwhile has come by then.
	rollback = 2 * time.Second
)

// keeper keeps one slot record. Of the keepers of a record on several hosts, the
// one that has the lease asks the source and gives the slots; all of them read
// the record, and note in it which servers pass their checks.
type keeper struct {
	log      *slog.Logger
	name     string
	store    store.Store
	kind     string // the store in words
	holder   string
	lease    time.Duration
	observer *discovery.Observer
	// told is called after each change of the record, and changed after
	// anything that the status shows.
	told, changed func()

	wake chan struct{}
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex // guards what follows
	policy  slots.Policy
	source  discovery.Source
	record  slots.Record
	known   bool      // the store, or the copy of it, has told a record
	heard   bool      // the store has said something, an error included
	wroteAt time.Time // when this process last changed the record
	readErr error
	// writeErr is why the last change could not be written.
	writeErr error
	tenure   store.Tenure
	leaseErr error
	last     slots.Changes // of the last step as the holder
	passing  map[int]slots.Passing
	confirm  bool
	seen     time.Time
}

// keeperOptions are what a keeper is made of.
type keeperOptions struct {
	log      *slog.Logger
	name     string
	store    store.Store
	kind     string
	holder   string
	lease    time.Duration
	stateDir string
	policy   slots.Policy
	source   discovery.Source
	told     func()
	changed  func()
}

// startKeeper keeps a record until close.
func startKeeper(ctx context.Context, o keeperOptions) *keeper {
	ctx, cancel := context.WithCancel(ctx)
	k := &keeper{
		log: o.log.With("record", o.name), name: o.name, store: o.store, kind: o.kind, holder: o.holder, lease: o.lease,
		told: o.told, changed: o.changed, policy: o.policy, source: o.source,
		wake: make(chan struct{}, 1), stop: cancel,
		passing: map[int]slots.Passing{}, seen: time.Now(),
	}
	k.observer = discovery.New(o.log, o.stateDir, func() { k.poke(); k.changed() })
	k.done.Go(func() { store.Campaign(ctx, k.store, k.holder, k.lease, k.elected) })
	k.done.Go(func() { k.run(ctx) })
	return k
}

func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// close ends the keeper, which gives the lease up.
func (k *keeper) close() {
	k.stop()
	k.done.Wait()
	k.observer.Close()
}

// reconfigure changes how the slots are given and where the servers come from.
func (k *keeper) reconfigure(p slots.Policy, s discovery.Source) {
	k.mu.Lock()
	k.policy, k.source = p, s
	k.ask()
	k.mu.Unlock()
	k.poke()
}

// ask has the observer ask the source while the lease is held. k.mu is held.
func (k *keeper) ask() {
	if k.tenure.Held {
		k.observer.Set(map[string]discovery.Source{k.name: k.source})
	} else {
		k.observer.Set(nil)
	}
}

// elected takes note of who asks the source.
func (k *keeper) elected(t store.Tenure, err error) {
	k.mu.Lock()
	was, lastErr := k.tenure, k.leaseErr
	k.tenure, k.leaseErr = t, err
	if t.Held != was.Held {
		if !t.Held {
			k.last = slots.Changes{}
		}
		k.ask()
	}
	k.mu.Unlock()
	switch {
	case err != nil && lastErr == nil:
		k.log.Warn("lease not to be had", "err", err)
	case err == nil && lastErr != nil:
		k.log.Info("lease to be had again")
	}
	switch {
	case t.Held && !was.Held:
		k.log.Info("this host asks the source", "holder", k.holder)
	case !t.Held && was.Held:
		k.log.Info("another host may ask the source", "holder", t.Holder)
	}
	k.poke()
	k.changed()
}

// run takes what the store, the source and the workers tell until ctx ends.
func (k *keeper) run(ctx context.Context) {
	updates := k.store.Watch(ctx)
	timer := time.NewTimer(keepEvery)
	defer timer.Stop()
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return // ctx has ended
			}
			k.hear(u)
		case <-k.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		next := k.step(ctx)
		timer.Reset(max(time.Millisecond, min(keepEvery, time.Until(next))))
	}
}

// hear takes an update of the store into account.
func (k *keeper) hear(u store.Update) {
	k.mu.Lock()
	lastErr, before := k.readErr, k.record.Version
	k.heard, k.readErr = true, u.Err
	empty := u.Record.Version == 0 && len(u.Record.Slots) == 0
	older := u.Record.Version < k.record.Version && time.Since(k.wroteAt) < rollback
	fresh := !empty && !older && (u.Record.Version != k.record.Version || !u.Record.Equal(k.record))
	if fresh {
		k.record, k.known = u.Record, true
	}
	if older && u.Err == nil {
		// If it stays so, the store lost what was written; this asks again.
		time.AfterFunc(rollback, func() { k.hearAgain(u) })
	}
	k.mu.Unlock()
	switch {
	case u.Err != nil && lastErr == nil:
		k.log.Warn("slot record may be out of date", "err", u.Err, "version", before)
	case u.Err == nil && lastErr != nil:
		k.log.Info("slot record is read again", "version", u.Record.Version)
	}
	if fresh {
		k.told()
	}
	k.changed()
}

// hearAgain takes an older record in where nothing newer has come since.
func (k *keeper) hearAgain(u store.Update) {
	k.mu.Lock()
	still := time.Since(k.wroteAt) >= rollback && u.Record.Version < k.record.Version
	k.mu.Unlock()
	if still {
		k.hear(u)
	}
}

// step writes what there is to write, and returns when there is something to do
// even if nobody tells of anything.
func (k *keeper) step(ctx context.Context) time.Time {
	k.mu.Lock()
	k.seen = time.Now()
	known, policy, held, confirm := k.record, k.policy, k.tenure.Held, k.confirm
	heard, gone := k.heard, errors.Is(k.readErr, store.ErrGone)
	passing := slices.Collect(maps.Values(k.passing))
	k.mu.Unlock()
	if !heard || !held && len(passing) == 0 && !confirm {
		return time.Now().Add(keepEvery)
	}

	state, _ := k.observer.State(k.name)
	// A list from before this start is no news to those who have a record; it
	// serves where there is none at all.
	listed := !state.List.At.IsZero() && state.Err == nil && (!state.Restored || len(known.Slots) == 0)
	var list []slots.Server
	if held && listed {
		list = listOf(state.List.Servers)
	}
	var done slots.Changes // of the attempt that counts
	var passed []slots.Event
	change := func(r slots.Record) (slots.Record, bool) {
		now, write := time.Now(), held && gone
		r, p := slots.Pass(r, passing, now)
		passed, write = p.Events, write || p.Changed
		if confirm {
			var was bool
			r, was = slots.Confirm(r)
			write = write || was
		}
		switch {
		case !held:
			done = slots.Changes{}
		case listed:
			r, done = slots.Assign(r, list, now, policy)
		default:
			r, done = slots.Advance(r, now, policy)
		}
		return r, write || done.Changed
	}
	written, err := store.Change(ctx, k.store, known, change)
	if ctx.Err() != nil {
		return time.Now().Add(keepEvery)
	}
	return k.settle(written, err, listed, done, passed, passing)
}

// settle takes note of what a step has come to.
func (k *keeper) settle(written slots.Record, err error, listed bool, done slots.Changes, passed []slots.Event, noted []slots.Passing) time.Time {
	k.mu.Lock()
	lastErr, before, policy := k.writeErr, k.last, k.policy
	k.writeErr = err
	next, fresh := done.Next, false
	if err == nil {
		if written.Version != k.record.Version {
			k.record, k.known, k.wroteAt, fresh = written, true, time.Now(), true
			k.readErr = nil
		}
		for _, p := range noted {
			if k.passing[p.Slot] == p {
				delete(k.passing, p.Slot)
			}
		}
		k.confirm = false
		if !listed {
			// Only a list tells of these.
			done.Overflow, done.Waiting, done.Refused = before.Overflow, before.Waiting, before.Refused
		}
		k.last = done
	}
	k.mu.Unlock()

	switch {
	case err != nil:
		if lastErr == nil {
			k.log.Warn("slot record not written, HAProxy keeps what it has", "err", err)
			k.changed()
		}
		return time.Now().Add(storeRetry)
	case lastErr != nil:
		k.log.Info("slot record written again", "version", written.Version)
	}
	if fresh {
		k.told()
		k.logEvents(append(passed, done.Events...))
	}
	k.logAlarms(before, done, policy)
	if fresh || lastErr != nil {
		k.changed()
	}
	if next.IsZero() {
		return time.Now().Add(keepEvery)
	}
	return next
}

// logEvents tells what happened to slots, one by one as long as they are few.
func (k *keeper) logEvents(events []slots.Event) {
	const most = 20
	for i, e := range events {
		if i == most {
			k.log.Info("and more slots changed", "slots", len(events)-most)
			return
		}
		k.log.Info("slot", "slot", e.Slot, "server", e.Server, "what", e.Text)
	}
}

// logAlarms tells of what has no slot, and of lists that are held back.
func (k *keeper) logAlarms(before, now slots.Changes, policy slots.Policy) {
	switch {
	case len(now.Overflow) > 0 && !slices.Equal(before.Overflow, now.Overflow):
		k.log.Error("servers without a slot get no traffic: every slot is taken", "servers", few(now.Overflow), "slots", policy.Slots)
	case len(now.Overflow) == 0 && len(before.Overflow) > 0:
		k.log.Info("every server has a slot again")
	}
	switch {
	case now.Held != nil && before.Held == nil:
		k.log.Error("list held back, it shrank too much at once; its servers keep their slots", "servers", now.Held.Size, "missing", now.Held.Missing,
			"confirm", "lbctl confirm "+k.name, "believed_after", policy.Persist)
	case now.Held == nil && before.Held != nil:
		k.log.Info("no list is held back any more")
	}
	if len(now.Refused) > 0 && !slices.EqualFunc(before.Refused, now.Refused, func(a, b slots.Refusal) bool { return a.String() == b.String() }) {
		k.log.Warn("servers refused", "refused", len(now.Refused), "first", now.Refused[0])
	}
}

// share is the record as a back end sees it; false while none is known, or one
// without any slot.
func (k *keeper) share(f slots.Filter) ([]slots.Slot, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.record.View(f), k.known && len(k.record.Slots) > 0
}

// pass takes note of servers that pass their checks on this host.
func (k *keeper) pass(passing []slots.Passing) {
	k.mu.Lock()
	fresh := false
	for _, p := range passing {
		if p.Slot < 1 || p.Slot > len(k.record.Slots) {
			continue
		}
		s := k.record.Slots[p.Slot-1]
		if s.State != slots.Free && s.Addr == p.Addr && s.PassedAt.IsZero() && k.passing[p.Slot] != p {
			k.passing[p.Slot] = p
			fresh = true
		}
	}
	k.mu.Unlock()
	if fresh {
		k.poke()
	}
}

// confirmHeld accepts the list that is held back, and returns it.
func (k *keeper) confirmHeld() (control.HeldBack, error) {
	k.mu.Lock()
	held := k.record.Held
	if held == nil {
		k.mu.Unlock()
		return control.HeldBack{}, fmt.Errorf("no list of %s is held back", k.name)
	}
	k.confirm = true
	shown := k.heldBack()
	k.mu.Unlock()
	k.poke()
	return *shown, nil
}

// heldBack is the list that is held back, for the status. k.mu is held.
func (k *keeper) heldBack() *control.HeldBack {
	h := k.record.Held
	if h == nil {
		return nil
	}
	return &control.HeldBack{Since: h.Since, Size: h.Size, Missing: h.Missing, Until: h.Since.Add(k.policy.Persist), Confirmed: h.Confirmed}
}

// report is the record for the status, with what is wrong.
func (k *keeper) report() (r control.Record, errs []string, ready bool, seen time.Time) {
	state, _ := k.observer.State(k.name)
	k.mu.Lock()
	defer k.mu.Unlock()
	r = control.Record{
		Name: k.name, Store: k.kind, Version: k.record.Version,
		Holder: k.tenure.Holder, Held: k.tenure.Held,
		Source: k.source.String(),
		Slots:  max(k.policy.Slots, len(k.record.Slots)), Used: k.record.Occupied(),
		HeldBack: k.heldBack(),
	}
	tell := func(format string, args ...any) { errs = append(errs, k.name+": "+fmt.Sprintf(format, args...)) }
	for _, err := range []error{k.writeErr, k.readErr, k.leaseErr} {
		if err != nil && r.StoreError == "" {
			r.StoreError = oneLine(err)
			tell("store: %s", r.StoreError)
		}
	}
	if r.HeldBack != nil && !r.HeldBack.Confirmed {
		tell("a list of %d servers is held back, which lacks %d: lbctl confirm %s accepts it", r.HeldBack.Size, r.HeldBack.Missing, k.name)
	}
	if k.tenure.Held {
		r.Listed, r.At = len(state.List.Servers), state.List.At
		r.SourceError, r.FailingSince, r.Failures = oneLine(state.Err), state.FailingSince, state.Failures
		r.RefusedTotal = state.List.RefusedTotal + len(k.last.Refused)
		for _, f := range state.List.Refused {
			r.Refused = append(r.Refused, f.Entry+": "+f.Reason)
		}
		for _, f := range k.last.Refused[:min(len(k.last.Refused), 32-min(32, len(r.Refused)))] {
			r.Refused = append(r.Refused, f.String())
		}
		r.Overflow, r.Waiting = k.last.Overflow, k.last.Waiting
		if r.SourceError != "" {
			tell("source: %s", r.SourceError)
		}
		if state.SaveErr != nil {
			tell("list not kept: %s", oneLine(state.SaveErr))
		}
		if n := len(r.Overflow); n > 0 {
			tell("%s without a slot: %s", plural(n, "server"), few(r.Overflow))
		}
		if r.RefusedTotal > 0 {
			tell("%s of the list refused: %s", plural(r.RefusedTotal, "server"), r.Refused[0])
		}
	}
	return r, errs, k.heard, k.seen
}
