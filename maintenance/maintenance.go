// Package maintenance observes the maintenance file: while it exists, the host
// wants no traffic.
//
// The file is seen within milliseconds through a watch on the directories that
// lead to it (notify.go), and within a second by polling, in case an event is
// lost or none is to be had. What one look finds is in look.go.
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
	// Err is why the file could not be examined, or only its Reason not be
	// read; nil otherwise.
	Err error
}

// Watcher keeps the State of one maintenance file up to date.
type Watcher struct {
	path    string
	changed func()
	log     *slog.Logger
	senses
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	state State
}

// senses are how a Watcher perceives the file.
type senses struct {
	poll    time.Duration
	notify  *notifier
	examine func(path string) sight
}

// Watch observes the file at path until ctx ends or Close is called. The state
// is known when Watch returns, so that a host that starts under maintenance
// never takes traffic. From then on changed is called after Present, Reason or
// Err changed; it must return quickly.
//
// Neither the file nor its directory need to exist. Watch never fails: without
// inotify it says so in the log and polls, and where the file cannot be examined
// the State says so.
func Watch(ctx context.Context, path string, changed func(), log *slog.Logger) *Watcher {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	return watch(ctx, path, changed, log, senses{poll: pollEvery, notify: newNotifier(path), examine: look})
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
	}
	// The watch comes before the look, so that nothing falls between them.
	w.arm()
	w.begin()
	go w.run(ctx)
	return w
}

// State is what the last look found.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
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
	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	pace := time.NewTimer(time.Hour)
	pace.Stop()
	defer pace.Stop()
	var last time.Time // when the last look ended
	waiting := false   // a look is due when pace fires
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-w.notify.events():
			if !w.notify.concerns(event) || waiting {
				continue
			}
			waiting = true
			pace.Reset(time.Until(last.Add(lookEvery)))
			continue
		case <-w.notify.errors():
			// Events were lost, and perhaps those that told of a
			// directory replaced.
			w.notify.forget()
		case <-poll.C:
			w.notify.verify()
		case <-pace.C:
			waiting = false
		}
		w.refresh()
		last = time.Now()
	}
}

// refresh looks at the file, then at whether its directories are still those
// that are watched. The look comes first: it is what somebody waits for.
func (w *Watcher) refresh() {
	w.look()
	// A directory that came since may hold the file already, and another
	// directory. After so many rounds the next poll goes on.
	for range w.notify.depth() {
		if !w.arm() {
			return
		}
		w.look()
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
	return changed
}

// begin takes the first look.
func (w *Watcher) begin() {
	state := State{Path: w.path}.first(w.examine(w.path), time.Now())
	w.mu.Lock()
	w.state = state
	w.mu.Unlock()
	if state.Err != nil {
		w.log.Warn("maintenance file cannot be examined", "path", w.path, "present", state.Present, "err", state.Err)
	} else if state.Present {
		w.log.Info("maintenance file is present at the start", "path", w.path, "reason", state.Reason)
	}
}

// look takes one look and tells what it changed.
func (w *Watcher) look() {
	found := w.examine(w.path)
	w.mu.Lock()
	before := w.state
	after := before.next(found, time.Now())
	w.state = after
	w.mu.Unlock()

	switch {
	case after.Present && !before.Present:
		w.log.Info("maintenance file appeared", "path", w.path, "reason", after.Reason)
	case before.Present && !after.Present:
		w.log.Info("maintenance file removed", "path", w.path)
	case after.Reason != before.Reason:
		// A shell creates the file before it writes to it, so the reason
		// often follows a moment later.
		w.log.Info("maintenance file says", "path", w.path, "reason", after.Reason)
	}
	switch {
	case after.Err != nil && !sameError(before.Err, after.Err):
		w.log.Warn("maintenance file cannot be examined", "path", w.path, "present", after.Present, "err", after.Err)
	case after.Err == nil && before.Err != nil && after.Present == before.Present:
		w.log.Info("maintenance file can be examined again", "path", w.path, "present", after.Present)
	}
	if after.Present != before.Present || after.Reason != before.Reason || !sameError(before.Err, after.Err) {
		w.changed()
	}
}
