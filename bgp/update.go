package bgp

import (
	"encoding/binary"
	"net/netip"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// heard is what an UPDATE says of its paths, as far as siblings are concerned.
type heard struct {
	// hop is the next hop. The other two are invalid where they are not said:
	// originator is the ORIGINATOR_ID of RFC 4456 that a reflector adds, router
	// the router ID that lb4d says of itself.
	hop, originator, router netip.Addr
	fingerprint             uint32
	marked                  bool // there is a fingerprint
	draining                bool
}

// reader takes in what an UPDATE announces and withdraws.
type reader interface {
	// announced is told of each prefix that is announced, host of each that is
	// one address.
	announced(family bgp.Family, prefix []byte, host netip.Addr, id uint32, said heard)
	withdrawn(host netip.Addr, id uint32)
}

// readUpdate reads the body of an UPDATE, RFC 4271 section 4.3 and RFC 4760.
// identified tells in which families each prefix has a path identifier before it
// (RFC 7911). It allocates nothing and reads nothing twice, so that its cost is
// that of the bytes.
//
// It is not ok where lengths do not fit into one another; what was read before
// that counts. An attribute that is wrong in itself says nothing, and of two of
// one kind the first counts (RFC 7606 section 3).
func readUpdate(body []byte, identified func(bgp.Family) bool, r reader) (ok bool) {
	withdrawn, rest, ok := field(body, 2)
	if !ok {
		return false
	}
	attributes, nlri, ok := field(rest, 2)
	if !ok {
		return false
	}
	said, reach, unreach, fit := readAttributes(attributes)

	v4 := identified(bgp.RF_IPv4_UC)
	ok = eachPrefix(withdrawn, bgp.RF_IPv4_UC, v4, func(_ []byte, host netip.Addr, id uint32) {
		if host.IsValid() {
			r.withdrawn(host, id)
		}
	})
	if len(unreach) >= 3 && ours(unreach[0], unreach[1], unreach[2]) {
		family := familyOf(unreach)
		ok = eachPrefix(unreach[3:], family, identified(family), func(_ []byte, host netip.Addr, id uint32) {
			if host.IsValid() {
				r.withdrawn(host, id)
			}
		}) && ok
	}
	announce := func(list []byte, family bgp.Family, said heard) bool {
		return eachPrefix(list, family, identified(family), func(prefix []byte, host netip.Addr, id uint32) {
			switch {
			case fit:
				r.announced(family, prefix, host, id, said)
			case host.IsValid():
				// It replaces what was said before, with nobody knows what.
				r.withdrawn(host, id)
			}
		})
	}
	ok = announce(nlri, bgp.RF_IPv4_UC, said) && ok
	if family, hop, list, found := reachable(reach); found {
		said.hop = hop
		ok = announce(list, family, said) && ok
	}
	return ok && fit
}

func familyOf(b []byte) bgp.Family {
	return bgp.NewFamily(binary.BigEndian.Uint16(b), b[2])
}

// readAttributes reads the path attributes. It is not ok where one is longer
// than what is left.
func readAttributes(b []byte) (said heard, reach, unreach []byte, ok bool) {
	var seen [256]bool
	for len(b) > 0 {
		if len(b) < 2 {
			return said, reach, unreach, false
		}
		kind, size := b[1], 1
		if bgp.BGPAttrFlag(b[0])&bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH != 0 {
			size = 2
		}
		var value []byte
		if value, b, ok = field(b[2:], size); !ok {
			return said, reach, unreach, false
		}
		if seen[kind] {
			continue
		}
		seen[kind] = true
		switch bgp.BGPAttrType(kind) {
		case bgp.BGP_ATTR_TYPE_NEXT_HOP:
			said.hop, _ = netip.AddrFromSlice(value[:min(len(value), 4)])
		case bgp.BGP_ATTR_TYPE_ORIGINATOR_ID:
			if len(value) == 4 {
				said.originator = netip.AddrFrom4([4]byte(value))
			}
		case bgp.BGP_ATTR_TYPE_COMMUNITIES:
			for ; len(value) >= 4; value = value[4:] {
				said.draining = said.draining || binary.BigEndian.Uint32(value) == GracefulShutdown
			}
		case bgp.BGP_ATTR_TYPE_LARGE_COMMUNITY:
			for ; len(value) >= 12; value = value[12:] {
				switch binary.BigEndian.Uint32(value[4:]) {
				case FingerprintTag:
					said.fingerprint, said.marked = binary.BigEndian.Uint32(value[8:]), true
				case RouterTag:
					said.router = netip.AddrFrom4([4]byte(value[8:12]))
				}
			}
		case bgp.BGP_ATTR_TYPE_MP_REACH_NLRI:
			reach = value
		case bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI:
			unreach = value
		}
	}
	return said, reach, unreach, true
}

// reachable takes an MP_REACH_NLRI apart, RFC 4760 section 3. Of two next hops
// the first is the global one (RFC 2545 section 3).
func reachable(b []byte) (family bgp.Family, hop netip.Addr, list []byte, ok bool) {
	if len(b) < 3 || !ours(b[0], b[1], b[2]) {
		return 0, netip.Addr{}, nil, false
	}
	hops, rest, ok := field(b[3:], 1)
	if !ok || len(rest) < 1 {
		return 0, netip.Addr{}, nil, false
	}
	switch len(hops) {
	case 4:
		hop = netip.AddrFrom4([4]byte(hops))
	case 16, 32:
		hop = netip.AddrFrom16([16]byte(hops[:16])).Unmap()
	}
	return familyOf(b), hop, rest[1:], true
}

// eachPrefix calls f with each prefix of a list: its bytes with their length
// before them, the address where it is one address alone, and its path
// identifier. It is not ok where a prefix is longer than its family allows, or
// than what is left.
func eachPrefix(b []byte, family bgp.Family, identified bool, f func(prefix []byte, host netip.Addr, id uint32)) (ok bool) {
	bits := 32
	if family == bgp.RF_IPv6_UC {
		bits = 128
	}
	for len(b) > 0 {
		var id uint32
		if identified {
			if len(b) < 4 {
				return false
			}
			id, b = binary.BigEndian.Uint32(b), b[4:]
		}
		if len(b) == 0 || int(b[0]) > bits {
			return false
		}
		n := 1 + (int(b[0])+7)/8
		if len(b) < n {
			return false
		}
		var host netip.Addr
		if int(b[0]) == bits {
			host, _ = netip.AddrFromSlice(b[1:n])
		}
		f(b[:n], host, id)
		b = b[n:]
	}
	return true
}
