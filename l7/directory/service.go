package directory

import (
	"fmt"
	"time"
)

const (
	// awayAfter is how many calls in a row fail before the directory counts as
	// away: one may have been lost.
	awayAfter = 3
	// maxRest bounds the pause between attempts to refresh while it is away.
	maxRest = 15 * time.Second
)

// service is how the directory does, judged by its latest calls.
type service struct {
	failures int       // in a row
	since    time.Time // of the first of them
	err      string    // of the latest
	until    time.Time // refreshing rests until then
	rest     time.Duration
	okAt     time.Time // the latest answer
}

// away tells that enough calls in a row have failed.
func (s *service) away() bool { return s.failures >= awayAfter }

// resting tells that there is no point in refreshing now.
func (s *service) resting(now time.Time) bool { return now.Before(s.until) }

// answered notes that the directory gave an answer, be it a wrong one. The
// lock is held.
func (d *Directory) answered(now time.Time) {
	s := d.service
	d.service = service{okAt: now}
	if s.away() {
		d.log.Info("the directory answers again", "away", now.Sub(s.since).Round(time.Second))
	}
}

// unanswered notes that it gave none. The lock is held.
func (d *Directory) unanswered(now time.Time, err error) {
	s := &d.service
	was := s.away()
	if s.failures++; s.failures == 1 {
		s.since = now
	}
	s.err = err.Error()
	if !s.away() {
		return
	}
	if !s.resting(now) {
		s.rest = min(max(2*s.rest, time.Second), maxRest)
		s.until = now.Add(s.rest)
	}
	if !was {
		d.log.Warn("the directory is away; known hosts are served on, new ones get 503", "hosts", len(d.table.entries), "err", err)
	}
}

// budget bounds how many known hosts may turn out unknown in a span of time. A
// directory that has lost its data says so of all of them, and should not take
// them all down.
type budget struct {
	every time.Duration
	from  time.Time
	n     int
	held  bool
}

// take tells whether one more of total may go now: a tenth, or ten, in a span.
func (b *budget) take(now time.Time, total int) bool {
	if now.Sub(b.from) >= b.every {
		b.from, b.n, b.held = now, 0, false
	}
	if b.n >= max(10, total/10) {
		b.held = true
		return false
	}
	b.n++
	return true
}

// text says what the budget holds back, or nothing.
func (b *budget) text(now time.Time) string {
	if !b.held || now.Sub(b.from) >= b.every {
		return ""
	}
	return fmt.Sprintf("the directory no longer knows %d hosts and more within %s; further ones are kept, as it may have lost its data", b.n, b.every)
}
