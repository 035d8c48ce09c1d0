package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lb4d/control"
)

// alerts are what keeps the host from its normal state.
func (p *page) alerts(st *control.Status) {
	if !st.Updated.IsZero() && p.now.Sub(st.Updated) > control.StaleAfter {
		p.say(red, "STUCK", fmt.Sprintf("no pass has ended for %s; all of this is that old", p.since(st.Updated)))
	}
	if c := st.Config; c.Error != "" {
		p.say(red, "RELOAD REFUSED", fmt.Sprintf("%s ago: %s; the configuration loaded %s ago stays in force",
			p.since(c.ErrorAt), c.Error, p.since(c.Loaded)))
	}
	p.maintenance(st.Maintenance)
	p.draining(st.VIPs)
	p.heldDown(st.VIPs)
	p.drained(st.Members)
	p.warnings(st.Members)
	p.differing(st.VIPs)
	p.flapping(st.Peers)
	for _, e := range st.Errors {
		p.say(red, "FAILED", e)
	}
	if len(st.Errors) > 0 {
		p.say(plain, "", "what failed is tried again with each pass")
	}
}

// maintenance tells of the files that keep VIPs from being announced.
func (p *page) maintenance(m control.Maintenance) {
	line := func(f control.ServiceMaintenance) string {
		s := fmt.Sprintf("%s has been there for %s", f.Path, p.since(f.Since))
		if f.By != "" {
			s += ", by " + f.By
		}
		if !f.Until.IsZero() {
			s += fmt.Sprintf(", for another %s", duration(f.Until.Sub(p.now)))
		}
		if f.HeldUntil.After(p.now) {
			s += fmt.Sprintf(" (gone just now; it comes and goes, so it counts for another %s)", duration(f.HeldUntil.Sub(p.now)))
		}
		if f.Reason != "" {
			s += ": " + f.Reason
		}
		return s
	}
	if m.Present {
		p.say(yellow, "MAINTENANCE", line(control.ServiceMaintenance{
			Path: m.Path, Since: m.Since, Reason: m.Reason, Until: m.Until, By: m.By, HeldUntil: m.HeldUntil,
		}))
	}
	if m.Error != "" {
		p.say(red, "MAINTENANCE FILE", m.Path+" cannot be examined: "+m.Error)
	}
	for i, s := range m.Services {
		if i == maxDrained {
			p.say(yellow, "MAINTENANCE", fmt.Sprintf("and of %d more services", len(m.Services)-i))
			break
		}
		if s.Unknown {
			p.say(red, "MAINTENANCE FILE", s.Path+" names no service and does nothing")
		} else {
			p.say(yellow, "MAINTENANCE", line(s))
		}
		if s.Error != "" {
			p.say(red, "MAINTENANCE FILE", s.Path+" cannot be examined: "+s.Error)
		}
	}
	if m.ServicesError != "" {
		p.say(red, "MAINTENANCE FILE", m.ServicesError)
	}
}

// draining tells how far the drain of this host's VIPs has come.
func (p *page) draining(vips []control.VIP) {
	var n, gone int
	var rate float64
	var late uint64
	var deadline, withdrawn time.Time
	for _, v := range vips {
		switch d := v.Drain; {
		case d == nil:
		case d.Phase == "draining":
			n++
			rate += d.PacketsPerSecond
			if d.Deadline.After(deadline) {
				deadline = d.Deadline
			}
		default:
			gone++
			late += d.LatePackets
			if d.Withdrawn.After(withdrawn) {
				withdrawn = d.Withdrawn
			}
		}
	}
	if n > 0 {
		p.say(yellow, "DRAINING", fmt.Sprintf("%s with GRACEFUL_SHUTDOWN, %.0f packets/s left, withdrawn within %s or when none are",
			counted(n, "VIP"), rate, duration(deadline.Sub(p.now))))
	}
	if gone > 0 {
		p.say(yellow, "WITHDRAWN", fmt.Sprintf("%s %s ago, at most %s since", counted(gone, "VIP"), p.since(withdrawn), counted(int(late), "packet")))
	}
}

// heldDown tells how to end what [damping] does to VIPs.
func (p *page) heldDown(vips []control.VIP) {
	var held []control.VIP
	var until time.Time
	for _, v := range vips {
		if v.HeldUntil.After(p.now) {
			held = append(held, v)
			if v.HeldUntil.After(until) {
				until = v.HeldUntil
			}
		}
	}
	left := duration(until.Sub(p.now))
	switch len(held) {
	case 0:
	case 1:
		p.say(yellow, "HELD DOWN", fmt.Sprintf("%s for another %s; lbctl reset %[1]s ends that", held[0].Address, left))
	default:
		p.say(yellow, "HELD DOWN", fmt.Sprintf("%d VIPs for another %s; lbctl reset VIP ends that, lbctl reset --all of all", len(held), left))
	}
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// drained tells which members an operator has drained: like a maintenance file
// a drain stands until somebody remembers it.
func (p *page) drained(members []control.Member) {
	type member struct{ pool, name string }
	addresses := map[member][]control.Member{}
	var order []member
	for _, m := range members {
		if m.Drained == nil {
			continue
		}
		key := member{m.Pool, m.Name}
		if addresses[key] == nil {
			order = append(order, key)
		}
		addresses[key] = append(addresses[key], m)
	}
	for i, key := range order {
		if i == maxDrained {
			p.say(yellow, "DRAINED", fmt.Sprintf("and %d more members", len(order)-i))
			return
		}
		drain := addresses[key][0].Drained
		line := fmt.Sprintf("%s of pool %s for %s", key.name, key.pool, p.since(drain.Since))
		if drain.Reason != "" {
			line += ": " + drain.Reason
		}
		p.say(yellow, "DRAINED", line+"; "+standing(addresses[key]))
	}
}

// standing is the state that a member's addresses are in, with the flows that
// are left where it drains.
func standing(addresses []control.Member) string {
	var states []string
	var left control.Member
	for _, m := range addresses {
		if !slices.Contains(states, m.State) {
			states = append(states, m.State)
		}
		if m.State == "draining" {
			left.ActiveFlows += m.ActiveFlows
			left.InactiveFlows += m.InactiveFlows
		}
	}
	s := strings.Join(states, " and ")
	if slices.Contains(states, "draining") {
		s += ", " + flowsLeft(left)
	}
	return s
}

// flowsLeft is what a member still carries in words. IPVS counts a flow as
// inactive for minutes after its end, and flows over UDP always, so those that
// are active are told apart.
func flowsLeft(m control.Member) string {
	n, noun := m.ActiveFlows+m.InactiveFlows, "flows"
	if n == 1 {
		noun = "flow"
	}
	switch {
	case n == 0:
		return "no flows left"
	case m.InactiveFlows == 0:
		return fmt.Sprintf("%d %s left", n, noun)
	case m.ActiveFlows == 0:
		return fmt.Sprintf("%d %s left, none active", n, noun)
	}
	return fmt.Sprintf("%d %s left, %d active", n, noun, m.ActiveFlows)
}
