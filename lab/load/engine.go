package load

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tick is how often the engine looks at the clock and at its
	// connections, and so how exact latencies are. A look costs much the same
	// whatever has happened: see poller.
	tick = 10 * time.Millisecond
	// sweepEvery is how often it looks for what has not happened.
	sweepEvery = 100 * time.Millisecond
	// afterFault keeps a kind without a rate from spinning while all is refused.
	afterFault = 100 * time.Millisecond
)

// lane is one kind's state in the engine.
type lane struct {
	Kind
	tally    *tally
	inFlight int
	begun    int         // of a kind with a rate: requests that were due
	free     []time.Time // of one without: from when on each slot may start
}

// engine is one run of a generator, in one goroutine.
type engine struct {
	g       *Generator
	poller  *poller
	lanes   []*lane
	flights map[int32]*flight
	turn    uint64 // which target and source are next
	buf     [64 << 10]byte
}

func newEngine(g *Generator) *engine {
	e := &engine{g: g, poller: g.poller, flights: make(map[int32]*flight)}
	for i, k := range g.o.Kinds {
		e.lanes = append(e.lanes, &lane{Kind: k, tally: g.kinds[i]})
	}
	return e
}

// run sends until ctx ends or the duration is over, and finishes.
func (e *engine) run(ctx context.Context) {
	defer e.poller.close()
	g := e.g
	start := time.Now()
	g.mu.Lock()
	g.started = start
	g.mu.Unlock()
	for _, l := range e.lanes {
		if l.Rate == 0 {
			for i := range l.Concurrency {
				l.free = append(l.free, start.Add(l.Ramp*time.Duration(i)/time.Duration(l.Concurrency)))
			}
		}
	}
	var ending, swept time.Time // ending: when starting ended
	for {
		now := time.Now()
		if ending.IsZero() && (ctx.Err() != nil || g.o.Duration > 0 && now.Sub(start) >= g.o.Duration) {
			ending = now
		}
		g.mu.Lock()
		if ending.IsZero() {
			e.launchDue(now, now.Sub(start))
		}
		e.receiveReady(now)
		if now.Sub(swept) >= sweepEvery {
			swept = now
			e.sweep(now)
		}
		if !ending.IsZero() && (len(e.flights) == 0 || now.Sub(ending) >= g.o.Linger) {
			e.abandon(now)
			g.ended = now
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		time.Sleep(tick)
	}
}

// launchDue starts what is due.
func (e *engine) launchDue(now time.Time, elapsed time.Duration) {
	for _, l := range e.lanes {
		if l.Rate > 0 {
			for due := int(elapsed.Seconds()*l.Rate) + 1; l.begun < due; l.begun++ {
				if l.inFlight < l.Concurrency {
					e.launch(l, now)
				} else {
					l.tally.skipped++
				}
			}
			continue
		}
		// Slots that become free on the way are added behind, and for later.
		kept, n := 0, len(l.free)
		for i := range n {
			if at := l.free[i]; at.After(now) {
				l.free[kept] = at
				kept++
			} else {
				e.launch(l, now)
			}
		}
		l.free = append(l.free[:kept], l.free[n:]...)
	}
}

// launch starts one request.
func (e *engine) launch(l *lane, now time.Time) {
	f := &flight{fd: -1, kind: l, start: now, last: now}
	f.target, f.source = e.next()
	l.inFlight++
	l.tally.started++
	err := f.launch(e.poller, e.request(l, f.target))
	if err != nil {
		e.land(f, err, now)
		return
	}
	e.flights[int32(f.fd)] = f
}

// next chooses the target and source of the next request. As many requests as
// there are sources come from as many; then the sources are stepped on by one, so that
// each meets each target.
func (e *engine) next() (target netip.AddrPort, source netip.Addr) {
	n, targets := e.turn, uint64(len(e.g.o.Targets))
	e.turn++
	target = e.g.o.Targets[n%targets]
	if s := e.g.sources[family(target.Addr())]; len(s) > 0 {
		sources := uint64(len(s))
		source = s[(n+n/sources)%sources]
	}
	return target, source
}

// request is what a kind sends to a target.
func (e *engine) request(l *lane, target netip.AddrPort) []byte {
	host := e.g.o.Host
	if host == "" {
		host = target.String()
	}
	return []byte("GET " + l.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: lab\r\nConnection: close\r\n\r\n")
}

// receiveReady takes what has come on all connections.
func (e *engine) receiveReady(now time.Time) {
	for {
		events := e.poller.ready()
		if len(events) > 0 {
			// To launch has taken time, and an answer may be that fast.
			now = time.Now()
		}
		for _, ev := range events {
			if f := e.flights[ev.Fd]; f != nil {
				e.advance(f, ev.Events, now)
			}
		}
		if len(events) < len(e.poller.events) {
			break
		}
	}
	for _, l := range e.lanes {
		if l.Pace > 0 && l.inFlight > 0 {
			e.readPaced(l, now)
		}
	}
}

// advance carries one request on after an event.
func (e *engine) advance(f *flight, events uint32, now time.Time) {
	if !f.connected {
		if err := f.send(e.request(f.kind, f.target)); err != nil {
			e.land(f, err, now)
			return
		}
		f.last = now
	}
	if !f.connected || events&(unix.EPOLLIN|ended) == 0 {
		return
	}
	if f.kind.Pace > 0 && f.inBody {
		f.readable = true
		return
	}
	limit := 0
	if f.kind.Pace > 0 {
		limit = f.allowance(now)
	}
	if whole, err := f.receive(e.buf[:], limit, events&ended != 0, now); whole || err != nil {
		e.land(f, err, now)
	}
}

// readPaced reads what a kind's pace allows of what has come.
func (e *engine) readPaced(l *lane, now time.Time) {
	for _, f := range e.flights {
		if f.kind != l || !f.readable {
			continue
		}
		if n := f.allowance(now); n > 0 {
			if whole, err := f.receive(e.buf[:], n, false, now); whole || err != nil {
				e.land(f, err, now)
			}
		}
	}
}

// sweep ends what has taken too long.
func (e *engine) sweep(now time.Time) {
	for _, f := range e.flights {
		if err := f.overdue(&e.g.o, now); err != nil {
			e.land(f, err, now)
		}
	}
}

// land ends a request and counts it.
func (e *engine) land(f *flight, err error, now time.Time) {
	outcome := classify(err, f.connected)
	e.close(f, outcome, now)
	if f.kind.Rate == 0 && !f.kind.Once {
		at := now
		if outcome != Completed {
			at = now.Add(afterFault)
		}
		f.kind.free = append(f.kind.free, at)
	}
	if outcome.Broken() || outcome == Local {
		e.g.fault(Fault{
			At: now, After: millis(now.Sub(f.start)), Kind: f.kind.Name, Outcome: outcome,
			Source: f.source, Target: f.target, LB7: f.lb7, Server: f.server, Bytes: f.body.got, Error: err.Error(),
		})
	}
}

func (e *engine) close(f *flight, outcome Outcome, now time.Time) {
	if f.fd >= 0 {
		delete(e.flights, int32(f.fd))
		unix.Close(f.fd)
	}
	f.kind.inFlight--
	if f.lb7 != "" {
		f.kind.tally.carried[f.lb7]--
	}
	f.kind.tally.count(outcome, f, now.Sub(f.start), now.Sub(e.g.started))
}

// abandon ends what is still in flight when the run ends.
func (e *engine) abandon(now time.Time) {
	for _, f := range e.flights {
		e.close(f, Unfinished, now)
	}
}
