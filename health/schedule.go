package health

import (
	"math"
	"time"
)

// firstWithin bounds how long a new target waits for its first probe. Nothing
// is programmed or announced before every target has answered once, so this is
// part of the time that a start takes.
const firstWithin = 200 * time.Millisecond

// phase is a target's fixed place within the interval, in [0, 1). It is a
// fraction so that it survives a change of the interval.
type phase float64

// placed is the phase of the target that took place number n, on a host whose
// offset is given.
//
// Multiples of the golden ratio, taken modulo 1, fall evenly whatever their
// number, and the next one always falls into one of the widest gaps. So targets
// may come and go on reload without moving those that stay, and the members of
// one pool, which take places in a row, are spread as well as all targets are.
func placed(n int, offset float64) phase {
	_, fraction := math.Modf(float64(n)*math.Phi + offset)
	return phase(fraction)
}

// after is the first tick later than t. Both count from the same epoch, as the
// ticks do, so that the sum of many intervals cannot drift; t is not negative.
func (p phase) after(t, interval time.Duration) time.Duration {
	first := time.Duration(float64(p) * float64(interval))
	if t < first {
		return first
	}
	return first + ((t-first)/interval+1)*interval
}

// first is the time of the first probe of a target seen at t.
func (p phase) first(t, interval time.Duration) time.Duration {
	return t + time.Duration(float64(p)*float64(min(interval, firstWithin)))
}

// next is the tick that follows the probe due at due, as seen at now. Where more
// than one has passed in the meantime, because a probe took longer than the
// interval or the machine stood still, they are merged into one that is due at
// once.
//
// A probe may have been due off the ticks: the first one is, and one before a
// change of the interval. A tick that comes within a quarter of the interval
// after it is left out, as two answers from one moment are not two in a row.
func (p phase) next(due, now, interval time.Duration) time.Duration {
	tick := p.after(due+interval/4, interval)
	if tick < now-interval {
		tick = p.after(now-interval, interval)
	}
	return tick
}
