package plan

import "net/netip"

// Last tells which of the VIPs that this host announces are announced by no other
// one that means to go on: withdrawn here, they are reachable nowhere. Of those in
// unsure no peer tells enough to say so.
func Last(vips []VIP, others map[netip.Addr]Others) (last, unsure []netip.Addr) {
	for _, v := range vips {
		o := others[v.Addr]
		switch {
		case v.State != Announced || o.Announcing() > 0:
		case o.Sure:
			last = append(last, v.Addr)
		default:
			unsure = append(unsure, v.Addr)
		}
	}
	return last, unsure
}
