package l4

import "net/netip"

// Moved is the share of all flows, from 0 to 1, that two tables send to
// different destinations: what a change of a service from one to the other
// moves, and what breaks where traffic goes from a host with the one to a host
// with the other. A flow that one of them refuses counts as moved, one that
// both refuse does not.
//
// It is the mean over all possible flows, not over those that there are.
func Moved(a, b *Maglev) float64 {
	spreadA, spreadB := a.spread(), b.spread()
	if a.port != b.port || a.ipv6 != b.ipv6 {
		// The hashes have nothing to do with each other.
		same := 0.0
		sharesA, sharesB := a.shares(spreadA), b.shares(spreadB)
		for d, share := range sharesA {
			same += share * sharesB[d]
		}
		return 1 - same
	}
	moved, again := 0.0, 0
	for slot := range TableSize {
		toA, rehashA := a.target(slot)
		toB, rehashB := b.target(slot)
		switch {
		case rehashA && rehashB:
			// Both look into the same next slot, which may be any.
			again++
		case rehashA:
			moved += 1 - spreadA[toB]
		case rehashB:
			moved += 1 - spreadB[toA]
		case toA != toB:
			moved++
		}
	}
	return moved / float64(TableSize-again)
}

// target is the destination that the flows on a slot go to, the zero AddrPort
// where they are refused; rehash tells that they are hashed again instead.
func (m *Maglev) target(slot int) (to netip.AddrPort, rehash bool) {
	switch {
	case m.taking == 0:
		return netip.AddrPort{}, false
	case m.live[m.owner[slot]]:
		return m.destinations[m.owner[slot]].AddrPort(), false
	}
	return netip.AddrPort{}, m.fallback
}

// spread tells how flows that are hashed again are spread: by the slots of
// those that take new flows.
func (m *Maglev) spread() map[netip.AddrPort]float64 {
	spread := make(map[netip.AddrPort]float64)
	for _, owner := range m.owner {
		if m.live[owner] {
			spread[m.destinations[owner].AddrPort()] += 1 / float64(m.taking)
		}
	}
	return spread
}

// shares tells how all flows are spread. Those that are refused are under the
// zero AddrPort.
func (m *Maglev) shares(spread map[netip.AddrPort]float64) map[netip.AddrPort]float64 {
	if m.fallback && m.taking > 0 {
		return spread
	}
	shares := map[netip.AddrPort]float64{{}: 1 - float64(m.taking)/TableSize}
	for d, share := range spread {
		shares[d] = share * float64(m.taking) / TableSize
	}
	return shares
}
