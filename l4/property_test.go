package l4

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// model is the kernel's table as far as Diff depends on it: a new destination
// goes to the head of the list, an edit leaves it in place, and the slots of a
// destination follow the last weight that was not 0.
type model struct {
	services []*modelService
}

type modelService struct {
	Key
	scheduler    string
	flags        Flags
	destinations []*modelDestination
}

type modelDestination struct {
	Destination
	lastWeight int
	touched    bool // added or edited since the model was made
}

func newModel(table Table) *model {
	m := &model{}
	for _, s := range table {
		svc := &modelService{Key: s.Key, scheduler: s.Scheduler, flags: s.Flags | hashed}
		for _, d := range s.Destinations {
			svc.destinations = append(svc.destinations, &modelDestination{Destination: d, lastWeight: max(d.Weight, d.FullWeight)})
		}
		m.services = append(m.services, svc)
	}
	return m
}

func (m *model) list() Table {
	var table Table
	for _, svc := range m.services {
		s := Service{Key: svc.Key, Scheduler: svc.scheduler, Flags: svc.flags}
		for _, d := range svc.destinations {
			listed := d.Destination
			listed.FullWeight = 0
			s.Destinations = append(s.Destinations, listed)
		}
		table = append(table, s)
	}
	return table
}

func (m *model) find(key Key) *modelService {
	i := slices.IndexFunc(m.services, func(s *modelService) bool { return s.Key == key })
	if i < 0 {
		return nil
	}
	return m.services[i]
}

func (s *modelService) find(dest netip.AddrPort) *modelDestination {
	i := slices.IndexFunc(s.destinations, func(d *modelDestination) bool { return d.AddrPort() == dest })
	if i < 0 {
		return nil
	}
	return s.destinations[i]
}

func (m *model) apply(op Op) error {
	svc := m.find(op.service())
	if add, ok := op.(AddService); ok {
		if svc != nil {
			return fmt.Errorf("%s: exists", op)
		}
		m.services = append(m.services, &modelService{Key: add.Key, scheduler: add.Scheduler, flags: add.Flags | hashed})
		return nil
	}
	if svc == nil {
		return fmt.Errorf("%s: no such service", op)
	}
	switch op := op.(type) {
	case EditService:
		svc.scheduler, svc.flags = op.Scheduler, op.Flags|hashed
	case DeleteService:
		m.services = slices.DeleteFunc(m.services, func(s *modelService) bool { return s == svc })
	case AddDestination:
		if svc.find(op.Destination.AddrPort()) != nil {
			return fmt.Errorf("%s: exists", op)
		}
		svc.destinations = slices.Insert(svc.destinations, 0,
			&modelDestination{Destination: op.Destination, lastWeight: op.Destination.Weight, touched: true})
	case EditDestination:
		d := svc.find(op.Destination.AddrPort())
		if d == nil {
			return fmt.Errorf("%s: no such destination", op)
		}
		d.Destination, d.touched = op.Destination, true
		if d.Weight != 0 {
			d.lastWeight = d.Weight
		}
	case DeleteDestination:
		d := svc.find(op.Destination)
		if d == nil {
			return fmt.Errorf("%s: no such destination", op)
		}
		svc.destinations = slices.DeleteFunc(svc.destinations, func(o *modelDestination) bool { return o == d })
	}
	return nil
}

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
		if foreign && r.IntN(3) == 0 {
			s.Scheduler, s.Flags = "wlc", Flags(r.IntN(64))
		}
		for _, d := range r.Perm(8)[:r.IntN(9)] {
			addr := fmt.Sprintf("192.0.2.%d", 1+d)
			if d >= 4 {
				addr = fmt.Sprintf("2001:db8::%d", 1+d)
			}
			dest := up(addr, r.IntN(4))
			if r.IntN(3) == 0 {
				dest.Weight = 0
			}
			if foreign {
				dest.Tunnel, dest.Limited = r.IntN(4) != 0, r.IntN(8) == 0
			}
			s.Destinations = append(s.Destinations, dest)
		}
		table = append(table, s)
	}
	return table
}

// normal is a table without what makes no difference to forwarding: sorted,
// without counts, weights for later and the kernel's mark.
func normal(table Table) Table {
	table = slices.Clone(table)
	for i := range table {
		table[i].Flags &^= hashed
		table[i].Destinations = slices.Clone(table[i].Destinations)
		for j := range table[i].Destinations {
			d := &table[i].Destinations[j]
			d.FullWeight, d.ActiveConns, d.InactiveConns = 0, 0, 0
		}
		slices.SortFunc(table[i].Destinations, func(a, b Destination) int { return a.AddrPort().Compare(b.AddrPort()) })
	}
	slices.SortFunc(table, func(a, b Service) int {
		if c := a.VIP.Compare(b.VIP); c != 0 {
			return c
		}
		return int(a.Port) - int(b.Port)
	})
	return table
}

// sameAddr lets cmp look at addresses, whose fields are not exported.
var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

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
		if diff := cmp.Diff(normal(wanted), normal(kernel.list()), sameAddr); diff != "" {
			t.Fatalf("seed %d: table (-want +got):\n%s", seed, diff)
		}
		if again := Diff(kernel.list(), wanted); len(again) != 0 {
			t.Fatalf("seed %d: operations remain: %q", seed, sentences(again))
		}
		for _, w := range wanted {
			checkService(t, seed, w, listed, kernel.find(w.Key))
		}
		if t.Failed() {
			return
		}
	}
}

// checkService checks what the table alone does not show: the slots of what was
// added, the order of the list, and that nothing was touched needlessly.
func checkService(t *testing.T, seed uint64, w Service, listed Table, got *modelService) {
	t.Helper()
	var before []netip.AddrPort
	old := newModel(listed).find(w.Key)
	if old != nil {
		for _, d := range old.destinations {
			before = append(before, d.AddrPort())
		}
	}
	var stayed, added []netip.AddrPort
	for _, d := range got.destinations {
		if slices.Contains(before, d.AddrPort()) {
			stayed = append(stayed, d.AddrPort())
			if o := old.find(d.AddrPort()); o.Weight == d.Weight && o.Tunnel == d.Tunnel && o.Limited == d.Limited && d.touched {
				t.Errorf("seed %d: %s -> %s was touched", seed, w.Key, d.AddrPort())
			}
			continue
		}
		added = append(added, d.AddrPort())
		if d.lastWeight != d.FullWeight {
			t.Errorf("seed %d: %s -> %s has slots for weight %d, full weight is %d", seed, w.Key, d.AddrPort(), d.lastWeight, d.FullWeight)
		}
	}
	keep := func(list []netip.AddrPort, in []netip.AddrPort) []netip.AddrPort {
		return slices.DeleteFunc(slices.Clone(list), func(a netip.AddrPort) bool { return !slices.Contains(in, a) })
	}
	var order []netip.AddrPort
	for _, d := range w.Destinations {
		order = append(order, d.AddrPort())
	}
	if want := keep(before, stayed); !slices.Equal(want, stayed) {
		t.Errorf("seed %d: %s: those that stayed are in order %v, were in %v", seed, w.Key, stayed, want)
	}
	if want := keep(order, added); !slices.Equal(want, added) {
		t.Errorf("seed %d: %s: those added are in order %v, want %v", seed, w.Key, added, want)
	}
}
