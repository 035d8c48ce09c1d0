package l4

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/bits"
	"net/netip"
	"slices"
)

// TableSize is the number of slots of a Maglev table: the prime that the
// kernel takes for CONFIG_IP_VS_MH_TAB_INDEX=12, its default. A kernel built
// with another does not tell, and Maglev is wrong about it.
const TableSize = 4093

// tableBits bounds the turns that a destination has in a round of the filling
// (ip_vs_mh.c, IP_VS_MH_TAB_BITS).
const tableBits = 12 / 2

// Maglev is the table by which the scheduler mh chooses a destination for a
// flow, computed as the kernel does (ip_vs_mh.c). It holds for flows that the
// host has no entry for: new ones, and those that come from another host after
// a change of routes. What a flow was given once it keeps.
//
// It is the same on every host with the same service, but for those of 32
// bits, on which the kernel's hsiphash is another function.
type Maglev struct {
	destinations []Destination
	owner        []int // of each slot, as index of destinations; nil: nobody has slots
	live         []bool
	taking       int  // slots whose owner is live
	ipv6         bool // of the VIP
	port         bool // the source port is hashed
	fallback     bool
}

// NewMaglev computes the table of a service: of a listed one as it is in the
// kernel, of Canonical(wanted) as it will be.
//
// An error tells why nobody can know the table: the scheduler is not mh, or
// of a destination the kernel does not tell what it would have to
// (UnknownWeight, connection limits). Diff sees to it that no such destination
// stays.
func NewMaglev(s Service) (*Maglev, error) {
	if s.Scheduler != "mh" {
		return nil, fmt.Errorf("computing the Maglev table of %s: its scheduler is %s", s.Key, s.Scheduler)
	}
	if len(s.Destinations) > TableSize {
		return nil, fmt.Errorf("computing the Maglev table of %s: %d destinations for %d slots", s.Key, len(s.Destinations), TableSize)
	}
	m := &Maglev{
		destinations: slices.Clone(s.Destinations),
		ipv6:         s.VIP.Is6(),
		port:         s.Flags&MHPort != 0,
		fallback:     s.Flags&MHFallback != 0,
	}
	for _, d := range s.Destinations {
		if d.slotWeight() == UnknownWeight {
			return nil, fmt.Errorf("computing the Maglev table of %s: which slots %s has is unknown", s.Key, d.AddrPort())
		}
		if d.Limited {
			return nil, fmt.Errorf("computing the Maglev table of %s: %s has connection limits", s.Key, d.AddrPort())
		}
		m.live = append(m.live, d.Weight > 0)
	}
	m.fill()
	for _, o := range m.owner {
		if m.live[o] {
			m.taking++
		}
	}
	return m, nil
}

// fill walks the destinations in list order, round after round. Each takes as
// many free slots in a row as it has turns: the next ones of its own
// permutation of all slots, given by an offset and a skip.
func (m *Maglev) fill() {
	turns := m.turns()
	if len(turns) == 0 {
		return
	}
	m.owner = slices.Repeat([]int{-1}, TableSize)
	next, skip := make([]uint32, len(m.destinations)), make([]uint32, len(m.destinations))
	for i, d := range m.destinations {
		v := m.fold(d.AddrPort())
		next[i] = hsiphash(v, slotKey) % TableSize
		skip[i] = hsiphash(v, skipKey)%(TableSize-1) + 1
	}
	for taken := 0; ; {
		for i := range m.destinations {
			for range turns[i] {
				for m.owner[next[i]] >= 0 {
					if next[i] += skip[i]; next[i] >= TableSize {
						next[i] -= TableSize
					}
				}
				m.owner[next[i]] = i
				if taken++; taken == TableSize {
					return
				}
			}
		}
	}
}

// turns are the destinations' weights without their common divisor, and
// without the lowest bits where that leaves more than tableBits. There are
// none where nobody has slots.
func (m *Maglev) turns() []int {
	divisor, largest := 0, 0
	for _, d := range m.destinations {
		weight := d.slotWeight()
		largest = max(largest, weight)
		for a := weight; a != 0; {
			divisor, a = a, divisor%a
		}
	}
	if divisor == 0 {
		return nil
	}
	shift := max(0, bits.Len(uint(largest/divisor))-tableBits)
	turns := make([]int, len(m.destinations))
	for i, d := range m.destinations {
		if weight := d.slotWeight(); weight > 0 {
			turns[i] = max(1, weight/divisor>>shift)
		}
	}
	return turns
}

// fold makes the number that is hashed out of an address and a port. The
// family is that of the VIP, also for a destination of the other one.
func (m *Maglev) fold(ap netip.AddrPort) uint32 {
	b := ap.Addr().AsSlice()
	v := binary.BigEndian.Uint32(b)
	if m.ipv6 {
		for b = b[4:]; len(b) > 0; b = b[4:] {
			v ^= binary.BigEndian.Uint32(b)
		}
	}
	return v + uint32(ap.Port())
}

// Choice tells where a flow goes, and why. Destinations are told as indexes of
// the service's list; -1 is none.
type Choice struct {
	// Slot is where the flow's hash points.
	Slot int
	// Owner has that slot.
	Owner int
	// Used is the destination that gets the flow. It is another one than
	// Owner where that has weight 0 and the service has mh-fallback; and none
	// where nobody can take the flow, which the kernel then refuses.
	Used int
	// Rehashes counts how often the flow was hashed again until it met a
	// destination that takes new flows.
	Rehashes int
}

// Lookup tells where the flow of a client, known by its address and port, goes.
// The client's address is of the VIP's family.
func (m *Maglev) Lookup(client netip.AddrPort) Choice {
	if !m.port {
		client = netip.AddrPortFrom(client.Addr(), 0)
	}
	v := m.fold(client)
	c := Choice{Slot: int(hsiphash(v, slotKey) % TableSize), Owner: -1, Used: -1}
	if m.owner == nil {
		return c
	}
	c.Owner = m.owner[c.Slot]
	if m.live[c.Owner] {
		c.Used = c.Owner
		return c
	}
	if !m.fallback || m.taking == 0 {
		return c
	}
	for i := range TableSize {
		c.Rehashes++
		offset := (c.Slot + i) % TableSize
		next := m.owner[hsiphash(v+uint32(offset), slotKey)%TableSize]
		if m.live[next] {
			c.Used = next
			break
		}
	}
	return c
}

// Fingerprint is short enough to be read out over the phone, and tells whether
// two hosts send flows to the same destinations. It has two halves, as in
// 5f3a9c21-8bd04e77. The first is that of the slots and their owners: where it
// differs, the hosts have other destinations, weights or flags, and flows that
// move between them break. The second is that of the owners that take new flows
// as well: where it alone differs, the hosts do not have the same ones at
// weight 0.
func (m *Maglev) Fingerprint() string {
	hash := fnv.New64a()
	fmt.Fprintln(hash, "mh", TableSize, m.port, m.fallback)
	// The owners are numbered in the order of their slots, so that it does not
	// matter where in the list those without slots are.
	numbers := slices.Repeat([]int{-1}, len(m.destinations))
	var owners []int
	slots := make([]byte, 0, 2*TableSize)
	for _, o := range m.owner {
		if numbers[o] < 0 {
			numbers[o] = len(owners)
			owners = append(owners, o)
			fmt.Fprintln(hash, m.destinations[o].AddrPort())
		}
		slots = binary.BigEndian.AppendUint16(slots, uint16(numbers[o]))
	}
	hash.Write(slots)
	table := hash.Sum64()
	for _, o := range owners {
		fmt.Fprintln(hash, m.live[o])
	}
	return fmt.Sprintf("%08x-%08x", table>>32, hash.Sum64()>>32)
}
