package config

import (
	"fmt"
	"time"
)

const (
	defaultTolerate    = 2
	defaultHoldDown    = 10 * time.Second
	defaultMaxHoldDown = 5 * time.Minute
	defaultForgetAfter = 5 * time.Minute
	// maxTolerate and maxHold bound what can be asked for: a VIP that is held
	// for a day has been forgotten.
	maxTolerate = 100
	maxHold     = time.Hour
	maxForget   = 24 * time.Hour
)

// Damping is how long a VIP is held back that fails again and again. It has its idea from
// RFC 2439, and its numbers from what an operator can follow by hand.
type Damping struct {
	// Tolerate is how many failures cost nothing.
	Tolerate int
	// HoldDown is how long a VIP must have been without a failure, after one
	// more than Tolerate, before it is announced again. It doubles with each
	// further failure, up to MaxHoldDown. 0: nothing is ever held back.
	HoldDown, MaxHoldDown time.Duration
	// ForgetAfter is the time without a failure after which one is forgotten,
	// and another one after each further such time.
	ForgetAfter time.Duration
}

// damping validates [damping].
func (c *checker) damping(r *rawDamping) Damping {
	d := Damping{
		Tolerate:    int(c.integer(r.tolerate, defaultTolerate, 0, maxTolerate)),
		HoldDown:    c.duration(r.holdDown, defaultHoldDown, 0, maxHold),
		MaxHoldDown: c.duration(r.maxHoldDown, defaultMaxHoldDown, 0, maxHold),
		ForgetAfter: c.duration(r.forgetAfter, defaultForgetAfter, time.Second, maxForget),
	}
	if d.MaxHoldDown < d.HoldDown {
		at := r.maxHoldDown.place
		if !r.maxHoldDown.present {
			at = r.holdDown.place
		}
		c.fault(at, "max_hold_down %s is less than hold_down %s; write at least as much", spell(d.MaxHoldDown), spell(d.HoldDown))
	}
	return d
}

// drainAttributes validates what routes say while they drain: it must never be
// better than what they say otherwise, or the drain would draw traffic.
func (c *checker) drainAttributes(r *rawBGP, cfg *Config) {
	b := &cfg.BGP
	b.DrainMED = c.optional(r.drainMED, 0)
	if r.drainPrepend.ok {
		b.DrainPrepend = new(int(c.integer(r.drainPrepend, 0, 0, maxPrepend)))
	}
	check := func(whose string, a Attributes) bool {
		if b.DrainMED != nil && a.MED != nil && *a.MED > *b.DrainMED {
			c.fault(r.drainMED.place, "%d is better than the med of %s, which is %d, and would draw traffic; write that or more", *b.DrainMED, whose, *a.MED)
			return false
		}
		if b.DrainPrepend != nil && a.Prepend != nil && *a.Prepend > *b.DrainPrepend {
			c.fault(r.drainPrepend.place, "%d is better than the prepend of %s, which is %d, and would draw traffic; write that or more", *b.DrainPrepend, whose, *a.Prepend)
			return false
		}
		return true
	}
	if !check("[bgp]", b.Attributes) {
		return // the peers that have it from there would only repeat it
	}
	for _, p := range b.Peers {
		if !check(fmt.Sprintf("[bgp.peer.%s]", p.Name), p.Attributes) {
			return
		}
	}
	for _, s := range cfg.Services {
		if !check(fmt.Sprintf("[service.%s.bgp]", s.Name), s.Attributes) {
			return
		}
	}
}
