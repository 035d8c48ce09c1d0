package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lb4d/config"
	"lb4d/l4"
	"lb4d/plan"
	"lb4d/tunnel"
)

// maxUnread is how long the kernel's table and addresses may be impossible to
// read before the routes are withdrawn. A reading that fails proves nothing of
// the forwarding, and all hosts could meet the same fault at once.
const maxUnread = 3 * time.Second

// pass observes, decides and applies once. It returns when the decision
// changes by the mere passing of time; zero: never.
//
// What the checks need comes last, see probe.
//
// The order is what keeps traffic whole: what must go is withdrawn before the
// table is touched, and what is new is announced after a read-back has shown
// its table in the kernel. A failed operation does not hold up the others; it
// is tried again by the next pass.
func (d *Daemon) pass() (again time.Time) {
	begin := time.Now()
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}

	announced, err := d.announcedVIPs()
	note(err)
	configured := vipsOf(d.cfg)
	d.linger(begin)
	obs := d.observe(begin)
	obs.Announced = announced
	late := d.late(begin)
	obs.Kept = d.keptNow(late)
	decision := plan.Decide(d.cfg, obs)
	waiting := !d.settled && decision.Waiting > 0 && !late
	if !waiting && mustGo(decision.VIPs, announced) {
		// Which routes must go depends on no table, so they go before the
		// kernel is even asked.
		announced = d.announce(only(decision.VIPs, announced), note)
	}

	listed, err := d.table.ListVIPs(d.owns(configured))
	note(err)
	obs.Listed = listed
	if err == nil {
		d.count(begin, received(listed))
		obs.Still = d.meter.Still()
	}
	decision = plan.Decide(d.cfg, obs)
	vips := decision.VIPs

	switch {
	case waiting:
		// Nothing that users' packets meet may be touched yet. Each check
		// answers or times out, so the wait is bounded, and shorter where peers
		// keep routes meanwhile.
	case err != nil:
		vips = d.unread(begin, decision, announced, err)
		announced = d.announce(vips, note)
	default:
		listed, vips, err = d.apply(decision, configured, listed, note)
		if err != nil {
			note(err)
			vips = d.unread(begin, decision, announced, err)
		} else {
			d.unreadSince = time.Time{}
			decision.Lost(d.cfg, obs, vips)
			d.fingerprint(begin, decision, listed)
		}
		announced = d.announce(vips, note)
		d.siblings.Watch(slices.Collect(maps.Keys(configured)))
		// The routes stand before the first session is up, so that the peers'
		// first view is the whole one.
		note(d.peers.SetPeers(peersOf(d.cfg)))
		note(d.detect.SetPeers(waysOf(d.cfg)))
		d.settled = true
		if d.readyDue && d.stopping.IsZero() {
			d.readyDue = false
			defer d.opts.Notify("READY=1")
		}
	}

	if d.sessionsDue(late) {
		note(d.peers.SetPeers(peersOf(d.cfg)))
		note(d.detect.SetPeers(waysOf(d.cfg)))
	}
	// After the routes, which must not wait for it.
	errs = append(errs, d.probe(waiting)...)

	d.tally(announced)
	again = d.follow(decision.Next, vips)
	d.reloaded = false
	d.memory.note(begin, configured, obs.Announced, announced, decision)
	if d.settled {
		d.memory.leave(announced)
	}
	if d.memory.unsaved {
		note(d.memory.save(d.memory.drains))
	}

	d.counters.Passes++
	if len(errs) > 0 {
		d.counters.PassesFailed++
	}
	d.counters.LastPassMicros = time.Since(begin).Microseconds()
	d.publish(decision, vips, listed, obs, errs)
	d.keep(decision, vips, listed, obs, announced)
	return again
}

// observe is what is known at the time now without asking the kernel or the
// speaker.
func (d *Daemon) observe(now time.Time) plan.Observations {
	return plan.Observations{
		Now:           now,
		Health:        d.health.Statuses(),
		Maintenance:   d.maintenance.State(),
		Drains:        d.memory.drains,
		Forwarding:    d.memory.forwarding,
		Others:        d.others(),
		Flaps:         d.memory.flaps,
		Reloaded:      d.reloaded,
		Stopping:      d.stopping,
		Hurry:         d.hurry,
		DrainBegan:    d.meter.Began(),
		Still:         d.meter.Still(),
		Owned:         d.memory.owned,
		LastAnnounced: d.memory.lastAnnounced,
		LeavingSince:  d.memory.leavingSince,
	}
}

// apply makes the kernel equal to the decision and reads it back: it returns
// the table that is there then, and the VIPs that it bears out. An error is that
// of a reading, without which nothing is known; those of operations go to note.
func (d *Daemon) apply(decision plan.Decision, configured map[netip.Addr]bool, listed l4.Table, note func(error)) (l4.Table, []plan.VIP, error) {
	// Owned before added: should the process die in between, the next one
	// knows whose they are.
	note(d.memory.own(slices.AppendSeq(slices.Clone(d.memory.owned), maps.Keys(configured))))

	changes, err := d.sysctls.Apply(append(tunnel.LB4Sysctls(), tunnel.CounterSysctls()...))
	note(err)
	d.tellSysctls("sysctls", d.left.known, changes)

	addresses, err := d.host.Addresses()
	if err != nil {
		return listed, nil, err
	}
	table, local := d.left.changed(d.ours(listed), addresses)
	// A VIP that is local and has no service is answered by this host itself,
	// with resets. So one that goes ceases to be local before its services
	// go, and one that comes is local after they have come.
	coming, going := split(tunnel.DiffAddresses(addresses, decision.Addresses))
	// One that has left the configuration may linger, and does not come back.
	coming = slices.DeleteFunc(coming, func(op tunnel.AddressOp) bool { return !configured[op.Addr] })
	written := d.move(going, local, note)
	ops := l4.Diff(d.ours(listed), decision.Table)
	if len(ops) > 0 {
		applied, err := d.table.Apply(ops)
		note(err)
		written += applied
	}
	d.report.tell(d.log, "ipvs", table, sentences(ops))
	written += d.move(coming, local, note)
	d.counters.KernelWrites += uint64(written)

	if len(ops) > 0 {
		if listed, err = d.table.ListVIPs(d.owns(configured)); err != nil {
			return nil, nil, err
		}
	}
	if len(coming)+len(going) > 0 {
		if addresses, err = d.host.Addresses(); err != nil {
			return listed, nil, err
		}
	}

	// Owned until it is gone from the kernel.
	owned := slices.AppendSeq(slices.Clone(addresses), maps.Keys(configured))
	for _, s := range d.ours(listed) {
		owned = append(owned, s.VIP)
	}
	note(d.memory.own(owned))
	d.left = left{known: true, table: d.ours(listed), addresses: addresses}
	return listed, decision.Verify(listed, addresses), nil
}

// split parts the operations on addresses into those that add and those that
// remove.
func split(ops []tunnel.AddressOp) (coming, going []tunnel.AddressOp) {
	for _, op := range ops {
		if op.Remove {
			going = append(going, op)
		} else {
			coming = append(coming, op)
		}
	}
	return coming, going
}

// move carries out operations on addresses and returns how many succeeded.
func (d *Daemon) move(ops []tunnel.AddressOp, foreign bool, note func(error)) int {
	what := "host"
	if len(ops) > 0 && ops[0].Remove {
		what = "host, removals"
	}
	d.report.tell(d.log, what, foreign, sentences(ops))
	if len(ops) == 0 {
		return 0
	}
	applied, err := d.host.ApplyAddresses(ops)
	note(err)
	return applied
}

// owns tells whether a VIP is this daemon's: one of its configuration, or one
// that it has not removed yet.
func (d *Daemon) owns(configured map[netip.Addr]bool) func(netip.Addr) bool {
	return func(vip netip.Addr) bool {
		_, owned := slices.BinarySearchFunc(d.memory.owned, vip, netip.Addr.Compare)
		return owned || configured[vip]
	}
}

// ours are the services on VIPs that this daemon owns. All others belong to
// another tool and are left alone.
func (d *Daemon) ours(table l4.Table) l4.Table {
	var ours l4.Table
	for _, s := range table {
		if _, own := slices.BinarySearchFunc(d.memory.owned, s.VIP, netip.Addr.Compare); own {
			ours = append(ours, s)
		}
	}
	return ours
}

// unread is what becomes of the VIPs while the kernel cannot be read: nothing
// new is announced, and what is announced stays for maxUnread, unless it was to
// be withdrawn anyway.
func (d *Daemon) unread(now time.Time, decision plan.Decision, announced map[netip.Addr]bool, err error) []plan.VIP {
	if d.unreadSince.IsZero() {
		d.unreadSince = now
	}
	patient := now.Sub(d.unreadSince) < maxUnread
	vips := slices.Clone(decision.VIPs)
	for i, v := range vips {
		if v.State == plan.Withdrawn || (announced[v.Addr] && patient) {
			continue
		}
		vips[i].State, vips[i].Reason = plan.Withdrawn, "the kernel cannot be read: "+oneLine(err)
	}
	return vips
}

// announcedVIPs are the VIPs that the speaker lists.
func (d *Daemon) announcedVIPs() (map[netip.Addr]bool, error) {
	list, err := d.routes.Routes()
	if err != nil {
		return d.memory.announced, err
	}
	vips := make(map[netip.Addr]bool, len(list))
	for _, r := range list {
		vips[r.Prefix.Addr()] = true
	}
	return vips, nil
}

// announce makes the announced set that of the VIPs, and returns the VIPs that
// are announced then.
func (d *Daemon) announce(vips []plan.VIP, note func(error)) map[netip.Addr]bool {
	if err := d.routes.Set(d.saying(plan.Routes(vips))); err != nil {
		note(err)
		announced, err := d.announcedVIPs()
		note(err)
		return announced
	}
	announced := make(map[netip.Addr]bool, len(vips))
	for _, v := range vips {
		if v.State != plan.Withdrawn {
			announced[v.Addr] = true
		}
	}
	return announced
}

// mustGo tells whether any route that is announced is to be withdrawn or
// drained.
func mustGo(vips []plan.VIP, announced map[netip.Addr]bool) bool {
	stay := 0
	for _, v := range vips {
		if v.State == plan.Announced && announced[v.Addr] {
			stay++
		}
	}
	return stay < len(announced)
}

// only are those of the VIPs that are announced now.
func only(vips []plan.VIP, announced map[netip.Addr]bool) []plan.VIP {
	return slices.DeleteFunc(slices.Clone(vips), func(v plan.VIP) bool { return !announced[v.Addr] })
}

// oneLine writes an error on one line.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	var faults config.Faults
	if errors.As(err, &faults) && len(faults) > 1 {
		return fmt.Sprintf("%s (and %d more; lb4d -check tells all)", faults[0], len(faults)-1)
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
