package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lb4d/bgp"
	"lb4d/config"
	"lb4d/l4"
	"lb4d/maintenance"
)

// vips decides which routes are announced. The first reason found is the one
// that is told, so they stand in the order in which an operator asks.
func (p *planner) vips() {
	byVIP := map[netip.Addr][]Service{}
	for _, s := range p.d.Services {
		for _, vip := range s.Config.VIPs {
			byVIP[vip] = append(byVIP[vip], s)
		}
	}
	p.d.Flaps = map[netip.Addr]Flaps{}
	for vip, services := range byVIP {
		v := VIP{Addr: vip, Attributes: bgp.Attributes(services[0].Config.Attributes)}
		for _, s := range services {
			v.Services = append(v.Services, s.Config.Name)
		}
		flaps := p.flaps(vip, services)
		if flaps.Count > 0 {
			p.d.Flaps[vip] = flaps
		}
		v.Failures = flaps.at(p.obs.Now, p.cfg.Damping)
		v.State, v.Reason, v.Deadline = p.route(vip, services)
		if p.failing(vip, services) != nil {
			v.Failing, _ = p.obs.Others[vip].scope()
		}
		if v.State == Announced {
			if reason := p.held(vip, flaps); reason != "" {
				v.State, v.Reason, v.HeldUntil = Withdrawn, reason, flaps.heldUntil(p.cfg.Damping)
			}
		}
		if v.State == Draining {
			v.Attributes = draining(v.Attributes, p.cfg.BGP)
		}
		p.d.VIPs = append(p.d.VIPs, v)
	}
	slices.SortFunc(p.d.VIPs, func(a, b VIP) int { return a.Addr.Compare(b.Addr) })
}

func (p *planner) route(vip netip.Addr, services []Service) (state VIPState, reason string, deadline time.Time) {
	// A VIP that is new, by a start or a reload, waits until all members that
	// carry it have answered: announced sooner, it would draw all its traffic
	// to the first one that did. One that is announced already stays so while
	// a member joins.
	if n := p.waiting(services); n > 0 && !p.obs.Announced[vip] && !p.obs.Kept[vip] {
		return Withdrawn, fmt.Sprintf("waiting for the first answer of %s", count(n, "check")), time.Time{}
	}
	if s := p.failing(vip, services); s != nil {
		_, elsewhere := p.obs.Others[vip].scope()
		return Withdrawn, s.reason(s.in(vip)) + elsewhere, time.Time{}
	}
	if p.obs.Maintenance.Blind && !p.obs.Announced[vip] {
		// A host does not begin to take traffic before it can hear that it
		// should not.
		return Withdrawn, oneLine(p.obs.Maintenance.ServicesErr), time.Time{}
	}
	if asked, reason := p.askedOut(services); !asked.IsZero() {
		state, deadline := p.drain(vip, asked)
		return state, reason, deadline
	}
	var reasons []string
	for _, s := range services {
		reasons = append(reasons, s.reason(s.in(vip)))
	}
	return Announced, strings.Join(reasons, ", "), time.Time{}
}

// failing is the first service whose members keep the VIP from being announced;
// nil: none does.
func (p *planner) failing(vip netip.Addr, services []Service) *Service {
	if p.waiting(services) > 0 && !p.obs.Announced[vip] && !p.obs.Kept[vip] {
		return nil
	}
	for i := range services {
		if !services[i].in(vip).forwarding() {
			return &services[i]
		}
	}
	return nil
}

// askedOut is when somebody first wanted a VIP with these services out, and why;
// zero: nobody does. A stop during maintenance does not begin the drain anew.
//
// A VIP is one route, so the file of one service takes it from all of them.
func (p *planner) askedOut(services []Service) (since time.Time, reason string) {
	asked := func(at time.Time, why string) {
		if since.IsZero() || at.Before(since) {
			since, reason = at, why
		}
	}
	m := p.obs.Maintenance
	if m.Present {
		asked(m.Since, maintenanceReason(m))
	}
	for _, s := range services {
		file, ok := m.Services[s.Config.Name]
		if !ok {
			continue
		}
		why := maintenanceReason(file)
		if len(services) > 1 {
			why += "; the VIP is that of " + others(services, s) + " too"
		}
		asked(file.Since, why)
	}
	if !p.obs.Stopping.IsZero() {
		asked(p.obs.Stopping, "lb4d is stopping")
	}
	return since, reason
}

// others names the services besides one.
func others(services []Service, but Service) string {
	var names []string
	for _, s := range services {
		if s.Config.Name != but.Config.Name {
			names = append(names, s.Config.Name)
		}
	}
	if n := len(names) - 3; n > 0 {
		names = append(names[:3], fmt.Sprintf("%d more", n))
	}
	return strings.Join(names, ", ")
}

// oneLine writes an error on one line.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// Strays are the maintenance files of services that there are not.
func Strays(cfg *config.Config, m maintenance.State) []string {
	known := map[string]bool{}
	for _, s := range cfg.Services {
		known[s.Name] = true
	}
	var strays []string
	for name := range m.Services {
		if !known[name] {
			strays = append(strays, name)
		}
	}
	slices.Sort(strays)
	return strays
}

// drain is the state of a VIP that somebody wants out: as long as drain_time
// is not over and packets come, one that is announced stays so, with
// GRACEFUL_SHUTDOWN. One that is not announced is never announced for it.
func (p *planner) drain(vip netip.Addr, asked time.Time) (state VIPState, deadline time.Time) {
	if !p.obs.Announced[vip] || p.obs.Hurry {
		return Withdrawn, time.Time{}
	}
	began, begun := p.obs.DrainBegan[vip]
	if !begun {
		began = asked
	}
	deadline = began.Add(p.cfg.BGP.DrainTime)
	until := deadline
	if still, counted := p.obs.Still[vip]; counted && begun {
		// Quiet for long enough, and the routers have seen GRACEFUL_SHUTDOWN.
		until = earliest(deadline, latest(still.Add(Quiet), began.Add(Settle)))
	}
	if !p.obs.Now.Before(until) {
		return Withdrawn, time.Time{}
	}
	p.changesAt(until)
	return Draining, deadline
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func maintenanceReason(m maintenance.State) string {
	reason := "maintenance file " + m.Path
	if m.Reason != "" {
		reason += " (" + m.Reason + ")"
	}
	return reason
}

// waiting counts the members behind the services that have not answered yet.
func (p *planner) waiting(services []Service) int {
	n, seen := 0, map[string]bool{}
	for _, s := range services {
		if !seen[s.Config.Pool] {
			seen[s.Config.Pool] = true
			n += p.unanswered[s.Config.Pool]
		}
	}
	return n
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Verify takes back the announcement of every VIP that the read-back does not
// bear out: the table that the kernel lists must forward each of its services
// to a quorum of members, and the VIP must be a local address. Forward first,
// announce second.
func (d *Decision) Verify(listed l4.Table, addresses []netip.Addr) []VIP {
	have := index(listed)
	want := map[netip.Addr][]l4.Service{}
	for _, s := range d.Table {
		want[s.VIP] = append(want[s.VIP], s)
	}
	local := make(map[netip.Addr]bool, len(addresses))
	for _, a := range addresses {
		local[a] = true
	}
	quorum := map[l4.Key]int{}
	for _, s := range d.Services {
		for _, vip := range s.Config.VIPs {
			for _, port := range s.Config.Ports {
				quorum[l4.Key{VIP: vip, Port: port.Number, Protocol: protocol(port)}] = s.in(vip).inKernel()
			}
		}
	}

	vips := slices.Clone(d.VIPs)
	for i, v := range vips {
		if v.State == Withdrawn {
			continue
		}
		fault := ""
		if !local[v.Addr] {
			fault = "the VIP is not a local address"
		}
		for _, s := range want[v.Addr] {
			if fault == "" {
				fault = missing(s, have, quorum[s.Key])
			}
		}
		if fault != "" {
			vips[i].State, vips[i].Reason = Withdrawn, fault
		}
	}
	return vips
}

// missing tells what the kernel lacks of a wanted service; empty: nothing.
func missing(want l4.Service, have map[l4.Key]l4.Service, quorum int) string {
	got, ok := have[want.Key]
	if !ok {
		return fmt.Sprintf("%s is not in the kernel's table", want.Key)
	}
	if got.Scheduler != want.Scheduler || got.Flags != want.Flags {
		return fmt.Sprintf("%s has scheduler %s in the kernel, want %s", want.Key, scheduler(got), scheduler(want))
	}
	if carrying := carrying(got); carrying < quorum {
		take := "take"
		if carrying == 1 {
			take = "takes"
		}
		return fmt.Sprintf("%s has %s in the kernel that %s new flows, quorum %d",
			want.Key, count(carrying, "destination"), take, quorum)
	}
	return ""
}

func scheduler(s l4.Service) string {
	return strings.TrimSpace(s.Scheduler + " " + s.Flags.String())
}

// carrying counts the destinations that take new flows.
func carrying(s l4.Service) int {
	n := 0
	for _, d := range s.Destinations {
		if d.Encapsulation != l4.None && d.Weight > 0 {
			n++
		}
	}
	return n
}
