package bgp

import "github.com/osrg/gobgp/v4/pkg/packet/bgp"

// withdrawals counts the withdrawn prefixes in the body of a well-formed
// UPDATE: those of IPv4 (RFC 4271 section 4.3) and those in MP_UNREACH_NLRI
// (RFC 4760 section 4).
func withdrawals(body []byte) int {
	// cut takes a field off b that has its length in the n bytes before it.
	cut := func(b []byte, n int) (field, rest []byte) {
		length := 0
		for _, octet := range b[:min(n, len(b))] {
			length = length<<8 | int(octet)
		}
		b = b[min(n, len(b)):]
		return b[:min(length, len(b))], b[min(length, len(b)):]
	}
	count := func(prefixes []byte) (n int) {
		for len(prefixes) > 0 {
			prefixes = prefixes[min(1+(int(prefixes[0])+7)/8, len(prefixes)):]
			n++
		}
		return n
	}
	withdrawn, rest := cut(body, 2)
	n := count(withdrawn)
	attributes, _ := cut(rest, 2)
	for len(attributes) >= 3 {
		flags, kind := bgp.BGPAttrFlag(attributes[0]), bgp.BGPAttrType(attributes[1])
		size := 1
		if flags&bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH != 0 {
			size = 2
		}
		var value []byte
		value, attributes = cut(attributes[2:], size)
		if kind == bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI && len(value) > 3 {
			n += count(value[3:])
		}
	}
	return n
}
