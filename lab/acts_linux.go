package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"lb4d/lab/load"
)

// The events. addedName must come first, since the lab comes up without the host
// that it adds.
const (
	addedName     = "LB7 added"
	disabledName  = "LB4 disabled, and back"
	drainedName   = "LB7 drained, and back"
	restartedName = "balancer restarted"
	killedName    = "balancer killed"
	upgradedName  = "balancer upgraded"
	haproxyName   = "HAProxy killed"
	cutOffName    = "LB7 host cut off"
	historyName   = "random history, then an LB4 disabled"
	icmpName      = "ICMP after an ECMP change"
)

// TrialNames lists the events in the order in which they are played.
func TrialNames() []string {
	return []string{
		addedName, disabledName, drainedName, restartedName, killedName, upgradedName,
		haproxyName, cutOffName, historyName, icmpName,
	}
}

// restartAfter is when a supervisor starts again what was killed: RestartSec of
// the unit.
const restartAfter = time.Second

// acts are the events in the order in which they are played.
func (b *bout) acts() []act {
	first, last := b.Topology.ByRole(RoleLB7)[0], b.Topology.last()
	return []act{
		{trial: Trial{Name: addedName, Allowed: "0", OneWay: true}, play: b.added},
		{trial: Trial{Name: disabledName, Allowed: "0"}, play: b.disabled},
		{trial: Trial{Name: drainedName, Allowed: "0"}, play: func(ctx context.Context, t *Trial) (mercy, error) {
			return mercy{}, b.doAndUndo(ctx, t, b.drainDeed(first), b.undrainDeed(first))
		}},
		{trial: Trial{Name: restartedName, Allowed: "0", OneWay: true}, play: b.restarted},
		{trial: Trial{Name: killedName, Allowed: "0", OneWay: true}, play: b.killed},
		{trial: Trial{Name: upgradedName, Allowed: "0", OneWay: true}, prepare: b.unpack, play: b.upgraded},
		{trial: Trial{Name: haproxyName, Allowed: "carried, new " + words(b.blind())},
			play: func(ctx context.Context, t *Trial) (mercy, error) { return b.haproxyKilled(ctx, t, last) }},
		b.cutOff(last),
		{trial: Trial{Name: historyName, Allowed: "on a failed LB7"}, play: func(ctx context.Context, t *Trial) (mercy, error) {
			return b.history(ctx, t, 10)
		}},
		{trial: Trial{Name: icmpName, Allowed: "all", Instant: true}, quiet: true, play: b.fragmentationNeeded},
	}
}

// blind is how long new flows may be sent to an LB7 host that is gone.
func (b *bout) blind() time.Duration {
	return checkFall*b.Topology.Sizes.CheckInterval() + 500*time.Millisecond + b.noise
}

// added lets one more LB7 host take part, by a reload.
func (b *bout) added(ctx context.Context, t *Trial) (mercy, error) {
	return mercy{}, b.do(ctx, &t.React, deed{
		told: "every LB4: one LB7 more in the configuration, and HUP",
		do:   func() error { return b.reconfigure(Pool{PurgeAfter: trialPurge}) },
		seen: b.weights(b.Topology.last(), func(w int) bool { return w > 0 }),
		came: "in every LB4's IPVS",
	})
}

// last is the LB7 host that is not in the pool at first.
func (t *Topology) last() *Host {
	lb7s := t.ByRole(RoleLB7)
	return lb7s[len(lb7s)-1]
}

// addLast is added without anybody looking.
func (b *bout) addLast(ctx context.Context) error {
	_, err := b.added(ctx, new(Trial))
	return err
}

// reconfigure writes the LB4 hosts' configuration and has it read.
func (b *bout) reconfigure(pool Pool) error {
	for _, h := range b.Topology.ByRole(RoleLB4) {
		files, err := b.Topology.filesOf(h, pool)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.WriteFile(b.Path(h.Name, f.Path), []byte(f.Content), 0o644); err != nil {
				return fmt.Errorf("configuring %s: %w", h.Name, err)
			}
		}
		if err := b.Kill(h.Name, b.Topology.balancers()[0], syscall.SIGHUP); err != nil {
			return err
		}
	}
	return nil
}

// disabled takes an LB4 host out of service by its maintenance file, and back.
func (b *bout) disabled(ctx context.Context, t *Trial) (mercy, error) {
	h := b.Topology.ByRole(RoleLB4)[0]
	return mercy{}, b.doAndUndo(ctx, t, b.disableDeed(h), b.enableDeed(h))
}

// back waits until all is in the routers' tables.
func (b *bout) back(ctx context.Context) (time.Time, error) {
	return b.watch.wait(ctx, func(r Routes) bool { return len(b.missing(r)) == 0 })
}

// again lets a withdrawal come through, if there was any, and waits for its
// end. Routes that never left give a time before the deed's.
func (b *bout) again(ctx context.Context) (time.Time, error) {
	if err := pause(ctx, time.Second); err != nil {
		return time.Time{}, err
	}
	return b.back(ctx)
}

const againWords = "in every router's table"

// restarted ends what balances on an LB4 host and starts it again. Where it
// is two programs, the one that announces goes first and comes last.
func (b *bout) restarted(ctx context.Context, t *Trial) (mercy, error) {
	h, names := b.Topology.ByRole(RoleLB4)[0].Name, b.Topology.balancers()
	return mercy{}, b.do(ctx, &t.React, deed{
		told: fmt.Sprintf("%s: %v restarted", h, names),
		do: func() error {
			for _, name := range slices.Backward(names) {
				if err := b.Stop(h, name); err != nil {
					return err
				}
			}
			return b.startAgain(h)
		},
		seen: b.again, came: againWords,
	})
}

func (b *bout) startAgain(host string) error {
	for _, name := range b.Topology.balancers() {
		if err := b.Start(host, name); err != nil {
			return err
		}
	}
	return nil
}

// killed kills it, and has the supervisor start it again.
func (b *bout) killed(ctx context.Context, t *Trial) (mercy, error) {
	h, names := b.Topology.ByRole(RoleLB4)[0].Name, b.Topology.balancers()
	return mercy{}, b.do(ctx, &t.React, deed{
		told: fmt.Sprintf("%s: %v killed, started again after %s", h, names, words(restartAfter)),
		do: func() error {
			for _, name := range names {
				if err := b.signalAll(h, name, syscall.SIGKILL); err != nil {
					return err
				}
			}
			return errors.Join(pause(ctx, restartAfter), b.startAgain(h))
		},
		seen: b.again, came: againWords,
	})
}

// unpack puts the new programs where the next start finds them.
func (b *bout) unpack() error {
	for _, name := range b.Topology.balancers() {
		if err := b.replace(b.Topology.ByRole(RoleLB4)[0].Name, name); err != nil {
			return err
		}
	}
	return nil
}

// upgraded has the new programs take over one by one, as the packages of a
// distribution do. lb4d is told to hand over, and started by its supervisor.
func (b *bout) upgraded(ctx context.Context, t *Trial) (mercy, error) {
	h, names := b.Topology.ByRole(RoleLB4)[0].Name, b.Topology.balancers()
	return mercy{}, b.do(ctx, &t.React, deed{
		told: fmt.Sprintf("%s: %v upgraded, one by one", h, names),
		do: func() error {
			for _, name := range names {
				if err := b.succeed(ctx, h, name); err != nil {
					return err
				}
			}
			return nil
		},
		seen: b.again, came: againWords,
	})
}

// succeed has the next process of a program take over from the one that runs.
func (b *bout) succeed(ctx context.Context, host, process string) error {
	if b.Topology.Balancer != LB4D {
		return b.Restart(host, process)
	}
	p, _, err := b.find(host, process)
	if err != nil {
		return err
	}
	if err := p.signal(syscall.SIGUSR2); err != nil {
		return fmt.Errorf("handing over on %s: %w", host, err)
	}
	for end := time.Now().Add(stopTimeout); time.Now().Before(end); {
		if pid, _, _ := p.state(); pid == 0 {
			return errors.Join(pause(ctx, restartAfter), b.Start(host, process))
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("handing over on %s: %s has not ended after %v", host, process, stopTimeout)
}

// replace puts another file in the place of a process's program, for its next
// start.
func (b *bout) replace(host, process string) error {
	p, _, err := b.find(host, process)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(p.argv[0])
	if err != nil {
		return fmt.Errorf("replacing %s: %w", process, err)
	}
	path := filepath.Join(b.dir, "new-"+process)
	if err := os.WriteFile(path, program, 0o755); err != nil {
		return fmt.Errorf("replacing %s: %w", process, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.argv = append([]string{path}, p.argv[1:]...)
	return nil
}

// signalAll sends a signal to a process and to all that it has started.
func (b *bout) signalAll(host, process string, sig syscall.Signal) error {
	p, _, err := b.find(host, process)
	if err != nil {
		return err
	}
	pid, _, _ := p.state()
	if pid == 0 {
		return fmt.Errorf("sending %v to %s on %s: it is not running", sig, process, host)
	}
	if err := syscall.Kill(-pid, sig); err != nil {
		return fmt.Errorf("sending %v to %s on %s: %w", sig, process, host, err)
	}
	return nil
}

// haproxyKilled ends an LB7 host's HAProxy the hard way, and starts it again.
func (b *bout) haproxyKilled(ctx context.Context, t *Trial, h *Host) (mercy, error) {
	m := mercy{lost: map[string]bool{h.Name: true}, from: time.Now(), newFor: b.blind()}
	t.note("it carried %d", carried(b.traffic.Snapshot())[h.Name])
	return m, b.doAndUndo(ctx, t, b.killDeed(h), b.reviveDeed(h))
}

// cutOff takes an LB7 host off the network. Half of the downloads belong to
// users who send something now and then: these must learn of it.
func (b *bout) cutOff(h *Host) act {
	interval := b.Topology.Sizes.CheckInterval()
	// purge_after counts from the first check that fails: it is made within
	// an interval, and ends with its timeout.
	limit := interval + checkTimeout + trialPurge + time.Second + b.noise
	silent, sending := load.Hold(b.flows/2, holdRamp), load.Hold(b.flows-b.flows/2, holdRamp)
	silent.Name, sending.Name, sending.Probe = kindHeld+"-silent", kindHeld+"-sending", time.Second
	a := act{
		trial: Trial{
			Name:    cutOffName,
			Allowed: "carried, reset " + words(limit),
		},
		kinds: []load.Kind{silent, sending},
		stall: limit + 3*time.Second,
	}
	a.play = func(ctx context.Context, t *Trial) (mercy, error) {
		m := mercy{lost: map[string]bool{h.Name: true}, from: time.Now(), newFor: b.blind()}
		m.reset = map[string]time.Duration{sending.Name: limit}
		t.note("it carried %d", carried(b.traffic.Snapshot())[h.Name])
		err := b.do(ctx, &t.React, deed{
			told: h.Name + ": cut off",
			do:   func() error { return b.plugIn(h, false) },
			seen: b.weights(h, func(w int) bool { return w == 0 }), came: "weight 0 in every LB4's IPVS",
		})
		// The host is away until the last user has given up.
		return m, errors.Join(err, pause(ctx, a.stall), b.do(ctx, &t.Back, deed{
			told: h.Name + ": plugged in",
			do:   func() error { return b.plugIn(h, true) },
			seen: b.weights(h, func(w int) bool { return w > 0 }), came: "back in every LB4's IPVS",
		}))
	}
	return a
}

// plugIn connects a host to its segments, or cuts it off, at the switch: the
// host sees the carrier go, and all others see nothing.
func (l *Lab) plugIn(h *Host, up bool) error {
	ether := l.wiring.ether.rtnl
	set := ether.LinkSetDown
	if up {
		set = ether.LinkSetUp
	}
	for i := range h.Links {
		port, err := ether.LinkByName(portName(h.Name, i))
		if err == nil {
			err = set(port)
		}
		if err != nil {
			return fmt.Errorf("plugging %s in or out: %w", h.Name, err)
		}
	}
	return nil
}
