package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// refreshEach is how often the refresher looks for what is due.
	refreshEach = 250 * time.Millisecond
	// bulkTimeout bounds the call for all hosts.
	bulkTimeout = 2 * time.Minute
	// bulkAgain is the wait after one that failed.
	bulkAgain = 10 * time.Second
)

// refreshers is how many calls the refresher may have open, beside those of
// misses.
func refreshers(c Config) int { return max(1, c.MaxCalls/4) }

// refresh asks for known hosts again before their answers are old, in their
// order, no more than call_rate a second. While the directory is away it tries
// one now and then.
func (d *Directory) refresh(ctx context.Context) {
	tick := time.NewTicker(refreshEach)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var g errgroup.Group
		g.SetLimit(refreshers(d.cfg))
		for _, host := range d.takeDue(ctx) {
			g.Go(func() error {
				if ctx.Err() != nil {
					return nil
				}
				d.again(ctx, host)
				return nil
			})
		}
		_ = g.Wait() // they return nothing else
	}
}

// takeDue names the hosts to ask for now. One that nobody has used since it was
// last asked for is let go instead, where HAProxy tells who uses what, and the
// directory could answer for it again.
func (d *Directory) takeDue(ctx context.Context) (hosts []string) {
	d.mu.Lock()
	now := time.Now()
	any := len(d.table.queue) > 0 && !d.table.queue[0].due.After(now) && !d.service.resting(now)
	d.mu.Unlock()
	if !any {
		return nil
	}
	known := d.readUsage(ctx, max(d.cfg.TTL/8, 5*time.Second))
	d.mu.Lock()
	defer d.mu.Unlock()
	n := max(1, d.cfg.CallRate/int(time.Second/refreshEach))
	if d.service.away() {
		n = 1
	}
	var unused []string
	for _, e := range d.table.takeDue(n, now, max(time.Second, d.cfg.TTL/20)) {
		switch {
		case known && !e.bulk && !e.adopted && !e.used.After(e.asked) && !d.service.away():
			d.table.remove(e.host)
			unused = append(unused, e.host)
		default:
			hosts = append(hosts, e.host)
		}
	}
	if len(unused) > 0 {
		d.count.Expired += uint64(len(unused))
		d.drop(unused)
	}
	return hosts
}

// again asks for one known host.
func (d *Directory) again(ctx context.Context, host string) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.Timeout, fmt.Errorf("no answer within %s", d.cfg.Timeout))
	defer cancel()
	backend, err := d.ask.one(ctx, host)
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return // we stop; the directory did nothing wrong
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.Refreshes++
	if d.table.entries[host] == nil {
		return // forgotten meanwhile, and not to be brought back
	}
	_, _ = d.note(host, backend, err, false) // what it says is in the status
}

// bulk asks for all hosts at the start and from time to time. A host that the
// list lacks is not forgotten for that: it is asked for by itself when it is
// due.
func (d *Directory) bulk(ctx context.Context) {
	for {
		wait := d.cfg.BulkInterval
		if err := d.fill(ctx); err != nil {
			wait = min(wait, bulkAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// fill takes in the list of all hosts, as far as it comes.
func (d *Directory) fill(ctx context.Context) error {
	call, cancel := context.WithTimeoutCause(ctx, bulkTimeout, fmt.Errorf("no end of the list within %s", bulkTimeout))
	defer cancel()
	taken, wrong, left := 0, 0, 0
	bad, err := d.ask.all(call, func(host, backend string) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.table.entries[host] == nil && len(d.table.entries) >= d.cfg.MaxEntries {
			left++
			return true
		}
		if d.backends != nil && !d.backends[backend] {
			wrong++
			d.count.Wrong++
			d.now.wrong, d.now.wrongAt = fmt.Sprintf("%s: the list of all hosts has %s in back end %q, which HAProxy does not have", ErrWrong, host, backend), time.Now()
			return true
		}
		if _, err := d.note(host, backend, nil, true); err == nil {
			taken++
		}
		return true
	})
	if ctx.Err() != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.Bulk++
	d.count.Wrong += uint64(bad)
	d.now.leftOut = left
	was := d.now.bulk
	if err != nil {
		d.count.BulkFailed++
		d.now.bulk = fmt.Sprintf("the list of all hosts was not read to its end, %d hosts taken: %v", taken, err)
		if was == "" {
			d.log.Warn("the list of all hosts was not read to its end", "taken", taken, "err", err)
		}
		return err
	}
	d.now.bulk, d.now.bulkAt = "", time.Now()
	if was != "" || d.now.filledAt.IsZero() {
		d.log.Info("took the list of all hosts", "hosts", taken, "wrong", wrong+bad, "beyond_max_entries", left)
	}
	d.now.filledAt = time.Now()
	return nil
}
