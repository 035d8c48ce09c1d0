package daemon

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"lb4d/bgp"
	"lb4d/control"
	"lb4d/l4"
	"lb4d/plan"
)

// saidLeast is how long a fingerprint that the routes say stands before they
// say the next one. A member that flaps changes the tables of every VIP in front
// of it, and each change is an UPDATE for each of them.
const saidLeast = 2 * time.Second

// agreement is what this host has for tables, and how that compares with its
// siblings.
type agreement struct {
	fingerprints  map[netip.Addr]uint32
	said          map[netip.Addr]plan.Say
	disagreements map[netip.Addr]plan.Disagreement
}

// fingerprint takes in the tables that the kernel has after a pass.
func (d *Daemon) fingerprint(now time.Time, decision plan.Decision, listed l4.Table) {
	tables := map[l4.Key]string{}
	for key, t := range d.maglevs(listed) {
		tables[key] = t.Fingerprint
	}
	d.fingerprints = plan.Fingerprints(decision.Table, listed, tables)
	d.said = plan.Saying(d.said, now, saidLeast, d.fingerprints)
}

// saying has the routes say what tables this host has.
func (d *Daemon) saying(routes []bgp.Route) []bgp.Route {
	if !d.cfg.BGP.Siblings {
		return routes
	}
	for i, r := range routes {
		if say, ok := d.said[r.Prefix.Addr()]; ok {
			routes[i].Fingerprint = &say.Fingerprint
		}
	}
	return routes
}

// others are the siblings as the peers tell of them.
func (d *Daemon) others() map[netip.Addr]plan.Others {
	return plan.OthersOf(slices.Collect(maps.Keys(vipsOf(d.cfg))), d.siblings.Siblings(), d.peers.Peers())
}

// tellAgreement logs when the tables of hosts begin to differ for too long, and
// when they agree again.
func (d *Daemon) tellAgreement(now time.Time, vips []plan.VIP, others map[netip.Addr]plan.Others) {
	before := d.disagreements
	d.disagreements = plan.Disagree(before, vips, others, d.fingerprints, now, d.cfg.BGP.SiblingsSettle)
	var began, ended []string
	with := map[string]bool{}
	for vip, is := range d.disagreements {
		if !is.Standing || before[vip].Standing {
			continue
		}
		began = append(began, vip.String())
		own := d.fingerprints[vip]
		for _, s := range others[vip].Siblings {
			if s.Compare(&own) == plan.Differ {
				with[nameOf(s)] = true
			}
		}
	}
	for vip, was := range before {
		if was.Standing && !d.disagreements[vip].Standing {
			ended = append(ended, vip.String())
		}
	}
	slices.Sort(began)
	slices.Sort(ended)
	if began != nil {
		d.log.Warn("tables differ from those of other hosts", "vips", few(began), "hosts", few(slices.Sorted(maps.Keys(with))),
			"for", d.cfg.BGP.SiblingsSettle, "reason", "flows that change their host change their member; compare lbctl status on both")
	}
	if ended != nil {
		d.log.Info("tables agree with those of other hosts again", "vips", few(ended))
	}
}

// nameOf is what a sibling is called.
func nameOf(s plan.Sibling) string {
	if s.RouterID.IsValid() {
		return s.RouterID.String()
	}
	return s.NextHop.String()
}

// showSiblings completes the status of a VIP.
func (d *Daemon) showSiblings(v *control.VIP, addr netip.Addr, others plan.Others) {
	v.SiblingsKnown = "none"
	switch {
	case others.Sure:
		v.SiblingsKnown = "all"
	case others.Heard:
		v.SiblingsKnown = "some"
	}
	var own *uint32
	if f, ok := d.fingerprints[addr]; ok {
		own, v.Fingerprint = &f, fmt.Sprintf("%08x", f)
	}
	v.TablesDiffer = d.disagreements[addr].Standing
	v.Siblings = make([]control.Sibling, 0, len(others.Siblings))
	for _, s := range others.Siblings {
		shown := control.Sibling{NextHop: s.NextHop.String(), Since: s.Since, State: plan.Announced.String(), Tables: s.Compare(own).String()}
		if s.RouterID.IsValid() {
			shown.RouterID = s.RouterID.String()
		}
		if s.Draining {
			shown.State = plan.Draining.String()
		}
		if s.Fingerprint != nil {
			shown.Fingerprint = fmt.Sprintf("%08x", *s.Fingerprint)
		}
		for _, p := range s.Peers {
			shown.Peers = append(shown.Peers, p.String())
		}
		v.Siblings = append(v.Siblings, shown)
	}
}

func showReceived(r bgp.Received) control.Received {
	return control.Received{Paths: r.Paths, Ignored: r.Ignored, Malformed: r.Malformed, OverLimit: r.Over}
}
