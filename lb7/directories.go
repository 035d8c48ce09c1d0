package lb7

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"lb4d/config"
	"lb4d/control"
	"lb4d/l7/directory"
)

// directoriesPart looks up the back ends of hosts.
type directoriesPart struct {
	log     *slog.Logger
	ctx     context.Context
	changed func()

	mu      sync.Mutex // guards what follows
	running map[string]*runningDirectory
}

type runningDirectory struct {
	cfg      directory.Config
	dir      *directory.Directory
	listener net.Listener
	cancel   context.CancelFunc
	ended    chan struct{}
	begun    time.Time
}

// directoryOf is what the room needs of a configuration.
func directoryOf(d config.Directory) directory.Config {
	return directory.Config{
		Name: d.Name, URL: d.URL, BulkURL: d.BulkURL, BulkInterval: d.BulkInterval,
		Map: d.Map, Socket: d.Socket, Process: d.Process, HAProxyTimeout: d.HAProxyTimeout,
		Listen: d.Listen, Forward: d.Forward, UsageTable: d.UsageTable,
		Timeout: d.Timeout, TTL: d.TTL, NegativeTTL: d.NegativeTTL,
		MaxEntries: d.MaxEntries, MaxCalls: d.MaxCalls, CallRate: d.CallRate, MaxRequests: d.MaxRequests,
		DefaultBackend: d.DefaultBackend, Backends: d.Backends,
	}
}

// prepare implements part. A directory whose configuration changes is another
// one from then on, which takes over the listener and, out of HAProxy's map,
// the hosts.
func (p *directoriesPart) prepare(_ context.Context, cfg *config.LB7) (change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := map[string]*runningDirectory{}
	var opened []net.Listener
	undo := func() {
		for _, l := range opened {
			// A socket's file is still the one that is served.
			if u, ok := l.(*net.UnixListener); ok && p.listens(l.Addr().String()) {
				u.SetUnlinkOnClose(false)
			}
			l.Close()
		}
	}
	for _, c := range cfg.Directories {
		want := directoryOf(c)
		if old := p.running[c.Name]; old != nil && reflect.DeepEqual(old.cfg, want) {
			next[c.Name] = old
			continue
		}
		d, err := directory.New(want, p.log)
		if err == nil {
			var l net.Listener
			if l, err = p.listen(want.Listen); err == nil {
				opened = append(opened, l)
				next[c.Name] = &runningDirectory{cfg: want, dir: d, listener: l}
				continue
			}
		}
		undo()
		return change{}, fmt.Errorf("directory %s: %w", c.Name, err)
	}
	return change{undo: undo, commit: func() { p.swap(next) }}, nil
}

// listen opens an address, or shares it with the directory that listens there.
func (p *directoriesPart) listen(address string) (net.Listener, error) {
	for _, r := range p.running {
		if r.cfg.Listen == address {
			return directory.Share(r.listener)
		}
	}
	return directory.Listen(address)
}

func (p *directoriesPart) listens(address string) bool {
	for _, r := range p.running {
		if r.listener.Addr().String() == address {
			return true
		}
	}
	return false
}

// swap ends what is not among next and starts what is new in it.
func (p *directoriesPart) swap(next map[string]*runningDirectory) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var kept []<-chan struct{}
	for name, r := range p.running {
		if next[name] != r {
			r.cancel()
			kept = append(kept, r.dir.Kept())
		}
	}
	for _, r := range next {
		if r.cancel == nil {
			p.start(r, kept)
		}
	}
	p.running = next
}

// start runs a directory once those before it no longer write maps.
func (p *directoriesPart) start(r *runningDirectory, before []<-chan struct{}) {
	ctx, cancel := context.WithCancel(p.ctx)
	r.cancel, r.ended, r.begun = cancel, make(chan struct{}), time.Now()
	go func() {
		defer close(r.ended)
		for _, b := range before {
			<-b
		}
		if err := r.dir.Run(ctx, r.listener); err != nil {
			p.log.Error("directory ended", "directory", r.cfg.Name, "err", err)
		}
		p.changed()
	}()
}

// report implements part.
func (p *directoriesPart) report(st *control.LB7Status) (bool, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ready, oldest := true, time.Now()
	for _, name := range slices.Sorted(maps.Keys(p.running)) {
		r := p.running[name]
		s := r.dir.Status()
		st.Directories = append(st.Directories, directoryStatus(s))
		for _, problem := range s.Problems {
			st.Errors = append(st.Errors, "directory "+name+": "+problem)
		}
		seen := s.Seen
		if seen.IsZero() {
			seen = r.begun
		}
		if ready = ready && r.dir.Ready(); seen.Before(oldest) {
			oldest = seen
		}
	}
	return ready, oldest
}

// directoryStatus is what others are told of a directory.
func directoryStatus(s directory.Status) control.Directory {
	c := s.Counters
	out := control.Directory{
		Name: s.Name, State: s.State, Problems: s.Problems, Map: s.Map, Listen: s.Listen,
		Hosts: s.Hosts, Max: s.Max, InMap: s.InMap, Stale: s.Stale, Unknown: s.Unknown,
		Asking: s.Asking, Open: s.Open, Oldest: s.Oldest, AnsweredAt: s.AnsweredAt, BulkAt: s.BulkAt,
		Wrong: s.Wrong, WrongAt: s.WrongAt,
		Counters: control.DirectoryCounters{
			Misses: c.Misses, Known: c.Known, Shared: c.Shared, Refused: c.Refused, Shed: c.Shed, ForwardFailed: c.ForwardFailed,
			Answered: c.Answered, Unknown: c.Unknown, Wrong: c.Wrong, Failed: c.Failed, Busy: c.Busy, Refreshes: c.Refreshes,
			Bulk: c.Bulk, BulkFailed: c.BulkFailed, Evicted: c.Evicted, Expired: c.Expired,
			Written: c.Written, Compared: c.Compared, Mended: c.Mended, FileWrites: c.FileWrites,
			Calls: c.Latency.Count, Seconds: c.Latency.Sum.Seconds(),
		},
	}
	for i, b := range directory.Bounds {
		out.Counters.Buckets = append(out.Counters.Buckets, control.DirectoryBucket{Seconds: b.Seconds(), Count: c.Latency.Buckets[i]})
	}
	return out
}

// find is the directory of that name, or the only one where name is empty.
func (p *directoriesPart) find(name string) (*directory.Directory, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := slices.Sorted(maps.Keys(p.running))
	switch {
	case len(names) == 0:
		return nil, "", refuse(http.StatusConflict, "lb7d.toml has no [directory.NAME]")
	case name == "" && len(names) > 1:
		return nil, "", refuse(http.StatusConflict, "there are several directories: name one of %s", strings.Join(names, ", "))
	case name != "" && p.running[name] == nil:
		return nil, "", refuse(http.StatusNotFound, "there is no [directory.%s] in lb7d.toml; there is %s", name, strings.Join(names, ", "))
	}
	name = cmp.Or(name, names[0])
	return p.running[name].dir, name, nil
}

// lookup tells where a host is.
func (p *directoriesPart) lookup(ctx context.Context, r control.DirectoryRequest) (*control.DirectoryAnswer, error) {
	d, name, err := p.find(r.Directory)
	if err != nil {
		return nil, err
	}
	a, err := d.Lookup(ctx, r.Host)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(err, directory.ErrHost) {
		return nil, refuse(http.StatusBadRequest, "%s", oneLine(err))
	}
	return &control.DirectoryAnswer{
		Directory: name, Host: a.Host, Backend: a.Backend, Error: oneLine(err), Source: a.Source,
		Cached: a.Cached, Stale: a.Stale, Asked: a.Asked, Expires: a.Expires, Used: a.Used,
	}, nil
}

// forget has a host asked for anew.
func (p *directoriesPart) forget(ctx context.Context, r control.DirectoryRequest) (*control.DirectoryForgotten, error) {
	d, name, err := p.find(r.Directory)
	if err != nil {
		return nil, err
	}
	known, err := d.Forget(ctx, r.Host)
	if errors.Is(err, directory.ErrHost) {
		return nil, refuse(http.StatusBadRequest, "%s", oneLine(err))
	}
	if known {
		p.log.Info("host forgotten by the operator", "directory", name, "host", r.Host)
	}
	p.changed()
	return &control.DirectoryForgotten{Directory: name, Host: r.Host, Known: known, Error: oneLine(err)}, nil
}

// close ends all directories and waits for the last of their requests, for as
// long as each lets them go on.
func (p *directoriesPart) close() {
	p.mu.Lock()
	running := p.running
	p.running = nil
	p.mu.Unlock()
	for _, r := range running {
		r.cancel()
	}
	for _, r := range running {
		<-r.ended
	}
}
