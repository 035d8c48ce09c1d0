package lb7

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"lb4d/config"
	"lb4d/control"
	"lb4d/tunnel"
)

const (
	// tunnelEvery is how often the tunnels are looked at although the kernel
	// has told of no change: of sysctls and GUE ports it tells of none.
	tunnelEvery = time.Second
	// tunnelGap is the least time between two looks. A routing daemon at work
	// changes hundreds of routes a second.
	tunnelGap = 250 * time.Millisecond
	// tunnelState is the file in the state directory that says what a teardown
	// has to set back.
	tunnelState = "tunnel.json"
)

// tunnelPart keeps the tunnels, the VIPs and what belongs to them.
type tunnelPart struct {
	log     *slog.Logger
	ctx     context.Context
	changed func()

	mu      sync.Mutex     // guards what follows
	running *runningTunnel // nil: off
}

// runningTunnel is one Decapsulator with the goroutine that has it.
type runningTunnel struct {
	log     *slog.Logger
	changed func()
	dec     *tunnel.Decapsulator
	cancel  context.CancelFunc
	ended   chan struct{}
	wake    chan struct{}

	mu       sync.Mutex // guards what follows
	want     tunnel.Decapsulation
	fresh    bool // want has not been applied yet
	tried    bool // something has been applied
	applied  tunnel.Applied
	at       time.Time // of the last success
	seen     time.Time // the goroutine was at work
	fault    string
	repaired uint64
}

// decapsulation is what the room needs of a configuration.
func decapsulation(t *config.Tunnel) tunnel.Decapsulation {
	d := tunnel.Decapsulation{
		VIPs: t.VIPs, Local: t.Local, Sources: t.Sources,
		GUEPort: t.GUEPort, MTU: t.MTU, KeepRoutes: t.KeepRoutes,
	}
	for _, m := range t.Modes {
		d.Modes = append(d.Modes, tunnel.Mode(m))
	}
	return d
}

// prepare implements part. What the kernel refuses shows in the status and is
// tried again: a module may be loaded later, and a host with one mode that does
// not work goes on with the others.
func (p *tunnelPart) prepare(_ context.Context, cfg *config.LB7) (change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.running
	if cfg.Tunnel == nil {
		if old == nil {
			return change{}, nil
		}
		return change{commit: func() {
			p.close()
			p.log.Info("tunnels are no longer kept, and stay as they are; lb7d -teardown removes them")
		}}, nil
	}
	want := decapsulation(cfg.Tunnel)
	if err := want.Validate(); err != nil {
		return change{}, fmt.Errorf("tunnel: %w", err)
	}
	if old != nil {
		return change{commit: func() { old.set(want) }}, nil
	}
	dec, err := tunnel.OpenDecapsulator(filepath.Join(cfg.StateDir, tunnelState))
	if err != nil {
		return change{}, fmt.Errorf("tunnel: %w", err)
	}
	return change{
		commit: func() { p.start(dec, want) },
		undo:   func() { _ = dec.Close() },
	}, nil
}

func (p *tunnelPart) start(dec *tunnel.Decapsulator, want tunnel.Decapsulation) {
	ctx, cancel := context.WithCancel(p.ctx)
	r := &runningTunnel{
		log: p.log, changed: p.changed, dec: dec, cancel: cancel,
		ended: make(chan struct{}), wake: make(chan struct{}, 1),
		want: want, fresh: true, seen: time.Now(),
	}
	p.mu.Lock()
	p.running = r
	p.mu.Unlock()
	go r.run(ctx)
}

// set has another state kept from now on.
func (r *runningTunnel) set(want tunnel.Decapsulation) {
	r.mu.Lock()
	if reflect.DeepEqual(want, r.want) {
		r.mu.Unlock()
		return
	}
	r.want, r.fresh = want, true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run keeps the tunnels until ctx ends, and leaves them.
func (r *runningTunnel) run(ctx context.Context) {
	defer close(r.ended)
	defer r.dec.Close()
	// From before the first look on, so that no change falls between the two.
	changes, err := r.dec.Watch(ctx)
	if err != nil {
		r.log.Warn("changes of tunnels are not told by the kernel, and are looked for", "every", tunnelEvery, "err", oneLine(err))
	}
	tick := time.NewTicker(tunnelEvery)
	defer tick.Stop()
	gap := time.NewTimer(tunnelGap)
	defer gap.Stop()
	for ctx.Err() == nil {
		r.apply()
		gap.Reset(tunnelGap)
		select {
		case <-ctx.Done():
			return
		case <-gap.C:
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-tick.C:
		case <-changes:
		}
	}
}

// apply makes the host as it should be and tells what that took.
func (r *runningTunnel) apply() {
	r.mu.Lock()
	want, fresh := r.want, r.fresh
	r.fresh = false
	r.mu.Unlock()
	a, err := r.dec.Apply(want)

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range a.Changes {
		if fresh {
			r.log.Info("tunnels set up", "change", c)
		} else {
			r.log.Warn("tunnels put right", "change", c)
			r.repaired++
		}
	}
	for _, u := range a.Unlimited {
		if !slices.Contains(r.applied.Unlimited, u) {
			r.log.Warn("segments are not limited on a route, so full-size packets of users may not fit the tunnel", "route", u,
				"remedy", `HAProxy's "mss" on its bind lines`)
		}
	}
	fault := oneLine(err)
	switch {
	case fault != "" && fault != r.fault:
		r.log.Error("tunnels are not as they should be", "err", fault)
	case fault == "" && r.fault != "":
		r.log.Info("tunnels are as they should be again")
	}
	told := !r.tried || len(a.Changes) > 0 || fault != r.fault
	now := time.Now()
	r.applied, r.fault, r.tried, r.seen = a, fault, true, now
	if err == nil {
		r.at = now
	}
	if told {
		r.changed()
	}
}

// report implements part.
func (p *tunnelPart) report(st *control.LB7Status) (bool, time.Time) {
	p.mu.Lock()
	r := p.running
	p.mu.Unlock()
	if r == nil {
		return true, time.Now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &control.Tunnel{
		Devices: r.applied.Devices, MTU: r.applied.MTU, MSS4: r.applied.MSS4, MSS6: r.applied.MSS6,
		Unlimited: r.applied.Unlimited, Error: r.fault, Applied: r.at, Repaired: r.repaired,
	}
	for _, v := range r.want.VIPs {
		t.VIPs = append(t.VIPs, v.String())
	}
	for _, m := range r.want.Modes {
		t.Modes = append(t.Modes, string(m))
	}
	st.Tunnel = t
	if t.Error != "" {
		st.Errors = append(st.Errors, "tunnel: "+t.Error)
	}
	return r.tried && !r.fresh, r.seen
}

// close ends the keeping. Everything stays, so that the host goes on answering.
func (p *tunnelPart) close() {
	p.mu.Lock()
	r := p.running
	p.running = nil
	p.mu.Unlock()
	if r != nil {
		r.cancel()
		<-r.ended
	}
}

// Teardown removes the tunnels that a lb7d with this configuration has made,
// whether or not it has [tunnel] still, and sets back what it changed for them.
// The lines say what was done. It refuses while an lb7d runs that would make
// them anew.
func Teardown(ctx context.Context, configPath string) (changes []string, err error) {
	cfg, err := config.LoadLB7(configPath)
	if err != nil {
		return nil, err
	}
	ask, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if st, err := control.NewLB7Client(cfg.Control.Socket).LB7Status(ask); err == nil && st.Tunnel != nil {
		return nil, errors.New("lb7d runs and would make the tunnels anew: stop it first, or take [tunnel] out of its configuration and reload it")
	}
	dec, err := tunnel.OpenDecapsulator(filepath.Join(cfg.StateDir, tunnelState))
	if err != nil {
		return nil, err
	}
	changes, err = dec.Teardown()
	return changes, errors.Join(err, dec.Close())
}
