package l4

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// randomTable makes a table out of few names, so that two of them overlap. A
// foreign table has what somebody else may have left.
func randomTable(r *rand.Rand, foreign bool) Table {
	var table Table
	for _, v := range r.Perm(4)[:r.IntN(5)] {
		s := www()
		if v >= 2 {
			s = www6()
		}
		s.Port = uint16(80 + v%2)
		if r.IntN(6) == 0 {
			s.Scheduler = "wlc"
		}
		if foreign && r.IntN(3) == 0 {
			s.Scheduler, s.Flags = []string{"wlc", "none", "mh"}[r.IntN(3)], Flags(r.IntN(64))
		}
		for _, d := range r.Perm(8)[:r.IntN(9)] {
			addr := fmt.Sprintf("192.0.2.%d", 1+d)
			if d >= 4 {
				addr = fmt.Sprintf("2001:db8::%d", 1+d)
			}
			s.Destinations = append(s.Destinations, randomDestination(r, addr, foreign))
		}
		table = append(table, s)
	}
	return table
}

func randomDestination(r *rand.Rand, addr string, foreign bool) Destination {
	d := up(addr, r.IntN(4))
	if r.IntN(3) == 0 {
		d.Weight = 0
	}
	if r.IntN(5) == 0 {
		d.Encapsulation, d.GUEPort = GUE, DefaultGUEPort
	}
	if !foreign {
		return d
	}
	if d.Weight == 0 && r.IntN(2) == 0 {
		d.FullWeight = UnknownWeight
	}
	if r.IntN(6) == 0 {
		d.Encapsulation, d.GUEPort = None, 0
	}
	d.Limited = r.IntN(8) == 0
	return d
}

// From any table, the operations make the wanted one, in order, and with the
// slots that are wanted; nothing is touched that could stay as it was; and then
// nothing is left to do.
func TestDiffConverges(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		listed, wanted := randomTable(r, true), randomTable(r, false)
		kernel := newModel(listed)
		ops := Diff(kernel.list(), wanted)
		for _, op := range ops {
			if err := kernel.apply(op); err != nil {
				t.Fatalf("seed %d: %v\nall operations: %q", seed, err, sentences(ops))
			}
		}
		for _, w := range wanted {
			checkService(t, w, newModel(listed).find(w.Key), kernel.find(w.Key), ops)
		}
		if len(kernel.services) != len(wanted) {
			t.Errorf("%d services, want %d", len(kernel.services), len(wanted))
		}
		if again := Diff(kernel.list(), wanted); len(again) != 0 {
			t.Errorf("operations remain: %q", sentences(again))
		}
		if t.Failed() {
			t.Fatalf("seed %d: listed\n%swanted\n%soperations %q", seed, text(listed), text(wanted), sentences(ops))
		}
	}
}

// checkService checks one service that was made out of an old one, or of nil.
func checkService(t *testing.T, w Service, old, got *modelService, ops []Op) {
	t.Helper()
	if got.scheduler != w.Scheduler || got.flags&^hashed != w.Flags {
		t.Errorf("%s has %s", w.Key, scheduling(got.scheduler, got.flags))
	}
	if len(got.destinations) != len(w.Destinations) {
		t.Errorf("%s has %d destinations", w.Key, len(got.destinations))
	}
	maglev := w.Scheduler == "mh"
	var want, order []netip.AddrPort
	for _, d := range Canonical(w).Destinations {
		g := got.find(d.AddrPort())
		if g == nil {
			t.Errorf("%s -> %s is missing", w.Key, d.AddrPort())
			continue
		}
		if g.Weight != d.Weight || g.Encapsulation != d.Encapsulation || g.GUEPort != d.GUEPort || g.Limited {
			t.Errorf("%s -> %s has %s", w.Key, d.AddrPort(), g.settings())
		}
		if maglev && g.lastWeight != d.slotWeight() {
			t.Errorf("%s -> %s has slots for weight %d, want %d", w.Key, d.AddrPort(), g.lastWeight, d.slotWeight())
		}
		if placed(d) {
			want = append(want, d.AddrPort())
		}
	}
	for _, g := range got.destinations {
		if slices.Contains(want, g.AddrPort()) {
			order = append(order, g.AddrPort())
		}
	}
	if maglev && !slices.Equal(want, order) {
		t.Errorf("%s lists %v, want %v", w.Key, order, want)
	}
	if old != nil {
		checkTouched(t, w, old, want, ops)
	}
}

// checkTouched checks that no edit was needless and that no more destinations
// were moved than the order takes.
func checkTouched(t *testing.T, w Service, old *modelService, order []netip.AddrPort, ops []Op) {
	t.Helper()
	var before []netip.AddrPort
	for _, d := range old.destinations {
		if slices.Contains(order, d.AddrPort()) {
			before = append(before, d.AddrPort())
		}
	}
	moved, least := 0, 0
	for _, op := range ops {
		switch op := op.(type) {
		case MoveDestination:
			if op.Key == w.Key && placed(op.Destination) {
				moved++
			}
		case EditDestination:
			if op.Key == w.Key && old.find(op.Destination.AddrPort()).Destination == op.Destination {
				t.Errorf("%s is needless", op)
			}
		}
	}
	if w.Scheduler == "mh" {
		least = fewest(before, order)
	}
	if moved != least {
		t.Errorf("%s: %d destinations moved, %d would do", w.Key, moved, least)
	}
}

// TestMoves compares with a search through everything that can be done: from
// each list, the fewest destinations that are deleted until additions at the
// head can put the wanted ones in order.
func TestMoves(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 3))
		listed, wanted := addrPorts(r.Perm(6)[:r.IntN(7)]), addrPorts(r.Perm(6)[:r.IntN(7)])
		slices.SortFunc(wanted, netip.AddrPort.Compare)
		moved := moves(listed, wanted)

		// What stays, and the rest added from the last to the first.
		list := slices.DeleteFunc(slices.Clone(listed), func(d netip.AddrPort) bool {
			return moved[d] || !slices.Contains(wanted, d)
		})
		for _, d := range slices.Backward(wanted) {
			if moved[d] || !slices.Contains(listed, d) {
				list = slices.Insert(list, 0, d)
			}
		}
		if !slices.Equal(list, wanted) {
			t.Fatalf("seed %d: from %v with %v moved: %v, want %v", seed, listed, moved, list, wanted)
		}
		gone := 0
		for _, d := range listed {
			if moved[d] || !slices.Contains(wanted, d) {
				gone++
			}
		}
		if least := fewest(listed, wanted); gone != least {
			t.Fatalf("seed %d: from %v to %v with %d deletions, %d would do", seed, listed, wanted, gone, least)
		}
	}
}

func addrPorts(numbers []int) []netip.AddrPort {
	var list []netip.AddrPort
	for _, n := range numbers {
		list = append(list, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + n)}), 80))
	}
	return list
}

// fewest is the least number of deletions on the way from one list to another,
// where an addition goes to the head. It tries every set to be deleted, and
// whether additions at the head can make the other list of what remains.
func fewest(from, to []netip.AddrPort) int {
	least := len(from)
	for set := range 1 << len(from) {
		var kept []netip.AddrPort
		for i, d := range from {
			if set&(1<<i) == 0 {
				kept = append(kept, d)
			}
		}
		if len(kept) <= len(to) && slices.Equal(kept, to[len(to)-len(kept):]) {
			least = min(least, len(from)-len(kept))
		}
	}
	return least
}
