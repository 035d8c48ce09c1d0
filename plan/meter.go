package plan

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// Quiet is for how long the counter of a VIP must stand still until no
	// packet comes any more. The kernel brings the counters up to date every
	// two seconds, so nothing shorter tells anything.
	Quiet = 2500 * time.Millisecond
	// Settle is the least time between GRACEFUL_SHUTDOWN and the withdrawal, also
	// of a VIP without traffic: the routers are to see the one before the other.
	Settle = 500 * time.Millisecond
	// LateFor is how long the packets to a VIP are counted on after its
	// withdrawal: until all that came by then has been added up.
	LateFor = Quiet
)

// Meter watches the packets to VIPs while these drain. It knows no clock: each
// call says what time it is. The zero Meter is ready.
type Meter struct {
	vips map[netip.Addr]*metered
	// over are drains that have ended, until the last one has.
	over []ended
}

// metered is what is known of one VIP.
type metered struct {
	counted bool
	packets uint64
	// still is since when the counter has not changed.
	still time.Time
	rate  float64
	drain *DrainProgress
	at    uint64 // packets at the withdrawal
}

type ended struct {
	DrainProgress
	returned bool
}

// DrainProgress tells how far the drain of a VIP has come.
type DrainProgress struct {
	// Began is when it was first announced with GRACEFUL_SHUTDOWN.
	Began time.Time
	// Deadline is when it is withdrawn whatever comes.
	Deadline time.Time
	// Withdrawn is when it was; zero: not yet.
	Withdrawn time.Time
	// Rate is how many packets came per second when the counter changed last;
	// 0 where it stands still.
	Rate float64
	// Late are the packets counted since the withdrawal. Those of the last two
	// seconds before it may be among them, since the kernel counts in such
	// steps.
	Late uint64
}

// DrainReport is what became of all VIPs that drained at the same time.
type DrainReport struct {
	VIPs int
	// Took is the time from the first GRACEFUL_SHUTDOWN to the last withdrawal.
	Took time.Duration
	// Early is how many were withdrawn before their deadline, Returned how many
	// were announced again instead.
	Early, Returned int
	// Late are the packets that came after the withdrawal, at most.
	Late uint64
}

func (m *Meter) of(vip netip.Addr) *metered {
	if m.vips == nil {
		m.vips = map[netip.Addr]*metered{}
	}
	if m.vips[vip] == nil {
		m.vips[vip] = &metered{}
	}
	return m.vips[vip]
}

// Count takes in the counters of the packets to VIPs. A counter that goes down
// begins anew, as it does when services come and go.
func (m *Meter) Count(now time.Time, packets map[netip.Addr]uint64) {
	for vip, n := range packets {
		v := m.of(vip)
		switch {
		case !v.counted:
			v.counted, v.packets, v.still = true, n, now
			continue
		case n == v.packets:
			if now.Sub(v.still) >= Quiet {
				v.rate = 0
			}
			continue
		case n < v.packets:
			v.at = 0
		default:
			// The kernel's own step is two seconds, however often it is asked.
			v.rate = float64(n-v.packets) / max(2, now.Sub(v.still).Seconds())
		}
		v.packets, v.still = n, now
	}
	for vip, v := range m.vips {
		if _, there := packets[vip]; !there && v.drain == nil {
			delete(m.vips, vip)
		}
	}
}

// Still tells since when no packet has been seen to come to each VIP.
func (m *Meter) Still() map[netip.Addr]time.Time {
	still := make(map[netip.Addr]time.Time, len(m.vips))
	for vip, v := range m.vips {
		if v.counted {
			still[vip] = v.still
		}
	}
	return still
}

// Began tells since when each VIP that drains does so.
func (m *Meter) Began() map[netip.Addr]time.Time {
	began := map[netip.Addr]time.Time{}
	for vip, v := range m.vips {
		if v.drain != nil && v.drain.Withdrawn.IsZero() {
			began[vip] = v.drain.Began
		}
	}
	return began
}

// Progress is how far the drain of a VIP has come; nil: it is in none.
func (m *Meter) Progress(vip netip.Addr) *DrainProgress {
	v := m.vips[vip]
	if v == nil || v.drain == nil {
		return nil
	}
	p := *v.drain
	p.Rate = v.rate
	if !p.Withdrawn.IsZero() && v.packets > v.at {
		p.Late = v.packets - v.at
	}
	return &p
}

// Active tells that the counters are wanted soon again.
func (m *Meter) Active() bool {
	for _, v := range m.vips {
		if v.drain != nil {
			return true
		}
	}
	return false
}

// Follow takes in what has become of the VIPs. When the last of the drains has
// ended, it returns what became of all of them.
func (m *Meter) Follow(now time.Time, vips []VIP) *DrainReport {
	states := map[netip.Addr]VIPState{}
	for _, v := range vips {
		states[v.Addr] = v.State
		if v.State != Draining {
			continue
		}
		metered := m.of(v.Addr)
		if metered.drain == nil || !metered.drain.Withdrawn.IsZero() {
			metered.drain = &DrainProgress{Began: now}
		}
		metered.drain.Deadline = v.Deadline
	}
	for vip, v := range m.vips {
		if v.drain == nil || states[vip] == Draining {
			continue
		}
		returned := states[vip] == Announced
		if v.drain.Withdrawn.IsZero() && !returned {
			v.drain.Withdrawn, v.at = now, v.packets
		}
		if returned || !now.Before(v.drain.Withdrawn.Add(LateFor)) {
			m.over = append(m.over, ended{*m.Progress(vip), returned})
			v.drain = nil
		}
	}
	if len(m.over) == 0 || m.Active() {
		return nil
	}
	return m.report()
}

// report sums up what is over, and forgets it.
func (m *Meter) report() *DrainReport {
	r := &DrainReport{VIPs: len(m.over)}
	first := slices.MinFunc(m.over, func(a, b ended) int { return a.Began.Compare(b.Began) })
	for _, e := range m.over {
		if e.returned {
			r.Returned++
			continue
		}
		r.Took = max(r.Took, e.Withdrawn.Sub(first.Began))
		r.Late += e.Late
		if e.Withdrawn.Before(e.Deadline) {
			r.Early++
		}
	}
	m.over = nil
	return r
}

// End is what Follow would return if all drains were over now, for a daemon that
// stays no longer; nil: there was none.
func (m *Meter) End(now time.Time) *DrainReport {
	for vip, v := range m.vips {
		if v.drain == nil {
			continue
		}
		if v.drain.Withdrawn.IsZero() {
			v.drain.Withdrawn, v.at = now, v.packets
		}
		m.over = append(m.over, ended{*m.Progress(vip), false})
		v.drain = nil
	}
	if len(m.over) == 0 {
		return nil
	}
	return m.report()
}

// LingersUntil is when the last of the VIPs that were withdrawn has been
// watched for long enough; zero: none is.
func (m *Meter) LingersUntil() time.Time {
	var until time.Time
	for _, v := range m.vips {
		if v.drain != nil && !v.drain.Withdrawn.IsZero() {
			if end := v.drain.Withdrawn.Add(LateFor); end.After(until) {
				until = end
			}
		}
	}
	return until
}
