package discovery

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// heldAfter is how late an answer is that was held by who was asked to
	// hold it. Where one takes as long to be made, no harm is done by the
	// mistake.
	heldAfter = time.Second
	// apart is the least time between an answer and the next request.
	apart = 20 * time.Millisecond
	// quickly is how many answers in a row may come at once and be followed
	// by the next request at once.
	quickly = 10
)

// pace is that of requests whose answers are held until there is something new.
// A burst of changes is followed as it comes. Where answers come at once without
// end, because they are not held at all, or differ each time, there is one a
// second.
type pace struct {
	streak int // of answers that came at once
}

// gap is how long to wait after an answer that took so long.
func (p *pace) gap(took time.Duration) time.Duration {
	if p.streak++; took >= heldAfter {
		p.streak = 0
	}
	if p.streak > quickly {
		return heldAfter - took
	}
	return apart
}

const (
	// firstRetry and lastRetry bound the pause after failures in a row, but
	// for an interval that is shorter than the one or longer than the other.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// backoff is the pause after the nth failure in a row (n from 1). It doubles
// until it is the interval at which the source is asked anyway, or lastRetry.
func backoff(n int, interval time.Duration) time.Duration {
	pause := min(interval, firstRetry)
	for ; n > 1 && pause < max(interval, lastRetry); n-- {
		pause *= 2
	}
	return spread(min(pause, max(interval, lastRetry)))
}

// spread is d, 10 % more or less, so that hosts that were started together, or
// cut off together, do not ask together.
func spread(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

// sleep waits, and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Poll asks at an interval until ctx ends, and tells each answer; after failures
// it asks again sooner, and then ever later. It is the Run of a source that can
// only be asked.
func Poll(ctx context.Context, interval time.Duration, ask func(context.Context) ([]Entry, error), tell func([]Entry, error)) {
	for failures := 0; ; {
		start := time.Now()
		entries, err := ask(ctx)
		if ctx.Err() != nil {
			return
		}
		tell(entries, err)
		pause := max(apart, spread(interval)-time.Since(start))
		if failures++; err != nil {
			pause = backoff(failures, interval)
		} else {
			failures = 0
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}
