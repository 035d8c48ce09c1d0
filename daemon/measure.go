package daemon

import (
	"net/netip"
	"time"

	"lb4d/control"
	"lb4d/l4"
	"lb4d/plan"
)

// sampleEvery is how often the kernel's counters are read while VIPs drain, so
// that each of the kernel's own steps is seen soon after it was made.
const sampleEvery = 250 * time.Millisecond

// received is what the kernel has counted on each VIP of a listed table.
func received(listed l4.Table) map[netip.Addr]l4.Received {
	counted := map[netip.Addr]l4.Received{}
	for _, s := range listed {
		counted[s.VIP] = counted[s.VIP].Add(s.Received)
	}
	return counted
}

// sample reads the counters between two passes. An error is left to the pass,
// which reads the whole table.
func (d *Daemon) sample(now time.Time) {
	if counted, err := d.table.Received(d.owns(vipsOf(d.cfg))); err == nil {
		d.count(now, counted)
	}
}

// count takes in the counters.
func (d *Daemon) count(now time.Time, counted map[netip.Addr]l4.Received) {
	packets := make(map[netip.Addr]uint64, len(counted))
	for vip, r := range counted {
		packets[vip] = r.Packets
	}
	d.meter.Count(now, packets)
}

// follow has the meter know what has become of the VIPs, and returns when the
// next pass is due: at next or, before that, when the watch over what was
// withdrawn ends.
func (d *Daemon) follow(next time.Time, vips []plan.VIP) time.Time {
	d.tellDrain(d.meter.Follow(time.Now(), vips))
	if end := d.meter.LingersUntil(); !end.IsZero() && (next.IsZero() || end.Before(next)) {
		return end
	}
	return next
}

// tellDrain says how a drain went; nil: none has ended.
func (d *Daemon) tellDrain(r *plan.DrainReport) {
	if r == nil {
		return
	}
	d.drained = &control.DrainReport{
		Ended: time.Now(), VIPs: r.VIPs, Seconds: r.Took.Seconds(),
		Early: r.Early, Returned: r.Returned, LatePackets: r.Late,
	}
	d.log.Info("drain over", "vips", r.VIPs, "took", r.Took.Round(time.Millisecond),
		"quiet_early", r.Early, "announced_again", r.Returned, "late_packets_at_most", r.Late)
}

func showProgress(p *plan.DrainProgress) *control.VIPDrain {
	if p == nil {
		return nil
	}
	out := &control.VIPDrain{
		Phase: "draining", Since: p.Began, Deadline: p.Deadline, Withdrawn: p.Withdrawn,
		PacketsPerSecond: p.Rate, LatePackets: p.Late,
	}
	if !p.Withdrawn.IsZero() {
		out.Phase = "lingering"
	}
	return out
}
