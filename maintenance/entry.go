package maintenance

import (
	"log/slog"
	"os"
	"time"
)

const (
	// content is how long an empty file that has just appeared may take to get
	// its content: a shell creates the file before it writes to it. So the
	// reason is there when the first route changes.
	content = 15 * time.Millisecond
	// sayEvery bounds how often a reason that keeps changing is logged.
	sayEvery = time.Second
)

// entry is one maintenance file as it was last seen: that of the host, or one of
// a service.
type entry struct {
	state State
	hold  hold
	// patient lets hold decide when a file that went counts as gone.
	patient bool
	log     *slog.Logger
	said    string // the reason that was logged last
	saidAt  time.Time
	told    bool // that the file comes and goes
	expired bool // that it has expired
}

// begin takes in the first look.
func (e *entry) begin(found sight, now time.Time) {
	found = e.unexpired(found, now)
	e.state = e.state.first(found, now)
	e.said = e.state.Reason
	if e.state.Err != nil {
		e.log.Warn("maintenance file cannot be examined", "path", e.state.Path, "present", e.state.Present, "err", e.state.Err)
	} else if e.state.Present {
		e.log.Info("maintenance file is present at the start", e.words()...)
	}
}

// look takes in what a later look has found, and tells whether anything has
// changed that anybody acts on. An operator who has asked for it by name is not
// made to wait.
func (e *entry) look(found sight, now time.Time, asked bool) (changed bool) {
	found = e.unexpired(found, now)
	before := e.state
	after := before.next(found, now)
	after.HeldUntil = time.Time{}
	if found.present {
		e.hold.there()
	}
	if before.Present && !after.Present && e.patient && !asked && !found.expired {
		if until := e.hold.gone(now); now.Before(until) {
			err := after.Err
			after = before
			after.Err, after.HeldUntil = err, until
			if e.hold.flapping() && !e.told {
				e.told = true
				e.log.Warn("maintenance file comes and goes; it counts as there until it stays away",
					"path", e.state.Path, "for", e.hold.wait(), "at_most", maxAway)
			}
		}
	}
	e.state = after

	switch {
	case after.Present && !before.Present:
		e.log.Info("maintenance file appeared", e.words()...)
		e.said = after.Reason
	case before.Present && !after.Present:
		if !found.expired {
			e.log.Info("maintenance file removed", "path", after.Path)
		}
		e.told, e.said = false, ""
	case after.Present && after.Reason != e.said && now.Sub(e.saidAt) >= sayEvery:
		e.log.Info("maintenance file says", e.words()...)
		e.said, e.saidAt = after.Reason, now
	}
	switch {
	case after.Err != nil && !sameError(before.Err, after.Err):
		e.log.Warn("maintenance file cannot be examined", "path", after.Path, "present", after.Present, "err", after.Err)
	case after.Err == nil && before.Err != nil && after.Present == before.Present:
		e.log.Info("maintenance file can be examined again", "path", after.Path, "present", after.Present)
	}
	return after.Present != before.Present || after.Reason != before.Reason || after.By != before.By ||
		!after.Until.Equal(before.Until) || !sameError(before.Err, after.Err)
}

// words are what the file says, for the log.
func (e *entry) words() []any {
	words := []any{"path", e.state.Path, "reason", e.state.Reason}
	if e.state.By != "" {
		words = append(words, "by", e.state.By)
	}
	if !e.state.Until.IsZero() {
		words = append(words, "until", e.state.Until.UTC().Format(time.RFC3339))
	}
	return words
}

// unexpired has a file that has expired count as absent, and takes it away
// where that is allowed. What cannot be taken away is told once.
func (e *entry) unexpired(found sight, now time.Time) sight {
	if !found.present || found.until.IsZero() || now.Before(found.until) {
		e.expired = e.expired && found.present && !found.until.IsZero()
		return found
	}
	removed, err := removeSame(e.state.Path, found)
	if !e.expired {
		words := []any{"path", e.state.Path, "reason", found.reason, "until", found.until.UTC().Format(time.RFC3339), "removed", removed}
		if err != nil {
			words = append(words, "err", err)
		}
		e.log.Info("maintenance file has expired", words...)
	}
	e.expired = !removed
	return sight{expired: true}
}

// removeSame removes the file at path if it is still the one that was read.
func removeSame(path string, found sight) (removed bool, err error) {
	now, err := os.Stat(path)
	if err != nil || found.info == nil || !os.SameFile(now, found.info) ||
		now.Size() != found.info.Size() || !now.ModTime().Equal(found.info.ModTime()) {
		return false, nil // somebody has just changed it: the next look tells
	}
	return Remove(path)
}
