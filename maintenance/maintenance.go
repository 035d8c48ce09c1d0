// Package maintenance observes the maintenance files: while that of the host
// exists, it wants no traffic, and while one of a service does, that service does
// not. It also writes and removes them.
//
// A file is seen within milliseconds through a watch on the directories that
// lead to it (notify.go), and within a second by polling, in case an event is
// lost or none is to be had. What one look finds is in look.go, what a file says
// in note.go, and what becomes of a file from look to look in entry.go.
package maintenance

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"
)

const (
	// pollEvery is how long the file can stand unseen where no event tells
	// of it.
	pollEvery = time.Second
	// lookEvery bounds how often events alone cause a look. The first of a
	// burst is followed at once, the rest are merged.
	lookEvery = 5 * time.Millisecond
)

// State is what is known of the maintenance file.
type State struct {
	// Path is the file that is watched, as an absolute path.
	Path string
	// Present tells that the file exists: anything of that name counts, a
	// directory, a pipe and a dangling link too, because somebody put it
	// there and cannot be asked.
	//
	// Where the file system does not say whether the file exists, because
	// permission is denied or the disk fails, the last known state stands.
	// The fault is no wish of anybody's, and it may come to all hosts at
	// once, with one wrong chmod; if each of them withdrew, the fault would
	// be an outage. Only at the start, with nothing known, it counts as
	// present: a host does not begin to take traffic before it can hear that
	// it should not.
	Present bool
	// Since is when Present was first seen by this process as it is now.
	Since time.Time
	// Reason is the first line of the file, cut to 200 bytes and without
	// control characters; empty for a bare touch.
	Reason string
	// Until is when the file ceases to count, and By who wrote it, as far as it
	// says so.
	Until time.Time
	By    string
	// HeldUntil is until when a file that has gone counts as there, because it
	// came and went before; zero: it does not.
	HeldUntil time.Time
	// Err is why the file could not be examined, or not all that it says be
	// read; nil otherwise.
	Err error

	// Services are the files of services that are present, by the name of the
	// service; nil: there are none. They lie in the directory that has the
	// path of the host's file with ".d" after it. The map is replaced and
	// never changed, and its States have no Services of their own.
	Services map[string]State
	// ServicesErr is why that directory could not be read, or not all of it.
	// Blind tells that it never could: then each service might be meant.
	ServicesErr error
	Blind       bool
}

// ServicePath is the file of a service, where path is that of the host.
func ServicePath(path, service string) string { return filepath.Join(path+servicesSuffix, service) }

// Watcher keeps the State of the maintenance files up to date.
type Watcher struct {
	path    string
	changed func()
	log     *slog.Logger
	senses
	cancel context.CancelFunc
	done   chan struct{}
	// asked are those who want a look at once; each channel is closed after it.
	asked chan chan struct{}

	// What follows belongs to run's goroutine.
	host     *entry
	services *directory

	mu    sync.Mutex
	state State
}

// senses are how a Watcher perceives the files.
type senses struct {
	poll    time.Duration
	notify  *notifier
	examine func(path string) sight
	// within watches the directory of the services' files; nil: there is none.
	within *notifier
	// patient does not take a file for gone that comes and goes.
	patient bool
}

// Watch observes the file at path, and those of services, until ctx ends or
// Close is called. The state is known when Watch returns, so that a host that
// starts under maintenance never takes traffic. From then on changed is called
// after what the files say has changed; it must return quickly.
//
// Neither the files nor their directories need to exist. Watch never fails:
// without inotify it says so in the log and polls, and where a file cannot be
// examined the State says so.
func Watch(ctx context.Context, path string, changed func(), log *slog.Logger) *Watcher {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	return watch(ctx, path, changed, log, senses{
		poll: pollEvery, notify: newNotifier(path), examine: look,
		within: newDirectoryNotifier(path + servicesSuffix), patient: true,
	})
}

// watch is Watch for an absolute path, with senses to choose.
func watch(ctx context.Context, path string, changed func(), log *slog.Logger, with senses) *Watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &Watcher{
		path:    path,
		changed: changed,
		log:     log,
		senses:  with,
		cancel:  cancel,
		done:    make(chan struct{}),
		asked:   make(chan chan struct{}),
		host:    &entry{state: State{Path: path}, patient: with.patient, log: log},
	}
	if with.within != nil {
		w.services = &directory{path: path + servicesSuffix, examine: with.examine, patient: with.patient, log: log}
	}
	// The watch comes before the look, so that nothing falls between them.
	w.arm()
	now := time.Now()
	w.host.begin(w.examine(w.path), now)
	if w.services != nil {
		w.services.look(now, false)
	}
	w.publish()
	go w.run(ctx)
	return w
}

// State is what the last look found.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Refresh looks at once, and returns when State has what it found. What is gone
// is gone then, also where it came and went before: an operator has asked.
func (w *Watcher) Refresh() {
	looked := make(chan struct{})
	select {
	case w.asked <- looked:
		<-looked
	case <-w.done:
	}
}

// Close ends the observation and returns when it has ended. State keeps what
// was known.
func (w *Watcher) Close() {
	w.cancel()
	<-w.done
}

// run looks after each event and each poll until ctx ends.
func (w *Watcher) run(ctx context.Context) {
	defer close(w.done)
	defer w.notify.close()
	defer w.within.close()
	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	pace := time.NewTimer(time.Hour)
	pace.Stop()
	defer pace.Stop()
	held := time.NewTimer(time.Hour)
	held.Stop()
	defer held.Stop()
	var last time.Time // when the last look ended
	waiting := false   // a look is due when pace fires
	soon := func() {
		if !waiting {
			waiting = true
			pace.Reset(time.Until(last.Add(lookEvery)))
		}
	}
	for {
		var looked chan struct{}
		select {
		case <-ctx.Done():
			return
		case event := <-w.notify.events():
			if w.notify.concerns(event) {
				soon()
			}
			continue
		case event := <-w.within.events():
			if w.within.concerns(event) {
				soon()
			}
			continue
		case <-w.notify.errors():
			// Events were lost, and perhaps those that told of a
			// directory replaced.
			w.notify.forget()
		case <-w.within.errors():
			w.within.forget()
		case looked = <-w.asked:
		case <-poll.C:
			w.notify.verify()
			w.within.verify()
		case <-held.C:
		case <-pace.C:
			waiting = false
		}
		w.refresh(looked != nil)
		last = time.Now()
		if until := w.heldUntil(); !until.IsZero() {
			held.Reset(time.Until(until))
		}
		if looked != nil {
			close(looked)
		}
	}
}

// refresh looks at the files, then at whether their directories are still those
// that are watched. The look comes first: it is what somebody waits for.
func (w *Watcher) refresh(asked bool) {
	w.look(asked)
	// A directory that came since may hold the file already, and another
	// directory. After so many rounds the next poll goes on.
	for range w.notify.depth() + w.within.depth() {
		if !w.arm() {
			return
		}
		w.look(asked)
	}
}

// arm watches what there is to watch, tells where that is not possible, and
// reports whether it found directories not watched before.
func (w *Watcher) arm() (changed bool) {
	before := w.notify.fault
	changed = w.notify.arm()
	switch after := w.notify.fault; {
	case after != nil && (before == nil || before.Error() != after.Error()):
		w.log.Warn("maintenance file is only polled", "path", w.path, "every", w.poll, "err", after)
	case after == nil && before != nil:
		w.log.Info("maintenance file is watched again", "path", w.path)
	}
	// What keeps this one from watching keeps the other one too, as they have
	// all their directories but one in common.
	return w.within.arm() || changed
}

// look takes one look at everything and tells what it changed.
func (w *Watcher) look(asked bool) {
	now := time.Now()
	found := w.examine(w.path)
	if found.blank() && !w.host.state.Present {
		time.Sleep(content)
		found = w.examine(w.path)
	}
	changed := w.host.look(found, now, asked)
	if w.services != nil {
		changed = w.services.look(now, asked) || changed
	}
	w.publish()
	if changed {
		w.changed()
	}
}

// publish makes what is known the State.
func (w *Watcher) publish() {
	state := w.host.state
	if w.services != nil {
		state.Services, state.ServicesErr, state.Blind = w.services.present(), w.services.err, w.services.blind
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
}

// heldUntil is when the first of the files that are held is no longer; zero:
// none is.
func (w *Watcher) heldUntil() time.Time {
	first := w.host.state.HeldUntil
	if w.services != nil {
		for _, e := range w.services.files {
			if until := e.state.HeldUntil; !until.IsZero() && (first.IsZero() || until.Before(first)) {
				first = until
			}
		}
	}
	return first
}
