package slots

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Changes is what a step did, and what it could not do.
type Changes struct {
	// Changed tells that the record differs and has to be written.
	Changed bool
	// Events are what happened to slots, in their order, for the log.
	Events []Event
	// Refused are the servers of the list that cannot be right.
	Refused []Refusal
	// Overflow are servers without a slot, by ID, because every slot is
	// taken. It is an alarm: they get no traffic at all. It and Waiting are
	// known to Assign only.
	Overflow []string
	// Waiting are servers without a slot, by ID, that get one when those that
	// are free have rested.
	Waiting []string
	// Held is the list that is held back, or nil: servers that it lacks keep
	// their slots.
	Held *Held
	// Next is when there is something to do even if nothing new is heard: a
	// weight grows, a slot has rested, a list that was held back is believed.
	// Zero: never.
	Next time.Time
}

// Event is something that happened to a slot.
type Event struct {
	Slot   int
	Server string // its ID
	Text   string // "assigned to 192.0.2.1:80"
}

// String is a line for the log.
func (e Event) String() string {
	return fmt.Sprintf("slot %d: server %s: %s", e.Slot, e.Server, e.Text)
}

// step is one change of a record under way.
type step struct {
	Record
	Changes
	policy Policy
	now    time.Time
}

// begin copies the record.
func begin(r Record, now time.Time, p Policy) *step {
	p.Slots = min(p.Slots, MaxSlots)
	// No store keeps more of a time than this.
	return &step{Record: r.clone(), policy: p, now: now.UTC().Truncate(time.Millisecond)}
}

// grow gives the record as many slots as the policy says.
func (s *step) grow() {
	for len(s.Slots) < s.policy.Slots {
		s.Slots = append(s.Slots, Slot{Number: len(s.Slots) + 1, State: Free})
	}
}

// trim takes free slots off the end that the policy has no more. One that is
// taken stays for its server's life, with all before it.
func (s *step) trim() {
	for n := len(s.Slots); n > s.policy.Slots && s.Slots[n-1].State == Free; n-- {
		s.Slots = s.Slots[:n-1]
	}
}

// end settles what the step came to.
func (s *step) end(before Record) (Record, Changes) {
	s.Changes.Changed = !s.Record.Equal(before)
	s.Changes.Held = s.Record.Held
	slices.SortStableFunc(s.Events, func(a, b Event) int { return cmp.Compare(a.Slot, b.Slot) })
	if h := s.Record.Held; h != nil && !h.Confirmed {
		s.wake(h.Since.Add(s.policy.Persist))
	}
	return s.Record, s.Changes
}

// wake asks for another step at t.
func (s *step) wake(t time.Time) {
	if t.After(s.now) && (s.Next.IsZero() || t.Before(s.Next)) {
		s.Next = t
	}
}

func (s *step) tell(slot *Slot, format string, args ...any) {
	s.Events = append(s.Events, Event{slot.Number, slot.ID, fmt.Sprintf(format, args...)})
}

// Assign brings the record in step with a list of servers. Each server keeps
// its slot for as long as it is listed, and gets the lowest free slot that has
// rested when it comes; one that comes back finds its old slot while nobody
// else has it. A server under another ID at an address whose old ID is gone
// has its slot: it was renamed. What the list says of a server that cannot be
// right is refused, and where that server has a slot it keeps it as it was.
func Assign(before Record, servers []Server, now time.Time, p Policy) (Record, Changes) {
	s := begin(before, now, p)
	s.grow()
	if s.Listed == 0 {
		s.Listed = s.Occupied() // a record that was made elsewhere
	}
	good, refused := sift(servers, s.Record)
	s.Refused = refused

	// Who is listed, however badly, is not gone.
	present := map[string]bool{}
	for _, srv := range servers {
		present[srv.ID] = true
	}
	atAddr := map[netip.AddrPort]listed{}
	for _, l := range good {
		atAddr[l.at] = l
	}
	var gone []*Slot
	placed := map[string]bool{}
	kept := 0 // slots of servers whose new description is refused
	for i := range s.Slots {
		slot := &s.Slots[i]
		if slot.State == Free {
			continue
		}
		l, ok := good[slot.ID]
		heir, taken := atAddr[slot.Addr]
		switch {
		case ok:
			s.update(slot, l)
			placed[l.ID] = true
		case present[slot.ID] && !taken:
			kept++
		case taken && !slotted(before, heir.ID):
			s.tell(slot, "is now called %s", heir.ID)
			slot.ID = heir.ID
			s.update(slot, heir)
			placed[heir.ID] = true
		default:
			gone = append(gone, slot)
		}
	}

	hold := s.hold(len(good)+kept, len(gone))
	for _, slot := range gone {
		// A server that has moved to the address of one that is gone leaves
		// no doubt.
		if _, taken := atAddr[slot.Addr]; !hold || taken {
			s.free(slot)
		}
	}
	s.ramp()

	var arriving []listed
	for _, id := range slices.Sorted(maps.Keys(good)) {
		if !placed[id] {
			arriving = append(arriving, good[id])
		}
	}
	s.place(arriving)
	s.trim()
	return s.end(before)
}

// slotted tells whether the server has a slot.
func slotted(r Record, id string) bool {
	return slices.ContainsFunc(r.Slots, func(s Slot) bool { return s.State != Free && s.ID == id })
}

// update brings a server's slot in step with what the list says of it.
func (s *step) update(slot *Slot, l listed) {
	slot.Name, slot.Group, slot.Zone = l.Name, l.Group, l.Zone
	state := Ready
	if l.Exclude {
		state = Drain
	}
	if slot.State != state {
		slot.State, slot.Since = state, s.now
		s.tell(slot, "%s", map[State]string{Ready: "ready again", Drain: "excluded: drains"}[state])
	}
	full := l.Weight
	if full == NoWeight {
		full = s.policy.Weight
	}
	if slot.Full != full {
		// Only a new server ramps; to one that has its full weight, another
		// one applies at once.
		if slot.Weight == slot.Full && !slot.PassedAt.IsZero() {
			slot.Weight = full
		}
		s.tell(slot, "full weight %d instead of %d", full, slot.Full)
		slot.Full = full
	}
	if slot.Addr != l.at {
		s.tell(slot, "address %s instead of %s", l.at, slot.Addr)
		slot.Addr, slot.Since = l.at, s.now
		slot.PassedAt, slot.RampedAt = time.Time{}, time.Time{}
		slot.Weight = s.policy.Ramp.start(full)
	}
}

// free empties a slot.
func (s *step) free(slot *Slot) {
	s.tell(slot, "gone, was at %s", slot.Addr)
	*slot = Slot{Number: slot.Number, State: Free, FreedAt: s.now, Last: slot.ID}
}

// hold decides whether a list of this size, which lacks so many servers that
// have slots, is held back.
func (s *step) hold(size, missing int) bool {
	was := s.Listed
	shrunk := func(from int) bool {
		return from > 0 && size < from && (size == 0 || (from-size)*100 > s.policy.MaxShrink*from)
	}
	h := s.Record.Held
	switch {
	case !shrunk(was) || missing == 0:
		s.Listed, s.Record.Held = size, nil
		return false
	case h == nil || shrunk(h.Size):
		// What shrinks as much once more is news again, whatever was
		// confirmed before.
		h = &Held{Since: s.now, Size: size, Missing: missing}
	case size > h.Size:
		h.Size, h.Missing = size, missing
	}
	if h.Confirmed || s.now.Sub(h.Since) >= s.policy.Persist {
		s.Listed, s.Record.Held = size, nil
		return false
	}
	s.Record.Held = h
	return true
}

// place gives slots to servers that have none, in the order of their IDs.
func (s *step) place(arriving []listed) {
	s.Overflow, s.Waiting = nil, nil
	last := map[string]*Slot{}
	for i := range s.Slots {
		if slot := &s.Slots[i]; slot.State == Free && slot.Last != "" && slot.Number <= s.policy.Slots {
			last[slot.Last] = slot
		}
	}
	var others []listed
	for _, l := range arriving {
		if slot := last[l.ID]; slot != nil {
			s.settle(slot, l)
		} else {
			others = append(others, l)
		}
	}
	var free []*Slot
	var rested time.Time // when the first of those that rest has rested
	resting := 0
	for i := range s.Slots {
		slot := &s.Slots[i]
		if slot.State != Free || slot.Number > s.policy.Slots {
			continue
		}
		if end := slot.FreedAt.Add(s.policy.Rest); !slot.FreedAt.IsZero() && end.After(s.now) {
			resting++
			if rested.IsZero() || end.Before(rested) {
				rested = end
			}
			continue
		}
		free = append(free, slot)
	}
	for _, l := range others {
		switch {
		case len(free) > 0:
			s.settle(free[0], l)
			free = free[1:]
		case len(s.Waiting) < resting:
			s.Waiting = append(s.Waiting, l.ID)
			s.wake(rested)
		default:
			s.Overflow = append(s.Overflow, l.ID)
		}
	}
}

// settle gives a free slot to a server.
func (s *step) settle(slot *Slot, l listed) {
	full := l.Weight
	if full == NoWeight {
		full = s.policy.Weight
	}
	state := Ready
	if l.Exclude {
		state = Drain
	}
	*slot = Slot{
		Number: slot.Number, State: state,
		ID: l.ID, Name: l.Name, Addr: l.at, Group: l.Group, Zone: l.Zone,
		Weight: s.policy.Ramp.start(full), Full: full, Since: s.now,
	}
	s.tell(slot, "assigned to %s", l.at)
}
