package slots

import (
	"net/netip"
	"time"
)

// Advance lets weights grow whose time has come, without a list: a ramp goes
// on while the source is away.
func Advance(before Record, now time.Time, p Policy) (Record, Changes) {
	s := begin(before, now, p)
	s.ramp()
	return s.end(before)
}

// ramp lets weights grow whose time has come. Several steps that were missed
// are made up for at once, as if they had been taken in time.
func (s *step) ramp() {
	ramp := s.policy.Ramp
	for i := range s.Slots {
		slot := &s.Slots[i]
		if slot.State == Free || slot.Weight == slot.Full {
			continue
		}
		switch {
		case slot.Weight > slot.Full, ramp.Every <= 0, ramp.Step <= 0:
			slot.Weight, slot.RampedAt = slot.Full, s.now
			continue
		case slot.PassedAt.IsZero():
			continue
		}
		if slot.RampedAt.After(s.now.Add(ramp.Every)) {
			// By another clock, or in another time zone: HSDO's has none.
			slot.RampedAt = s.now
		}
		if steps := int(s.now.Sub(slot.RampedAt) / ramp.Every); steps > 0 {
			// Steps beyond the greatest weight change nothing but could
			// overflow.
			steps = min(steps, MaxWeight)
			slot.Weight = min(slot.Full, slot.Weight+steps*min(ramp.Step, MaxWeight))
			slot.RampedAt = slot.RampedAt.Add(time.Duration(steps) * ramp.Every)
			s.tell(slot, "weight %d of %d", slot.Weight, slot.Full)
		}
		if slot.Weight < slot.Full {
			s.wake(slot.RampedAt.Add(ramp.Every))
		}
	}
}

// Passing is a server that passes its check somewhere.
type Passing struct {
	Slot int
	// Addr is where it was checked, so that what is seen of a slot's last
	// server does not count for the next one.
	Addr netip.AddrPort
}

// Pass notes first passing checks, at which ramps begin. Those of servers that
// have passed before change nothing. Any host may note what it sees, whoever
// asks the source.
func Pass(before Record, passing []Passing, now time.Time) (Record, Changes) {
	s := begin(before, now, Policy{})
	for _, seen := range passing {
		if seen.Slot < 1 || seen.Slot > len(s.Slots) {
			continue
		}
		slot := &s.Slots[seen.Slot-1]
		if slot.State != Free && slot.Addr == seen.Addr && slot.PassedAt.IsZero() {
			slot.PassedAt, slot.RampedAt = s.now, s.now
			s.tell(slot, "first passing check")
		}
	}
	return s.end(before)
}

// Confirm accepts the list that is held back, so that the next Assign that
// sees it believes it. It tells whether there was one.
func Confirm(before Record) (Record, bool) {
	if before.Held == nil || before.Held.Confirmed {
		return before, false
	}
	r := before.clone()
	r.Held.Confirmed = true
	return r, true
}
