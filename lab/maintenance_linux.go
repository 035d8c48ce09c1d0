package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"lb4d/control"
	"lb4d/lab/load"
)

// What the lab's lb4d.toml asks of the checks, beside the interval.
const (
	checkFall = 3
	checkRise = 2
	// checkTimeout is longer than usual, since one processor carries all hosts.
	checkTimeout = 900 * time.Millisecond
	// slack is what a check and the work after it may take.
	slack = 500 * time.Millisecond
	// noise is what one processor that carries the whole lab may add to a
	// chain of several checks.
	noise = 500 * time.Millisecond
)

// playMaintenance is what people on call do, and what happens to them.
func playMaintenance(ctx context.Context, s *stage) error {
	if err := s.startTraffic(ctx, 40, 8*time.Second, 30); err != nil {
		return err
	}
	lb4 := s.Topology.ByRole(RoleLB4)[0]
	lb7s := s.Topology.ByRole(RoleLB7)
	for _, play := range []func() error{
		func() error { return s.disable(ctx, lb4) },
		func() error { return s.drain(ctx, lb7s[0]) },
		func() error { return s.killHAProxy(ctx, lb7s[len(lb7s)-1]) },
	} {
		if err := play(); err != nil {
			return err
		}
	}
	return nil
}

// disable takes an LB4 host out of service by its maintenance file.
func (s *stage) disable(ctx context.Context, h *Host) error {
	e := Event{Name: h.Name + " disabled", ReactLimit: time.Second, BackLimit: 2 * time.Second}
	return s.event(ctx, e, s.disableDeed(h), s.enableDeed(h))
}

const maintenanceFile = "/etc/lb/disable"

func (s *stage) disableDeed(h *Host) deed {
	return deed{
		told: fmt.Sprintf("%s: touch %s", h.Name, maintenanceFile),
		do:   func() error { return os.WriteFile(s.Path(h.Name, maintenanceFile), nil, 0o644) },
		seen: func(ctx context.Context) (time.Time, error) {
			return s.watch.wait(ctx, func(r Routes) bool { return !r.Through(h.Address) && !r.Through(h.Address6) })
		},
		came: "out of every router's table",
	}
}

func (s *stage) enableDeed(h *Host) deed {
	return deed{
		told: fmt.Sprintf("%s: rm %s", h.Name, maintenanceFile),
		do:   func() error { return os.Remove(s.Path(h.Name, maintenanceFile)) },
		seen: func(ctx context.Context) (time.Time, error) {
			return s.watch.wait(ctx, func(r Routes) bool { return len(s.missing(r)) == 0 })
		},
		came: "back in every router's table",
	}
}

// drain takes an LB7 host out of service by its lb7d.
func (s *stage) drain(ctx context.Context, h *Host) error {
	interval := s.Topology.Sizes.CheckInterval()
	e := Event{
		Name:       h.Name + " drained",
		ReactLimit: interval + slack,
		BackLimit:  checkRise*interval + slack,
	}
	return s.event(ctx, e, s.drainDeed(h), s.undrainDeed(h))
}

func (s *stage) drainDeed(h *Host) deed {
	const reason = "work on the host"
	return deed{
		told: fmt.Sprintf("%s: lbctl drain --reason %q", h.Name, reason),
		do: func() error {
			_, err := s.lb7d(h).HostDrain(context.Background(), control.HostDrainRequest{Reason: reason})
			return err
		},
		seen: s.weights(h, func(w int) bool { return w == 0 }),
		came: "weight 0 in every LB4's IPVS",
	}
}

func (s *stage) undrainDeed(h *Host) deed {
	return deed{
		told: h.Name + ": lbctl undrain",
		do: func() error {
			_, err := s.lb7d(h).HostUndrain(context.Background(), control.HostDrainRequest{})
			return err
		},
		seen: s.weights(h, func(w int) bool { return w > 0 }),
		came: "back in every LB4's IPVS",
	}
}

// lb7d asks the daemon of an LB7 host, as lbctl does there.
func (l *Lab) lb7d(h *Host) *control.Client {
	return control.NewLB7Client(l.Path(h.Name, control.DefaultLB7Socket))
}

// killHAProxy ends an LB7 host's HAProxy the hard way. Its own flows are lost
// with it; beyond these only new ones that IPVS sends there may break, until it no
// longer does.
func (s *stage) killHAProxy(ctx context.Context, h *Host) error {
	e := Event{
		Name:       h.Name + ": HAProxy killed",
		ReactLimit: checkFall*s.Topology.Sizes.CheckInterval() + slack + noise,
		Excuse:     "its flows, new ones until then",
	}
	e.excused = func(e *Event, f load.Fault) bool {
		if f.LB7 != "" {
			return f.LB7 == h.Name
		}
		// No answer had begun, so it may have been sent to the dead one, if
		// it was sent before the reaction.
		began := f.At.Add(-time.Duration(f.After * float64(time.Millisecond)))
		return slices.ContainsFunc(e.Attempts, func(a Attempt) bool {
			return a.React != nil && !f.At.Before(a.From) && !began.After(a.From.Add(*a.React+slack))
		})
	}
	return s.event(ctx, e, s.killDeed(h), s.reviveDeed(h))
}

func (s *stage) killDeed(h *Host) deed {
	return deed{
		told: h.Name + ": kill -9 HAProxy",
		do:   func() error { return s.Kill(h.Name, "haproxy", syscall.SIGKILL) },
		seen: s.weights(h, func(w int) bool { return w == 0 }),
		came: "weight 0 in every LB4's IPVS",
	}
}

func (s *stage) reviveDeed(h *Host) deed {
	return deed{
		told: h.Name + ": HAProxy started again",
		do:   func() error { return s.Start(h.Name, "haproxy") },
		seen: s.weights(h, func(w int) bool { return w > 0 }),
		came: "back in every LB4's IPVS",
	}
}

// weights waits until cond holds for a host's weight in every service of every
// LB4's IPVS table. A destination that is not there has weight 0.
func (l *Lab) weights(h *Host, cond func(weight int) bool) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (time.Time, error) {
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for {
			holds := true
			for _, lb4 := range l.Topology.ByRole(RoleLB4) {
				table, err := l.IPVS(lb4.Name)
				if err != nil {
					return time.Time{}, err
				}
				holds = holds && weightsHold(table, l.Topology.VIPs, h, cond)
			}
			if holds {
				return time.Now(), nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return time.Time{}, fmt.Errorf("waiting for the weights of %s: %w", h.Name, ctx.Err())
			}
		}
	}
}

// weightsHold looks at a host's weight behind every service address.
func weightsHold(table []Destination, vips []netip.Addr, h *Host, cond func(int) bool) bool {
	for _, v := range vips {
		member := h.member(v)
		weight := 0
		i := slices.IndexFunc(table, func(d Destination) bool { return d.VIP.Addr() == v && d.Member.Addr() == member })
		if i >= 0 {
			weight = table[i].Weight
		}
		if !cond(weight) {
			return false
		}
	}
	return true
}
