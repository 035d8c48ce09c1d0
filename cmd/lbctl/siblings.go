package main

import (
	"cmp"
	"fmt"
	"slices"

	"lb4d/control"
)

// siblings is one line for each other host and what it does with some VIPs:
// most hosts do the same with all of them.
func (p *page) siblings(vips []control.VIP) {
	type standing struct{ name, state, tables string }
	type line struct {
		standing
		hops, vips []string
		newest     control.Sibling
	}
	lines := map[standing]*line{}
	var order []*line
	known := map[string][]string{}
	for _, v := range vips {
		known[v.SiblingsKnown] = append(known[v.SiblingsKnown], v.Address)
		for _, s := range v.Siblings {
			is := standing{cmp.Or(s.RouterID, s.NextHop), s.State, s.Tables}
			l := lines[is]
			if l == nil {
				l = &line{standing: is}
				lines[is], order = l, append(order, l)
			}
			if !slices.Contains(l.hops, s.NextHop) {
				l.hops = append(l.hops, s.NextHop)
			}
			l.vips = append(l.vips, v.Address)
			if s.Since.After(l.newest.Since) {
				l.newest = s
			}
		}
	}
	slices.SortFunc(order, func(a, b *line) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.state, b.state), cmp.Compare(a.tables, b.tables))
	})
	t := table{header: []string{"SIBLING", "NEXT HOP", "STATE", "FOR", "TABLES", "VIPS"}}
	for _, l := range order {
		colour := plain
		switch l.tables {
		case "agree":
			colour = green
		case "differ":
			colour = red
		}
		t.add(text(l.name), text(few(l.hops)), coloured(l.state, stateColour(l.state)), text(p.since(l.newest.Since)),
			coloured(l.tables, colour), text(few(l.vips)))
	}
	if len(known[""]) == len(vips) {
		return // there are none, or lb4d is older than this lbctl
	}
	p.table("siblings", t)
	if some := known["some"]; some != nil {
		p.say(plain, "", "of "+few(some)+" there may be more siblings: the peers tell of the best path alone (no add-path)")
	}
	if none := known["none"]; none != nil {
		p.say(plain, "", "of "+few(none)+" the siblings are not known: no BGP session is up that would tell")
	}
}

// differing tells of the VIPs over whose tables the hosts disagree.
func (p *page) differing(vips []control.VIP) {
	var names []string
	for _, v := range vips {
		if v.TablesDiffer {
			names = append(names, v.Address)
		}
	}
	if names != nil {
		p.say(red, "TABLES DIFFER", few(names)+": another LB4 host sends flows to other members; compare configurations and lbctl status on both")
	}
}

// flapping tells of the peers to which the way breaks again and again.
func (p *page) flapping(peers []control.Peer) {
	for _, peer := range peers {
		if peer.BFD != nil && peer.BFD.Flapping {
			p.say(red, "BFD FLAPS", fmt.Sprintf("the way to %s has broken %d times, last: %s", peer.Name, peer.BFD.Failures, peer.BFD.LastError))
		}
	}
}

// way is the BFD session with a peer in one cell.
func (p *page) way(b *control.BFD) cell {
	if b == nil {
		return text("-")
	}
	said := b.State + " " + p.since(b.Since)
	if b.State != "up" && b.LastError != "" {
		said += ": " + b.LastError
	}
	return coloured(said, stateColour(b.State))
}
