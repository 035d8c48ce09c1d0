package directory

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// maxMemo bounds the hosts that are remembered for having no answer: a
	// flood of invented hosts drives out older ones, and nothing else.
	maxMemo = 65536
	// maxPending bounds the hosts that are being asked for, or wait for it.
	maxPending = 4096
	// failedTTL is how long a host whose call failed is not asked for again,
	// so that those who try again at once do not wait each time.
	failedTTL = time.Second
	// settling is how long after its line was written a host may still miss
	// for no other reason than that its request was on the way.
	settling = 2 * time.Second
)

// call is one question to the directory, for all who wait for its answer.
type call struct {
	done    chan struct{} // closed once backend and err stand
	backend string
	err     error
}

// Answer is what is known about a host.
type Answer struct {
	Host    string `json:"host"`
	Backend string `json:"backend,omitempty"`
	// Asked and Expires are when the directory gave the answer and when it is
	// old. An answer found in the map at the start counts as given then.
	Asked   time.Time `json:"asked,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	Used    time.Time `json:"used,omitzero"`
	// Source tells where the answer came from: "directory", "bulk", or "map"
	// for one that was found at the start.
	Source string `json:"source,omitempty"`
	// Cached tells that it was known before the question.
	Cached bool `json:"cached"`
	Stale  bool `json:"stale"`
}

// Lookup tells which back end serves a Host header, asking the directory where
// that is not known. The error wraps ErrUnknown, ErrWrong, ErrAway or ErrBusy,
// or says what is wrong with the header.
func (d *Directory) Lookup(ctx context.Context, header string) (Answer, error) {
	host, _, err := hostOf(header)
	if err != nil {
		return Answer{Host: header}, err
	}
	d.mu.Lock()
	known := d.table.entries[host] != nil
	d.mu.Unlock()
	backend, err := d.find(ctx, host)
	a := Answer{Host: host, Backend: backend, Cached: known && err == nil}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.table.entries[host]; e != nil && err == nil {
		a.Asked, a.Expires, a.Used, a.Stale = e.asked, e.expires, e.used, time.Now().After(e.expires)
		switch {
		case e.adopted:
			a.Source = "map"
		case e.bulk:
			a.Source = "bulk"
		default:
			a.Source = "directory"
		}
	}
	return a, err
}

// find is the back end of a host: from memory, even where the answer is old,
// since that is what HAProxy's map serves too; else from the directory, asked
// once for all who want to know.
func (d *Directory) find(ctx context.Context, host string) (backend string, err error) {
	now := time.Now()
	d.mu.Lock()
	if e := d.table.entries[host]; e != nil {
		defer d.mu.Unlock()
		d.table.use(e, now)
		if e.expires.Before(now) && e.due.After(now) && !d.service.resting(now) {
			d.table.postpone(e, now)
		}
		return e.backend, nil
	}
	for _, m := range []*memo{d.none, d.failed} {
		if err := m.get(host, now); err != nil {
			d.mu.Unlock()
			return "", err
		}
	}
	c := d.pending[host]
	switch {
	case c != nil:
		d.count.Shared++
	case len(d.pending) >= maxPending:
		d.count.Busy++
		d.mu.Unlock()
		return "", fmt.Errorf("%w: %d", ErrBusy, maxPending)
	default:
		c = &call{done: make(chan struct{})}
		d.pending[host] = c
		go d.carryOut(c, host)
	}
	d.mu.Unlock()
	select {
	case <-c.done:
		return c.backend, c.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// carryOut asks for one host on behalf of all who wait. It has a deadline of
// its own: the first of them may give up without harm to the others.
func (d *Directory) carryOut(c *call, host string) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), d.cfg.Timeout, fmt.Errorf("no answer within %s", d.cfg.Timeout))
	defer cancel()
	if err := d.turn(ctx); err != nil {
		c.err = err
		d.mu.Lock()
		d.count.Busy++
	} else {
		c.backend, c.err = d.call(ctx, host)
		<-d.asking
		d.mu.Lock()
	}
	delete(d.pending, host)
	d.mu.Unlock()
	close(c.done)
}

// turn waits for a place among the calls. On success the place is taken.
func (d *Directory) turn(ctx context.Context) error {
	if err := d.calls.Wait(ctx); err != nil {
		return fmt.Errorf("%w: over %d a second", ErrBusy, d.cfg.CallRate)
	}
	select {
	case d.asking <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %d calls are open", ErrBusy, d.cfg.MaxCalls)
	}
}

// call asks the directory for one host, judges the answer, and notes it.
func (d *Directory) call(ctx context.Context, host string) (backend string, err error) {
	start := time.Now()
	backend, err = d.ask.one(ctx, host)
	took := time.Since(start)

	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.Latency.observe(took)
	return d.note(host, backend, err, false)
}

// note takes in an answer, or that there is none; the lock is held. What it
// returns is what those who wait are told.
func (d *Directory) note(host, backend string, err error, bulk bool) (string, error) {
	now := time.Now()
	if err == nil && d.backends != nil && !d.backends[backend] {
		err = fmt.Errorf("%w: %s is in back end %q, which HAProxy does not have", ErrWrong, host, backend)
		// HAProxy may have been reloaded with it a moment ago.
		d.compare = true
		d.wake()
	}
	if !errors.Is(err, ErrAway) {
		d.answered(now)
	}
	switch {
	case err == nil:
		d.count.Answered++
		d.none.remove(host)
		d.failed.remove(host)
		if d.table.entries[host] == nil && len(d.table.entries) >= 2*d.cfg.MaxEntries {
			// HAProxy has been away for long, or the keeper would have made room.
			d.drop(d.table.evict(1))
			d.count.Evicted++
		}
		if d.table.put(host, backend, now, bulk) {
			d.dirty[host] = struct{}{}
			d.wake()
		}
		return backend, nil
	case errors.Is(err, ErrUnknown):
		d.count.Unknown++
		if e := d.table.entries[host]; e != nil {
			if !d.gone.take(now, len(d.table.entries)) {
				d.table.postpone(e, now.Add(d.cfg.TTL/4))
				return e.backend, nil
			}
			d.table.remove(host)
			d.drop([]string{host})
		}
		d.none.put(host, err, now.Add(d.cfg.NegativeTTL))
	case errors.Is(err, ErrWrong):
		d.count.Wrong++
		// One line a minute tells who asks to look; the count tells how many.
		if now.Sub(d.now.wrongAt) > time.Minute {
			d.log.Warn("an answer was not taken", "err", err)
		}
		d.now.wrong, d.now.wrongAt = err.Error(), now
	default:
		d.count.Failed++
		d.failed.put(host, err, now.Add(failedTTL))
		d.unanswered(now, err)
	}
	return "", err
}

// drop has the lines of hosts that were forgotten taken out of the map.
func (d *Directory) drop(hosts []string) {
	for _, h := range hosts {
		d.dirty[h] = struct{}{}
	}
	d.wake()
}

// Forget forgets what is known about a host, that it is unknown included, and
// waits until HAProxy's map has no line for it. It tells whether anything was
// known.
func (d *Directory) Forget(ctx context.Context, header string) (known bool, err error) {
	host, _, err := hostOf(header)
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	known = d.table.remove(host)
	known = d.none.remove(host) || known
	known = d.failed.remove(host) || known
	d.drop([]string{host})
	done := make(chan error, 1)
	d.now.waiting = append(d.now.waiting, done)
	d.mu.Unlock()
	d.wake()
	select {
	case err := <-done:
		return known, err
	case <-ctx.Done():
		return known, fmt.Errorf("waiting for HAProxy's map: %w", context.Cause(ctx))
	}
}
