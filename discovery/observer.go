package discovery

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"
)

// saveEvery is how far the time in the state directory may be behind where the
// source confirms a list and does not change it. After a restart the age of the
// list is wrong by at most as much.
const saveEvery = time.Minute

// Observer runs the sources of a set of back ends and keeps what they gave.
type Observer struct {
	log     *slog.Logger
	dir     string
	changed func()

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	saver  *saver

	mu      sync.Mutex
	closed  bool
	watched map[string]*watch
	// left is what was known of back ends that are watched no more, in case
	// they come back.
	left map[string]List
}

// watch is one back end under observation.
type watch struct {
	source Source
	cancel context.CancelFunc
	// Guarded by Observer.mu.
	state State
	// savedAt is the At of the list last handed to the saver.
	savedAt time.Time
}

// New is an Observer without back ends. It keeps lists in stateDir, which
// exists; empty: it keeps none. It calls changed after the servers or refusals
// of a back end changed, after its source first answered, and after it began or
// ceased to fail; not when a list was only confirmed. changed must return
// quickly and may be called from several goroutines.
func New(log *slog.Logger, stateDir string, changed func()) *Observer {
	ctx, cancel := context.WithCancel(context.Background())
	o := &Observer{
		log:     log,
		dir:     stateDir,
		changed: changed,
		ctx:     ctx,
		cancel:  cancel,
		watched: make(map[string]*watch),
		left:    make(map[string]List),
	}
	o.saver = newSaver(o.saved)
	return o
}

// Set replaces the sources, by back end, in one step. One that is equal to the
// one before goes on undisturbed. A back end whose source is another keeps its
// list until the new source has given one. A new back end has, when Set returns,
// the list that was kept for it, if any. Set after Close does nothing.
func (o *Observer) Set(sources map[string]Source) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	for backend, w := range o.watched {
		if source, stays := sources[backend]; stays && reflect.DeepEqual(w.source, source) {
			continue
		}
		w.cancel()
		delete(o.watched, backend)
		o.left[backend] = w.state.List
	}
	for backend, source := range sources {
		if _, stays := o.watched[backend]; !stays {
			o.start(backend, source)
		}
	}
}

// start puts a back end under observation. o.mu is held.
func (o *Observer) start(backend string, source Source) {
	list, known := o.left[backend]
	delete(o.left, backend)
	if !known && o.dir != "" {
		var err error
		if list, err = restore(keptPath(o.dir, backend)); err != nil {
			o.log.Warn("no server list to begin with", "backend", backend, "err", err)
		}
	}
	ctx, cancel := context.WithCancel(o.ctx)
	w := &watch{
		source: source,
		cancel: cancel,
		state: State{
			Source:   source.String(),
			List:     list,
			Restored: !list.At.IsZero(),
		},
		savedAt: list.At,
	}
	o.watched[backend] = w
	o.wg.Go(func() {
		source.Run(ctx, func(entries []Entry, err error) {
			if ctx.Err() == nil { // otherwise the failure is ours
				o.record(backend, w, entries, err)
			}
		})
	})
}

// State is what is known of one back end, and false where Set did not name it.
// The caller does not write to it.
func (o *Observer) State(backend string) (State, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w, known := o.watched[backend]; known {
		return w.state, true
	}
	return State{}, false
}

// States is what is known of each back end of the last Set.
func (o *Observer) States() map[string]State {
	o.mu.Lock()
	defer o.mu.Unlock()
	states := make(map[string]State, len(o.watched))
	for backend, w := range o.watched {
		states[backend] = w.state
	}
	return states
}

// Close ends the sources, writes what is not in the state directory yet, and
// returns when all that is done. What was known stays readable.
func (o *Observer) Close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.cancel()
	o.wg.Wait()
	o.saver.close()
}

// record takes what a source told into account.
func (o *Observer) record(backend string, w *watch, entries []Entry, err error) {
	var servers []Server
	var refused []Refusal
	if err == nil && len(entries) > MaxServers {
		err = tooMany(len(entries))
	} else if err == nil {
		// Nobody else changes the list of a source that still runs.
		o.mu.Lock()
		former := w.state.List.Servers
		o.mu.Unlock()
		servers, refused = sift(entries, former)
	}

	o.mu.Lock()
	if o.watched[backend] != w {
		o.mu.Unlock() // its source has been replaced since
		return
	}
	before := w.state
	after := before
	if err != nil {
		after.fail(tidied(err))
	} else {
		after.answer(servers, refused)
	}
	w.state = after
	moved := !slices.Equal(before.List.Servers, after.List.Servers) || before.List.Source != after.List.Source
	if err == nil && o.dir != "" && (moved || after.List.At.Sub(w.savedAt) >= saveEvery) {
		w.savedAt = after.List.At
		o.saver.keep(keptPath(o.dir, backend), backend, after.List)
	}
	o.mu.Unlock()

	if told(before, after) {
		o.tell(backend, before, after)
		o.changed()
	}
}

// fail takes a failed attempt into account. The list stays.
func (s *State) fail(err error) {
	s.Failures++
	s.Err = err
	if s.FailingSince.IsZero() {
		s.FailingSince = time.Now()
	}
}

// answer takes a list into account.
func (s *State) answer(servers []Server, refused []Refusal) {
	s.Answers++
	s.Err = nil
	s.FailingSince = time.Time{}
	s.Restored = false
	s.List = List{
		Servers:      servers,
		At:           time.Now(),
		Source:       s.Source,
		Refused:      slices.Clone(refused[:min(len(refused), maxRefused)]),
		RefusedTotal: len(refused),
	}
}

// told tells whether the difference is worth a word.
func told(before, after State) bool {
	return (before.Err == nil) != (after.Err == nil) ||
		before.Restored != after.Restored ||
		before.List.At.IsZero() != after.List.At.IsZero() ||
		!sameList(before.List, after.List)
}

// sameList tells whether two lists say the same, at whatever time.
func sameList(a, b List) bool {
	return slices.Equal(a.Servers, b.Servers) &&
		slices.Equal(a.Refused, b.Refused) &&
		a.RefusedTotal == b.RefusedTotal
}

// tell logs what is different.
func (o *Observer) tell(backend string, before, after State) {
	log := o.log.With("backend", backend, "source", after.Source)
	switch {
	case before.Err == nil && after.Err != nil && after.List.At.IsZero():
		log.Warn("source fails, and no server list is known", "err", after.Err)
	case before.Err == nil && after.Err != nil:
		log.Warn("source fails, the last server list stays", "err", after.Err,
			"servers", len(after.List.Servers), "age", after.Age().Round(time.Second))
	case before.Err != nil && after.Err == nil:
		log.Info("source answers again", "after", time.Since(before.FailingSince).Round(time.Millisecond))
	}
	if after.Err != nil {
		return
	}
	if before.List.At.IsZero() || !slices.Equal(before.List.Servers, after.List.Servers) {
		added, removed, altered := difference(before.List.Servers, after.List.Servers)
		log.Info("server list", "servers", len(after.List.Servers),
			"added", added, "removed", removed, "altered", altered)
	}
	if list := after.List; list.RefusedTotal > 0 &&
		(list.RefusedTotal != before.List.RefusedTotal || !slices.Equal(list.Refused, before.List.Refused)) {
		log.Warn("entries refused", "refused", list.RefusedTotal,
			"first", list.Refused[0].Entry, "reason", list.Refused[0].Reason)
	}
}

// difference counts, by name, what is different between two lists.
func difference(before, after []Server) (added, removed, altered int) {
	former := make(map[string]Server, len(before))
	for _, s := range before {
		former[s.Name] = s
	}
	for _, s := range after {
		switch was, known := former[s.Name]; {
		case !known:
			added++
		case was != s:
			altered++
		}
		delete(former, s.Name)
	}
	return added, len(former), altered
}

// saved takes into account whether a list could be kept.
func (o *Observer) saved(backend string, err error) {
	o.mu.Lock()
	w, known := o.watched[backend]
	if !known {
		o.mu.Unlock()
		return
	}
	before := w.state.SaveErr
	w.state.SaveErr = err
	o.mu.Unlock()
	switch {
	case before == nil && err != nil:
		o.log.Warn("server list is not kept across a restart", "backend", backend, "err", err)
	case before != nil && err == nil:
		o.log.Info("server list is kept again", "backend", backend)
	}
}
