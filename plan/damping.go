package plan

import (
	"fmt"
	"net/netip"
	"time"

	"lb4d/config"
	"lb4d/health"
)

// Flaps is how often a VIP has failed lately: how often a service on it has
// ceased to forward by what its members' checks said, or the kernel has not had
// what a route that stood needs. What an operator did is no failure.
type Flaps struct {
	// Count is that of the moment Last; it shrinks as time goes by.
	Count int
	// Last is when it failed last.
	Last time.Time
}

// at is how many failures are remembered at the time now.
func (f Flaps) at(now time.Time, d config.Damping) int {
	if f.Count == 0 || d.ForgetAfter <= 0 {
		return f.Count
	}
	return max(0, f.Count-int(max(0, now.Sub(f.Last))/d.ForgetAfter))
}

// failed is what is remembered after one more failure. The count ends where it
// has no effect any more, so that a long bad night is forgotten in bounded time.
func (f Flaps) failed(now time.Time, d config.Damping) Flaps {
	most := d.Tolerate + 1
	for hold := d.HoldDown; hold > 0 && hold < d.MaxHoldDown; hold *= 2 {
		most++
	}
	return Flaps{Count: min(f.at(now, d)+1, most), Last: now}
}

// heldUntil is when a VIP may be announced again, if it does not fail before;
// zero: at once.
func (f Flaps) heldUntil(d config.Damping) time.Time {
	beyond := f.Count - d.Tolerate
	if beyond <= 0 || d.HoldDown <= 0 {
		return time.Time{}
	}
	hold := d.HoldDown
	for ; beyond > 1 && hold < d.MaxHoldDown; beyond-- {
		hold *= 2
	}
	return f.Last.Add(min(hold, d.MaxHoldDown))
}

// Lost takes in what Verify has made of the VIPs: a route that stood and goes,
// because something keeps taking away what it needs in the kernel, is a failure
// like one of the checks. Without that it would come and go with each pass.
func (d *Decision) Lost(cfg *config.Config, obs Observations, verified []VIP) {
	for i, v := range verified {
		if obs.Announced[v.Addr] && d.VIPs[i].State == Announced && v.State == Withdrawn {
			d.Flaps[v.Addr] = d.Flaps[v.Addr].failed(obs.Now, cfg.Damping)
		}
	}
}

// fell tells that the checks have made a service that forwarded cease to. It is
// the operator's doing where the members that an operator has drained would
// suffice, or where the configuration has just changed.
func (p *planner) fell(f family, drained int) bool {
	return f.was && !f.forwarding() && f.unanswered == 0 && f.up+drained < f.needed() && !p.obs.Reloaded
}

// drainedUp tells that a member is up and does not count as such only because an
// operator has drained it.
func (p *planner) drainedUp(target health.Target) bool {
	return p.obs.Health[target].State == health.Up && p.state(target) == health.Draining
}

// flaps brings what is remembered of a VIP up to date.
func (p *planner) flaps(vip netip.Addr, services []Service) Flaps {
	f := p.obs.Flaps[vip]
	for _, s := range services {
		if p.fallen[ServiceFamily{Service: s.Config.Name, IPv6: vip.Is6()}] {
			f = f.failed(p.obs.Now, p.cfg.Damping)
			break
		}
	}
	left := f.at(p.obs.Now, p.cfg.Damping)
	if left == 0 {
		return Flaps{}
	}
	// One is forgotten after the other, and status tells how many are left.
	if p.cfg.Damping.ForgetAfter > 0 {
		p.changesAt(f.Last.Add(time.Duration(f.Count-left+1) * p.cfg.Damping.ForgetAfter))
	}
	return f
}

// held is why a VIP that could be announced is not yet; empty: it may be.
func (p *planner) held(vip netip.Addr, f Flaps) (reason string) {
	until := f.heldUntil(p.cfg.Damping)
	if p.obs.Announced[vip] || p.obs.Kept[vip] || !p.obs.Now.Before(until) {
		return ""
	}
	p.changesAt(until)
	// A time, and not how long it is until then: the reason stays the same.
	return fmt.Sprintf("held down until %s, because it has failed %d times",
		until.UTC().Truncate(time.Second).Format(time.RFC3339), f.at(p.obs.Now, p.cfg.Damping))
}
