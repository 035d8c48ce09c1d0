package l4

import "net/netip"

// Diff returns the operations that turn the listed table into the wanted one,
// in the order in which they have to be applied. Where nothing differs there
// are none.
//
// The caller passes in listed only services that it owns: what is listed and
// not wanted is deleted. Within a table each Key, and within a service each
// destination, occurs once.
//
// Every service comes before its destinations, and every deletion after
// everything else, so that at no moment a service has fewer destinations than
// before and after. Within a service additions come first, then edits to a
// weight, then edits to weight 0, for the same reason.
//
// A destination that is listed keeps its place: a change of weight or of the
// forwarding method is an edit, which the kernel makes in place and which
// leaves the flows alone, whereas delete and add would move it to the head of
// the list, on which the Maglev table depends (ip_vs_mh.c,
// ip_vs_mh_populate). The order of listed destinations is left as it is.
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
		switch {
		case !ok:
			ops = append(ops, AddService{Key: w.Key, Scheduler: w.Scheduler, Flags: w.Flags})
		case l.Scheduler != w.Scheduler || l.Flags&^hashed != w.Flags&^hashed:
			ops = append(ops, EditService{
				Key: w.Key, Scheduler: w.Scheduler, Flags: w.Flags,
				Was: Service{Key: w.Key, Scheduler: l.Scheduler, Flags: l.Flags},
			})
		}
		changes, removals := diffDestinations(w.Key, l.Destinations, w.Destinations)
		ops = append(ops, changes...)
		deletions = append(deletions, removals...)
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
func diffDestinations(key Key, listed, wanted []Destination) (changes, deletions []Op) {
	found := make(map[netip.AddrPort]Destination, len(listed))
	for _, d := range listed {
		found[d.AddrPort()] = d
	}
	stays := make(map[netip.AddrPort]bool, len(wanted))
	var raises, drains []Op
	for _, w := range wanted {
		stays[w.AddrPort()] = true
		l, ok := found[w.AddrPort()]
		if !ok || (l.Weight == w.Weight && l.Tunnel == w.Tunnel && l.Limited == w.Limited) {
			continue
		}
		edit := EditDestination{Key: key, Destination: w, Was: l}
		if w.Weight == 0 {
			drains = append(drains, edit)
		} else {
			raises = append(raises, edit)
		}
	}
	// The kernel puts a new destination at the head of the list, so the last
	// of the wanted ones is added first: a service made from nothing then
	// lists them in the wanted order.
	for i := len(wanted) - 1; i >= 0; i-- {
		if w := wanted[i]; !contains(found, w) {
			changes = append(changes, additions(key, w)...)
		}
	}
	for _, l := range listed {
		if !stays[l.AddrPort()] {
			deletions = append(deletions, DeleteDestination{Key: key, Destination: l.AddrPort()})
		}
	}
	changes = append(changes, raises...)
	return append(changes, drains...), deletions
}

func contains(found map[netip.AddrPort]Destination, d Destination) bool {
	_, ok := found[d.AddrPort()]
	return ok
}

// additions add one destination. The kernel gives it slots in the Maglev table
// by the last weight that was not 0, or by the weight that it was added with
// (ip_vs_ctl.c, __ip_vs_update_dest: last_weight). So one that is wanted at
// weight 0 is added at its full weight and then drained: its slots, and with
// them everybody else's, are the same as on a host that saw it up before.
func additions(key Key, w Destination) []Op {
	if w.Weight != 0 || w.FullWeight == 0 {
		return []Op{AddDestination{Key: key, Destination: w}}
	}
	full := w
	full.Weight = w.FullWeight
	return []Op{
		AddDestination{Key: key, Destination: full},
		EditDestination{Key: key, Destination: w, Was: full},
	}
}
