package l4

import (
	"net/netip"
	"slices"
)

// noScheduler is the kernel's name for a service that schedules nothing: a
// packet without a flow is refused as if there were no destination.
const noScheduler = "none"

// Diff returns the operations that turn the listed table into the wanted one,
// in the order in which they have to be applied. Where nothing differs there
// are none.
//
// The caller passes in listed only services that it owns: what is listed and
// not wanted is deleted. Within a table each Key, and within a service each
// destination, occurs once.
//
// A destination that is listed keeps its place where the canonical order
// allows it: a change of weight or of the encapsulation is an edit, which the
// kernel makes in place and which leaves the flows alone. Those that the order
// does not allow to stay are moved, the fewest possible.
//
// Within a service the weights that rise come first, so that a move finds
// others that carry the new flows; then additions and moves, each of which
// goes to the head of the list, the last in the canonical order first; then
// edits to weight 0. All deletions come after everything else, so that at no
// moment a service has fewer destinations than before and after, apart from
// one that is being moved.
//
// A service gets its destinations before it gets its scheduler. So the Maglev
// table of a new one is filled once instead of once for each destination, and
// no flow is scheduled by a part of it: after a table was lost, the flows that
// live on would be sent astray for good. Meanwhile a new service has no
// scheduler at all, and not a simple one, because the kernel waits for all
// processors when it replaces one (ip_vs_edit_service, synchronize_rcu).
func Diff(listed, wanted Table) []Op {
	found := make(map[Key]Service, len(listed))
	for _, s := range listed {
		found[s.Key] = s
	}
	stays := make(map[Key]bool, len(wanted))
	var ops, deletions []Op
	for _, w := range wanted {
		stays[w.Key] = true
		l, ok := found[w.Key]
		if !ok {
			l = Service{Key: w.Key, Scheduler: w.Scheduler, Flags: w.Flags}
			if len(w.Destinations) > 1 {
				l.Scheduler = noScheduler
			}
			ops = append(ops, AddService{Key: l.Key, Scheduler: l.Scheduler, Flags: l.Flags})
		}
		changes, removals := diffDestinations(w, l.Destinations)
		ops = append(ops, changes...)
		deletions = append(deletions, removals...)
		if l.Scheduler != w.Scheduler || l.Flags&^hashed != w.Flags&^hashed {
			ops = append(ops, EditService{
				Key: w.Key, Scheduler: w.Scheduler, Flags: w.Flags,
				Was: Service{Key: w.Key, Scheduler: l.Scheduler, Flags: l.Flags},
			})
		}
	}
	for _, l := range listed {
		if !stays[l.Key] {
			// The kernel deletes the destinations along with the service.
			deletions = append(deletions, DeleteService{Key: l.Key})
		}
	}
	return append(ops, deletions...)
}

// diffDestinations is Diff for the destinations of one service. The deletions
// come apart, because they are applied after all the rest.
func diffDestinations(w Service, listed []Destination) (changes, deletions []Op) {
	wanted := Canonical(w).Destinations
	found := make(map[netip.AddrPort]Destination, len(listed))
	var list []netip.AddrPort
	for _, d := range listed {
		found[d.AddrPort()] = d
		list = append(list, d.AddrPort())
	}
	moved := map[netip.AddrPort]bool{}
	if ordered[w.Scheduler] {
		var order []netip.AddrPort
		for _, d := range wanted {
			if placed(d) {
				order = append(order, d.AddrPort())
			}
		}
		moved = moves(list, order)
		for _, d := range wanted {
			if l, ok := found[d.AddrPort()]; ok && !placed(d) && !sameSlots(l, d) {
				moved[d.AddrPort()] = true
			}
		}
	}

	stays := make(map[netip.AddrPort]bool, len(wanted))
	var raises, drains, arrivals []Op
	for _, d := range wanted {
		stays[d.AddrPort()] = true
		l, ok := found[d.AddrPort()]
		switch {
		case !ok:
			arrivals = append(arrivals, AddDestination{Key: w.Key, Destination: d})
		case moved[d.AddrPort()]:
			arrivals = append(arrivals, MoveDestination{Key: w.Key, Destination: d, Was: l})
		case !differs(w, l, d):
		case d.Weight == 0:
			drains = append(drains, EditDestination{Key: w.Key, Destination: d, Was: l})
		default:
			raises = append(raises, EditDestination{Key: w.Key, Destination: d, Was: l})
		}
	}
	for _, l := range listed {
		if !stays[l.AddrPort()] {
			deletions = append(deletions, DeleteDestination{Key: w.Key, Destination: l.AddrPort()})
		}
	}
	slices.Reverse(arrivals) // each of them goes to the head
	changes = append(changes, raises...)
	changes = append(changes, arrivals...)
	return append(changes, drains...), deletions
}

// differs tells whether a listed destination that stays in its place has to be
// edited. Its slots are of interest where the scheduler has a Maglev table.
func differs(s Service, listed, wanted Destination) bool {
	return listed.Weight != wanted.Weight ||
		listed.Encapsulation != wanted.Encapsulation ||
		listed.GUEPort != wanted.GUEPort ||
		listed.Checksummed != wanted.Checksummed ||
		listed.Limited != wanted.Limited ||
		ordered[s.Scheduler] && !sameSlots(listed, wanted)
}
