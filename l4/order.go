package l4

import (
	"net/netip"
	"slices"
)

// The canonical order.
//
// The schedulers that hash fill their tables by walking a service's
// destination list, so hosts agree only where their lists have one order. It
// is that of the addresses, then the ports: a rule that needs nothing but the
// destinations, so that it also holds between hosts whose configurations are
// written differently.
//
// The kernel puts a new destination at the head of the list and cannot move
// one; an edit leaves it in place (ip_vs_ctl.c, __ip_vs_update_dest). What can
// be had is therefore a list whose end was not touched, with all that was
// added or moved before it, the last of them first. Moving is deleting and
// adding. The kernel puts a deleted destination that still has flows into a
// trash list, finds it there when it is added again to the same service, and
// with it the flows are alive again (ip_vs_trash_get_dest). In between their
// packets are dropped, which TCP mends, as long as
// net.ipv4.vs.expire_nodest_conn is 0; while it is 1, a packet in between
// costs its flow the entry (ip_vs_in), and the deletion alone begins a sweep
// that takes the entries of all (ip_vs_enqueue_expire_nodest_conns).
//
// A destination without slots takes part in no table, so it may stand
// anywhere.

// ordered are the schedulers whose choice depends on the order of the list
// (ip_vs_mh.c, ip_vs_sh.c, ip_vs_dh.c).
var ordered = map[string]bool{"mh": true, "sh": true, "dh": true}

// placed tells whether a wanted destination has its place in the canonical
// order, which it has with its slots.
func placed(d Destination) bool { return d.slotWeight() != 0 }

// Canonical returns the service as Diff makes it: its destinations in the
// canonical order, after those that have no place in it.
func Canonical(s Service) Service {
	s.Destinations = slices.Clone(s.Destinations)
	slices.SortFunc(s.Destinations, func(a, b Destination) int {
		if placed(a) != placed(b) {
			if placed(b) {
				return -1
			}
			return 1
		}
		return a.AddrPort().Compare(b.AddrPort())
	})
	return s
}

// moves tells which of the listed destinations have to be moved so that the
// list gets the order of the wanted ones. These are in that order, and each of
// them is to be placed; what is listed and not among them is of no interest.
//
// They are the fewest possible. What is not touched keeps its relative order
// and ends up behind all the rest, so it is a tail of the wanted list that is
// found in the listed one in the same order, not necessarily in one piece. The
// longest such tail is found by looking for its members from the end of both.
func moves(listed, wanted []netip.AddrPort) map[netip.AddrPort]bool {
	at := make(map[netip.AddrPort]int, len(listed))
	for i, d := range listed {
		at[d] = i
	}
	tail, limit := len(wanted), len(listed)
	for tail > 0 {
		i, ok := at[wanted[tail-1]]
		if !ok || i >= limit {
			break
		}
		limit = i
		tail--
	}
	moved := make(map[netip.AddrPort]bool)
	for _, d := range wanted[:tail] {
		if _, ok := at[d]; ok {
			moved[d] = true
		}
	}
	return moved
}

// sameSlots tells whether a listed destination has the slots that the wanted
// one asks for, once its Weight is as wanted.
func sameSlots(listed, wanted Destination) bool {
	if wanted.Weight != 0 || wanted.FullWeight == UnknownWeight {
		return true
	}
	return listed.slotWeight() == wanted.FullWeight
}
