package bgp

import "github.com/osrg/gobgp/v4/pkg/packet/bgp"

// parseOpen reads the autonomous system of the sender, and the address
// families that it speaks, from an OPEN.
func parseOpen(message []byte) (as uint32, families []bgp.Family, ok bool) {
	m, err := bgp.ParseBGPMessage(message)
	if err != nil {
		return 0, nil, false
	}
	open, ok := m.Body.(*bgp.BGPOpen)
	if !ok {
		return 0, nil, false
	}
	as = uint32(open.MyAS)
	for _, parameter := range open.OptParams {
		capabilities, ok := parameter.(*bgp.OptionParameterCapability)
		if !ok {
			continue
		}
		for _, capability := range capabilities.Capability {
			switch v := capability.(type) {
			case *bgp.CapMultiProtocol:
				families = append(families, v.CapValue)
			case *bgp.CapFourOctetASNumber:
				as = v.CapValue
			}
		}
	}
	if families == nil {
		// A speaker without RFC 4760 speaks IPv4 unicast and nothing else.
		families = []bgp.Family{bgp.RF_IPv4_UC}
	}
	return as, families, true
}

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
