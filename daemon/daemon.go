// Package daemon is lb4d at work: it gathers what the observers see, lets plan
// decide, and has the actuators carry it out, in one loop owned by one
// goroutine.
//
// The loop compares with what the kernel and the speaker list, never with what
// it remembers doing. So a start adopts the table that it finds, and a change
// made by another hand is put right by the next pass.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"lb4d/bfd"
	"lb4d/bgp"
	"lb4d/config"
	"lb4d/control"
	"lb4d/health"
	"lb4d/l4"
	"lb4d/maintenance"
	"lb4d/plan"
	"lb4d/tunnel"
)

// resync is how often a pass runs although nothing has told of a change: it
// bounds how long a change made by another hand stands.
const resync = time.Second

// Options are what a daemon is started with.
type Options struct {
	ConfigPath string
	Version    string
	Log        *slog.Logger
	// Reload asks for a reload with each value received.
	Reload <-chan struct{}
	// HandOver asks, with a value received, for an end that withdraws nothing
	// and leaves all to the process that comes next.
	HandOver <-chan struct{}
	// Hurry ends a stop that is under way at once, with the first value received.
	Hurry <-chan struct{}
	// Notify tells the service manager, as sd_notify(3) does; nil: nobody.
	Notify func(state string)
	// Watchdog is how often the service manager wants to hear from the
	// loop; 0: never.
	Watchdog time.Duration
}

// Daemon is one running lb4d.
type Daemon struct {
	opts    Options
	log     *slog.Logger
	cfg     *config.Config
	started time.Time
	wake    chan struct{}

	health      checks
	maintenance file
	table       table
	host        host
	sysctls     sysctls
	routes      routes
	peers       peers
	siblings    siblings
	detect      ways
	speaker     *bgp.Speaker // all three of them; nil in a test
	control     *control.Server
	show        func(*control.Status) // publishes
	shown       *control.Status       // what was published last
	requests    chan request          // from control to the loop
	ended       chan struct{}         // closed when the loop has ended

	memory  memory
	probing probing
	report  reporter
	tables  map[l4.Key]knownTable // of the services in the status
	agreement
	seen     atomic.Pointer[view] // what the last pass has left
	planning sync.Mutex           // one plan at a time, for they cost the most
	counters control.Counters
	cfgFile  control.ConfigFile
	settled  bool // a pass has been carried out
	left     left // in the kernel, by the last pass
	// kept is what the process before has left with the peers.
	kept       plan.Kept
	handedOver bool // nothing is to be withdrawn
	// unreadSince is since when no pass could read the kernel as a whole; zero:
	// the last one could.
	unreadSince time.Time
	// readyDue tells that the service manager waits to hear READY=1: at the
	// start, and after each reload.
	readyDue bool
	stopping time.Time // when the daemon was asked to stop
	hurry    bool      // it was asked to once more
	meter    plan.Meter
	drained  *control.DrainReport // the last one; nil: there was none
	reloaded bool                 // since the last pass
}

// Run runs lb4d until ctx is cancelled, then withdraws the routes, gives the
// peers the time to hear of it, and returns. Asked for a hand-over, it returns
// at once, withdraws nothing and leaves what the checks need to the next process.
// Either way IPVS is left forwarding.
//
// An error is what kept it from starting, in one line.
func Run(ctx context.Context, opts Options) error {
	cfg, err := config.Load(opts.ConfigPath)
	if err != nil {
		return err
	}
	// The observers and the speaker must outlive ctx: while the routes are
	// drained, the checks go on and the sessions stay up.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	d, err := start(work, opts, cfg)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.loop(ctx); err != nil {
		return err
	}
	if !d.handedOver {
		d.leave()
	}
	return nil
}

// start opens everything, in the order in which a fault is cheapest.
func start(ctx context.Context, opts Options, cfg *config.Config) (*Daemon, error) {
	d := &Daemon{
		opts: opts, log: opts.Log, cfg: cfg,
		started:  time.Now(),
		wake:     make(chan struct{}, 1),
		readyDue: true,
		requests: make(chan request, maxRequests),
		ended:    make(chan struct{}),
		cfgFile:  control.ConfigFile{Path: opts.ConfigPath, Loaded: time.Now()},
	}
	if d.opts.Notify == nil {
		d.opts.Notify = func(string) {}
	}
	ok := false
	defer func() {
		if !ok {
			d.close()
		}
	}()

	kernel, err := l4.Open()
	if err != nil {
		return nil, err
	}
	d.table = kernel
	if d.host, err = tunnel.OpenHost(); err != nil {
		return nil, err
	}
	d.sysctls = procSysctls{}
	if d.control, err = control.Listen(control.Options{
		Socket: cfg.Control.Socket, Group: cfg.Control.Group, Version: opts.Version, Log: d.log,
		Drain: d.Drain, Undrain: d.Undrain, Explain: d.Explain, Plan: d.Plan, Reset: d.Reset, Disable: d.Disable, Enable: d.Enable,
	}); err != nil {
		return nil, err
	}
	d.show = d.control.Publish
	if err := d.control.SetListen(cfg.HTTP.Listen); err != nil {
		return nil, err
	}
	if d.memory, err = recall(cfg.StateDir); err != nil {
		// It tells which VIPs an earlier process had besides those of this
		// configuration; without it they merely stay. And it tells which
		// members are drained, which somebody has to do again.
		d.log.Error("state not read as a whole; members that lbctl status does not show as drained take new flows again", "err", err)
	}
	d.dropDrains()
	if drained := d.memory.drained(); len(drained) > 0 {
		d.log.Info("members stay drained", "members", few(drained))
	}
	d.maintenance = maintenance.Watch(ctx, cfg.MaintenanceFile, d.poke, d.log)
	d.inherit()
	d.speaker, err = bgp.Start(ctx, bgp.Options{
		AS: cfg.BGP.AS, RouterID: cfg.BGP.RouterID, ListenPort: cfg.BGP.ListenPort,
		Preserved: preserved(d.kept),
	}, d.log, d.poke)
	if err != nil {
		return nil, err
	}
	d.routes, d.peers, d.siblings = d.speaker, d.speaker, d.speaker
	d.detect = bfd.Start(d.log, d.speaker.DropBFDDown, d.poke)
	d.health = health.New(d.log, d.poke)
	ok = true
	return d, nil
}

// poke asks for a pass. It never blocks; pokes that come before the pass are
// one.
func (d *Daemon) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// close lets go of everything that start opened, as far as it came.
func (d *Daemon) close() {
	if d.handedOver && d.speaker != nil {
		d.speaker.Abandon() // before all else, so that nothing is told any more
	}
	if d.health != nil {
		d.health.Close()
	}
	if d.maintenance != nil {
		d.maintenance.Close()
	}
	if d.speaker != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := d.speaker.Close(ctx); err != nil {
			d.log.Warn("BGP speaker not closed in order", "err", err)
		}
	}
	if d.detect != nil {
		// After the sessions, so that none ends by it.
		d.detect.Close()
	}
	if d.control != nil {
		d.control.Close()
	}
}

// loop runs passes until ctx is cancelled and the routes are out.
func (d *Daemon) loop(ctx context.Context) error {
	defer close(d.ended)
	d.log.Info("started", "version", d.opts.Version, "config", d.opts.ConfigPath,
		"vips", len(vipsOf(d.cfg)), "checks", len(plan.Targets(d.cfg)), "peers", len(d.cfg.BGP.Peers))
	tick := time.NewTicker(resync)
	defer tick.Stop()
	var watchdog <-chan time.Time
	if d.opts.Watchdog > 0 {
		// Half the time, as sd_watchdog_enabled(3) asks.
		t := time.NewTicker(d.opts.Watchdog / 2)
		defer t.Stop()
		watchdog = t.C
	}
	next := time.NewTimer(0)
	defer next.Stop()
	sample := time.NewTicker(sampleEvery)
	defer sample.Stop()
	done, hurry := ctx.Done(), d.opts.Hurry

	for {
		answer := func() {}
		select {
		case <-watchdog:
			d.opts.Notify("WATCHDOG=1")
			continue
		case r := <-d.requests:
			if answer = d.take(r); answer == nil {
				continue
			}
		case <-d.opts.Reload:
			if !d.stopping.IsZero() {
				d.ignore("reload")
				continue
			}
			d.reload()
		case <-d.opts.HandOver:
			if !d.stopping.IsZero() {
				d.ignore("hand-over")
				continue
			}
			d.handOver()
			return nil
		case <-done:
			done = nil
			d.stop()
		case <-hurry:
			if d.stopping.IsZero() {
				continue
			}
			hurry, d.hurry = nil, true
			d.log.Info("stopping at once, as asked again")
		case <-sample.C:
			if d.meter.Active() {
				d.sample(time.Now())
			}
			continue
		case <-d.wake:
		case <-tick.C:
		case <-next.C:
		}
		again := d.pass()
		answer()
		if !d.stopping.IsZero() && len(d.memory.announced) == 0 && (d.hurry || !d.meter.Active()) {
			d.tellDrain(d.meter.End(time.Now()))
			return nil
		}
		if !again.IsZero() {
			next.Reset(max(0, time.Until(again)))
		}
	}
}

// stop begins the end: from now on each pass drains and withdraws.
func (d *Daemon) stop() {
	d.stopping = time.Now()
	// The drain may last longer than the manager would wait by itself.
	patience := d.cfg.BGP.DrainTime + plan.LateFor + 10*time.Second
	d.opts.Notify(fmt.Sprintf("STOPPING=1\nEXTEND_TIMEOUT_USEC=%d", patience.Microseconds()))
	d.log.Info("stopping", "drain_time", d.cfg.BGP.DrainTime, "announced", len(d.memory.announced))
}

// vipsOf lists the VIPs of a configuration, each once.
func vipsOf(cfg *config.Config) map[netip.Addr]bool {
	vips := map[netip.Addr]bool{}
	for _, s := range cfg.Services {
		for _, vip := range s.VIPs {
			vips[vip] = true
		}
	}
	return vips
}
