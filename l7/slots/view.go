package slots

import "slices"

// Filter selects the servers of one back end out of a record that several
// share. A dedicated back end names its groups or zones; its fallback names
// the same and Rest, or nothing at all and so takes every server.
type Filter struct {
	// Groups and Zones that are taken; empty: any.
	Groups, Zones []string
	// Rest takes those that the two would leave, instead.
	Rest bool
}

// Takes tells whether the slot's server belongs to the back end.
func (f Filter) Takes(s Slot) bool {
	in := (len(f.Groups) == 0 || slices.Contains(f.Groups, s.Group)) &&
		(len(f.Zones) == 0 || slices.Contains(f.Zones, s.Zone))
	return in != f.Rest
}

// View is the record as one back end sees it: every slot, with those that it
// does not take free. So each back end is told of each slot, and a server that
// is gone, or has changed its group, stays behind in none.
func (r Record) View(f Filter) []Slot {
	view := make([]Slot, len(r.Slots))
	for i, s := range r.Slots {
		if s.State == Free || f.Takes(s) {
			view[i] = s
		} else {
			view[i] = Slot{Number: s.Number, State: Free}
		}
	}
	return view
}
