// Package lb7 is lb7d at work: the parts that run beside a HAProxy, wired
// together out of one configuration.
//
// A part is off unless its table is in the configuration, and none waits for
// another: the agent check is answered while a store is away, and a source that
// fails holds up no back end but its own.
//
//	tunnel.go   keeps the tunnel devices, the VIPs and what belongs to them
//	agent.go    answers agent checks
//	haproxy.go  watches the HAProxy process, and keeps the map with this host's state
//	backends.go the back ends: for each slot record a keeper (keeper.go), which
//	            asks the source while it has the lease and writes the record;
//	            for each back end a worker (worker.go), which keeps HAProxy and
//	            the include file equal to the back end's share
//	directories.go the back ends of hosts, looked up at run time
package lb7

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"lb4d/config"
	"lb4d/control"
	"lb4d/internal/service"
)

const (
	// gatherEvery is how often the status is made anew although no part has
	// told of a change.
	gatherEvery = time.Second
	// gatherGap is the least time between two, whatever the parts tell.
	gatherGap = 50 * time.Millisecond
)

// Options are what lb7d is started with.
type Options struct {
	ConfigPath string
	Version    string
	Log        *slog.Logger
	// Reload asks for a reload with each value received.
	Reload <-chan struct{}
	// Notify tells the service manager, as sd_notify(3) does; nil: nobody.
	Notify func(state string)
	// Watchdog is how often the service manager wants to hear; 0: never.
	Watchdog time.Duration
}

// part is one of the things that lb7d does.
type part interface {
	// prepare does all that can fail of the change to another configuration,
	// and touches nothing that is live beyond what undo puts back. The first
	// one finds the part off.
	prepare(ctx context.Context, cfg *config.LB7) (change, error)
	// report adds what the part knows to the status. It tells whether the part
	// has been at work since it was last changed, and when the goroutine of it
	// that has been silent the longest was last seen at work.
	report(st *control.LB7Status) (ready bool, seen time.Time)
	close()
}

// change is a change that can no longer fail: exactly one of the two is called,
// once. Either may be nil.
type change struct{ commit, undo func() }

// Daemon is one running lb7d.
type Daemon struct {
	opts    Options
	log     *slog.Logger
	cfg     *config.LB7
	started time.Time
	wake    chan struct{}

	tunnels  *tunnelPart
	agent    *agentPart
	haproxy  *haproxyPart
	backends *backendsPart
	lookups  *directoriesPart
	parts    []part // all of them, in the order in which they are changed

	control  *control.Server
	counters control.LB7Counters
	cfgFile  control.ConfigFile
	readyDue bool // the service manager waits to hear READY=1
	stopping bool
	told     string // the last STATUS=
	seen     time.Time
}

// Run runs lb7d until ctx is cancelled. HAProxy, the tunnels and the files are
// left as they are then. An error is what kept it from starting.
func Run(ctx context.Context, opts Options) error {
	cfg, err := config.LoadLB7(opts.ConfigPath)
	if err != nil {
		return err
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	d, err := start(work, opts, cfg)
	if err != nil {
		return err
	}
	defer d.close()
	return d.loop(ctx, work)
}

func start(ctx context.Context, opts Options, cfg *config.LB7) (*Daemon, error) {
	if opts.Notify == nil {
		opts.Notify = func(string) {}
	}
	d := &Daemon{
		opts: opts, log: opts.Log,
		started:  time.Now(),
		wake:     make(chan struct{}, 1),
		readyDue: true,
		cfgFile:  control.ConfigFile{Path: opts.ConfigPath, Loaded: time.Now()},
	}
	d.tunnels = &tunnelPart{log: d.log, ctx: ctx, changed: d.poke}
	d.agent = &agentPart{log: d.log}
	d.backends = newBackends(ctx, d.log, d.poke)
	d.haproxy = &haproxyPart{log: d.log, ctx: ctx, changed: d.poke, restarted: d.backends.wakeAll, agent: d.agent}
	d.lookups = &directoriesPart{log: d.log, ctx: ctx, changed: d.poke}
	d.parts = []part{d.tunnels, d.agent, d.haproxy, d.backends, d.lookups}

	if err := os.MkdirAll(cfg.StateDir, 0o755); err != nil {
		return nil, fmt.Errorf("making the state directory: %w: create it for the user that runs lb7d, or set state_dir to another", err)
	}
	var err error
	d.control, err = control.Listen(control.Options{
		Socket: cfg.Control.Socket, Group: cfg.Control.Group, Version: opts.Version, Log: d.log,
		LB7: &control.LB7Requests{Drain: d.drain, Undrain: d.undrain, Sessions: d.sessions, Confirm: d.confirm,
			DirectoryLookup: d.lookups.lookup, DirectoryForget: d.lookups.forget},
	})
	if err != nil {
		return nil, err
	}
	if err := d.change(ctx, cfg); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// change has every part change to the configuration, or none.
func (d *Daemon) change(ctx context.Context, cfg *config.LB7) error {
	var changes []change
	undo := func() {
		for i := len(changes) - 1; i >= 0; i-- {
			if changes[i].undo != nil {
				changes[i].undo()
			}
		}
	}
	for _, p := range d.parts {
		c, err := p.prepare(ctx, cfg)
		if err != nil {
			undo()
			return err
		}
		changes = append(changes, c)
	}
	// The last thing that can fail: to go back to an address that was just
	// given up could fail too.
	if err := d.control.SetListen(cfg.HTTP.Listen); err != nil {
		undo()
		return err
	}
	for _, c := range changes {
		if c.commit != nil {
			c.commit()
		}
	}
	d.cfg = cfg
	return nil
}

// poke asks for a new status. It never blocks.
func (d *Daemon) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *Daemon) close() {
	// The last one that was started first: what it tells others is heard.
	for i := len(d.parts) - 1; i >= 0; i-- {
		d.parts[i].close()
	}
	_ = d.control.Close()
}

// loop publishes the status and takes signals until ctx is cancelled.
func (d *Daemon) loop(ctx, work context.Context) error {
	d.log.Info("started", "version", d.opts.Version, "config", d.opts.ConfigPath, "parts", d.cfg.Parts())
	tick := time.NewTicker(gatherEvery)
	defer tick.Stop()
	var watchdog <-chan time.Time
	if d.opts.Watchdog > 0 {
		// Half the time, as sd_watchdog_enabled(3) asks.
		t := time.NewTicker(d.opts.Watchdog / 2)
		defer t.Stop()
		watchdog = t.C
	}
	gap := time.NewTimer(0)
	defer gap.Stop()
	free := false // the gap is over
	for {
		wake := d.wake
		if !free {
			wake = nil
		}
		select {
		case <-ctx.Done():
			d.stopping = true
			d.opts.Notify("STOPPING=1")
			d.log.Info("stopping; HAProxy, tunnels and files stay as they are")
			d.gather()
			return nil
		case <-watchdog:
			// A part that hangs is worth a new process: HAProxy serves on.
			if time.Since(d.seen) < control.StaleAfter {
				d.opts.Notify("WATCHDOG=1")
			}
			continue
		case <-gap.C:
			free = true
			continue
		case <-d.opts.Reload:
			d.reload(work)
		case <-wake:
		case <-tick.C:
		}
		d.gather()
		free = false
		gap.Reset(gatherGap)
	}
}

// reload puts a new configuration in force, as one step or not at all.
func (d *Daemon) reload(ctx context.Context) {
	d.opts.Notify(service.Reloading())
	d.readyDue = true
	if err := d.tryReload(ctx); err != nil {
		d.counters.ReloadsFailed++
		d.cfgFile.Error, d.cfgFile.ErrorAt = oneLine(err), time.Now()
		d.log.Error("reload refused, the configuration in force stays", "err", d.cfgFile.Error)
		return
	}
	d.counters.Reloads++
	d.cfgFile = control.ConfigFile{Path: d.opts.ConfigPath, Loaded: time.Now()}
	d.log.Info("reloaded", "config", d.opts.ConfigPath, "parts", d.cfg.Parts())
}

func (d *Daemon) tryReload(ctx context.Context) error {
	cfg, err := config.LoadLB7(d.opts.ConfigPath)
	if err != nil {
		return err
	}
	if err := needsRestart(d.cfg, cfg); err != nil {
		return err
	}
	return d.change(ctx, cfg)
}

// needsRestart refuses what cannot change while sockets and records are in use.
func needsRestart(old, new *config.LB7) error {
	var errs []error
	for _, key := range []struct {
		name     string
		old, new any
	}{
		{"control.socket", old.Control.Socket, new.Control.Socket},
		{"control.group", old.Control.Group, new.Control.Group},
		{"state_dir", old.StateDir, new.StateDir},
		{"store", string(old.Store.Kind), string(new.Store.Kind)},
	} {
		if key.old != key.new {
			errs = append(errs, fmt.Errorf("%s: cannot change from %v to %v in a running daemon; restart lb7d", key.name, key.old, key.new))
		}
	}
	return errors.Join(errs...)
}

// oneLine writes an error on one line.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	var faults config.Faults
	if errors.As(err, &faults) && len(faults) > 1 {
		return fmt.Sprintf("%s (and %d more; lb7d -check tells all)", faults[0], len(faults)-1)
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
