// Package load makes the traffic of many users and tells what became of it,
// and holds the servers that answer it in the lab.
//
// A [Generator] keeps two or more kinds of requests going at once, from many
// source addresses, to several service addresses of both families: quick ones,
// each on a new connection, at a rate that does not depend on the answers; and
// slow downloads, of which a number is always in flight. Every request ends in
// one [Outcome]; a [Result] counts them, in all and for each 100 ms, so that a
// scenario can ask how many broke since an event and how long nothing was served.
//
// It speaks a minimal HTTP/1.1 over plain connections, without keep-alives of
// any sort: a client that only reads must send nothing, since that is where a
// load balancer's faults hide. One processor that it shares with the whole lab
// carries it (see the package's benchmarks).
package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Kind is one kind of request.
type Kind struct {
	// Name tells the kinds apart in the result.
	Name string
	// Path is what is asked for, with its query.
	Path string
	// Rate is how many requests start each second, whatever becomes of
	// them. Where 0, Concurrency requests are kept in flight instead.
	Rate float64
	// Concurrency bounds the requests in flight; 256 where 0. With a Rate, a
	// request that is due while all are busy is counted as skipped.
	Concurrency int
	// Ramp is the time over which the first Concurrency requests of a kind
	// without a Rate are spread; one second where 0.
	Ramp time.Duration
	// Pace is how many bytes a second the client reads of a body, so that
	// the sender's window closes; 0 reads what comes.
	Pace int
	// Once starts no other request in place of one that ended, of a kind
	// without a Rate: what is in flight then was so from the start.
	Once bool
	// Probe is how long a connection may be idle before the client sends a
	// TCP keep-alive, and how often it does from then on; whole seconds. With 0
	// a client that only reads sends nothing of its own accord, and so
	// never learns that the other side has gone.
	Probe time.Duration
}

// Quick is short requests at a rate, each on a connection of its own.
func Quick(perSecond float64) Kind {
	return Kind{Name: "quick", Path: "/", Rate: perSecond}
}

// Hold starts n downloads, spread over a ramp, of which none ends by itself: the
// [Server] drips each for an hour, once a second. One that breaks is not
// replaced, so that all that are in flight at any moment have seen all that
// happened since the start.
func Hold(n int, ramp time.Duration) Kind {
	return Kind{
		Name: "hold", Concurrency: n, Ramp: ramp, Once: true,
		Path: fmt.Sprintf("/slow?seconds=%g&bytes=%d&every=1", maxSlowTime.Seconds(), 1<<20),
	}
}

// Slow keeps n downloads in flight of which each takes the given time, since
// the [Server] drips it. They start spread over that time.
func Slow(n int, takes time.Duration) Kind {
	return Kind{
		Name: "slow", Concurrency: n, Ramp: takes,
		Path: fmt.Sprintf("/slow?seconds=%g&bytes=%d", takes.Seconds(), 64<<10),
	}
}

// Options say what to send where. Targets and Kinds are required.
type Options struct {
	// Targets are the service addresses and ports, taken in turn.
	Targets []netip.AddrPort
	// Sources are local addresses to send from, taken in turn; only those of
	// the target's family are used. The kernel chooses where there is none.
	Sources []netip.Addr
	// Host is the Host header; the target where empty.
	Host  string
	Kinds []Kind
	// Duration ends the run; 0 leaves that to the context.
	Duration time.Duration
	// Linger is how long requests in flight may go on at the end, when no
	// more start. What is left then is unfinished.
	Linger time.Duration
	// ConnectTimeout is for the handshake, five seconds where 0.
	ConnectTimeout time.Duration
	// StallTimeout is how long no byte may come; five seconds where 0.
	StallTimeout time.Duration
	// Timeout bounds a whole request; five minutes where 0.
	Timeout time.Duration
}

const (
	defaultConcurrency    = 256
	defaultRamp           = time.Second
	defaultConnectTimeout = 5 * time.Second
	defaultStallTimeout   = 5 * time.Second
	defaultTimeout        = 5 * time.Minute
)

// Generator makes traffic and counts what became of it.
type Generator struct {
	o       Options
	sources [2][]netip.Addr // IPv4, IPv6
	poller  *poller

	mu      sync.Mutex
	started time.Time // zero until Run
	ended   time.Time
	kinds   []*tally
	faults  []Fault // the last maxFaults
}

// New checks the options and makes a Generator of them.
func New(o Options) (*Generator, error) {
	if len(o.Targets) == 0 {
		return nil, errors.New("making load: no target")
	}
	if len(o.Kinds) == 0 {
		return nil, errors.New("making load: no kind of request")
	}
	g := &Generator{o: o}
	for _, s := range o.Sources {
		g.sources[family(s)] = append(g.sources[family(s)], s)
	}
	for i := range o.Targets {
		a := o.Targets[i]
		if !a.IsValid() || a.Port() == 0 {
			return nil, fmt.Errorf("making load: target %q is no address with a port", a)
		}
	}
	g.o.Kinds = nil
	for _, k := range o.Kinds {
		if !strings.HasPrefix(k.Path, "/") || strings.ContainsAny(k.Path, " \r\n") {
			return nil, fmt.Errorf("making load: kind %q: %q is no path", k.Name, k.Path)
		}
		if k.Rate < 0 || k.Concurrency < 0 || k.Pace < 0 {
			return nil, fmt.Errorf("making load: kind %q: negative rate, concurrency or pace", k.Name)
		}
		if k.Probe < 0 || k.Probe%time.Second != 0 {
			return nil, fmt.Errorf("making load: kind %q: probing every %v, which is not whole seconds", k.Name, k.Probe)
		}
		if k.Concurrency == 0 {
			k.Concurrency = defaultConcurrency
		}
		if k.Ramp == 0 {
			k.Ramp = defaultRamp
		}
		g.o.Kinds = append(g.o.Kinds, k)
		g.kinds = append(g.kinds, &tally{name: k.Name})
	}
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{
		{&g.o.ConnectTimeout, defaultConnectTimeout},
		{&g.o.StallTimeout, defaultStallTimeout},
		{&g.o.Timeout, defaultTimeout},
	} {
		if *d.value == 0 {
			*d.value = d.or
		}
	}
	var err error
	if g.poller, err = newPoller(); err != nil {
		return nil, fmt.Errorf("making load: %w", err)
	}
	return g, nil
}

// Run sends until ctx ends or Options.Duration is over, waits for what is in
// flight as long as Options.Linger allows, and returns the whole result. It is
// called once. The end of ctx is an ordinary end, no error.
func (g *Generator) Run(ctx context.Context) Result {
	newEngine(g).run(ctx)
	return g.Snapshot(0)
}

// Run makes a Generator and runs it.
func Run(ctx context.Context, o Options) (Result, error) {
	g, err := New(o)
	if err != nil {
		return Result{}, err
	}
	return g.Run(ctx), nil
}

func family(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 0
	}
	return 1
}
