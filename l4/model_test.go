package l4

import (
	"fmt"
	"net/netip"
	"slices"
)

// model is the kernel's table as far as Diff depends on it: a new destination
// goes to the head of the list, an edit leaves it in place, the slots of a
// destination follow the last weight that was not 0 or that it was added with,
// and the kernel lists its note of them instead of the slots themselves.
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
	Destination     // FullWeight is the note
	lastWeight  int // what the slots follow in truth
}

// newModel makes a kernel that has the table. Of a destination whose slots are
// unknown it has slots for weight 5.
func newModel(table Table) *model {
	m := &model{}
	for _, s := range table {
		svc := &modelService{Key: s.Key, scheduler: s.Scheduler, flags: s.Flags | hashed}
		for _, d := range s.Destinations {
			last := d.slotWeight()
			if last == UnknownWeight {
				last = 5
			}
			svc.destinations = append(svc.destinations, &modelDestination{Destination: d, lastWeight: last})
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
			s.Destinations = append(s.Destinations, d.Destination)
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
		return svc.add(op, op.Destination)
	case EditDestination:
		d := svc.find(op.Destination.AddrPort())
		if d == nil {
			return fmt.Errorf("%s: no such destination", op)
		}
		return d.edit(op)
	case MoveDestination:
		if err := svc.remove(op, op.Destination.AddrPort()); err != nil {
			return err
		}
		if op.Destination.FullWeight == UnknownWeight {
			op.Destination.FullWeight = max(0, op.Was.slotWeight())
		}
		return svc.add(op, op.Destination)
	case DeleteDestination:
		return svc.remove(op, op.Destination)
	}
	return nil
}

func (s *modelService) add(op Op, d Destination) error {
	if s.find(d.AddrPort()) != nil {
		return fmt.Errorf("%s: exists", op)
	}
	added := &modelDestination{Destination: d, lastWeight: d.slotWeight()}
	added.FullWeight = added.lastWeight
	s.destinations = slices.Insert(s.destinations, 0, added)
	return nil
}

func (s *modelService) remove(op Op, dest netip.AddrPort) error {
	d := s.find(dest)
	if d == nil {
		return fmt.Errorf("%s: no such destination", op)
	}
	s.destinations = slices.DeleteFunc(s.destinations, func(o *modelDestination) bool { return o == d })
	return nil
}

// edit follows EditDestination: slots are given, never taken away.
func (d *modelDestination) edit(op EditDestination) error {
	was, note := d.lastWeight, op.Was.slotWeight()
	d.Destination = op.Destination
	switch {
	case d.Weight != 0:
		d.lastWeight, d.FullWeight = d.Weight, d.Weight
	case d.FullWeight > 0:
		d.lastWeight = d.FullWeight
	default:
		d.FullWeight = note
		if note != UnknownWeight && note != was {
			return fmt.Errorf("%s: noted slots for %d, has them for %d", op, note, was)
		}
	}
	return nil
}
