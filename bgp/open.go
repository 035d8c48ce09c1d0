package bgp

import (
	"encoding/binary"
	"slices"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// opening is what an OPEN says.
type opening struct {
	as       uint32
	families []bgp.Family // all that the peer speaks
	// gracefulRestart tells that it keeps routes through a restart of ours.
	gracefulRestart bool
	// sends and takes are the families in which it would send, and would take,
	// path identifiers (RFC 7911).
	sends, takes Families
	refreshes    bool // it knows ROUTE-REFRESH
	// clean is the body with those capabilities alone that GoBGP is to see.
	clean []byte
}

const (
	openLength = 10 // of a body without parameters, RFC 4271 section 4.2
	// paramCapabilities and paramExtended are the parameters of RFC 5492 and
	// of RFC 9072.
	paramCapabilities = 2
	paramExtended     = 255
)

// parseOpen reads the body of an OPEN. It is not ok where parameters or
// capabilities are longer than what they are in; a capability that is wrong in
// itself is left out.
func parseOpen(body []byte) (o opening, ok bool) {
	if len(body) < openLength {
		return opening{}, false
	}
	o.as = uint32(binary.BigEndian.Uint16(body[1:3]))
	var kept []byte
	seen := map[byte]bool{}
	if !capabilities(body, func(code byte, value []byte) {
		if value, ok := o.take(code, value, seen[code]); ok {
			seen[code] = true
			kept = append(append(kept, code, byte(len(value))), value...)
		}
	}) {
		return opening{}, false
	}
	if o.families == nil {
		// A speaker without RFC 4760 speaks IPv4 unicast and nothing else.
		o.families = []bgp.Family{bgp.RF_IPv4_UC}
	}
	o.clean = slices.Clone(body[:openLength])
	o.clean[openLength-1] = 0
	if kept != nil {
		o.clean[openLength-1] = byte(2 + len(kept))
		o.clean = append(append(o.clean, paramCapabilities, byte(len(kept))), kept...)
	}
	return o, true
}

// capabilities shows each capability in the body of an OPEN. It is not ok where
// parameters or capabilities are longer than what they are in.
func capabilities(body []byte, show func(code byte, value []byte)) (ok bool) {
	params, size := body[openLength:], 1
	length := int(body[openLength-1])
	if length == paramExtended && len(params) >= 3 && params[0] == paramExtended {
		length, params, size = int(binary.BigEndian.Uint16(params[1:3])), params[3:], 2
	}
	if len(params) != length {
		return false
	}
	for len(params) > 0 {
		kind := params[0]
		var value []byte
		if value, params, ok = field(params[1:], size); !ok {
			return false
		}
		if kind != paramCapabilities {
			continue
		}
		for len(value) > 0 {
			code := value[0]
			var capability []byte
			if capability, value, ok = field(value[1:], 1); !ok {
				return false
			}
			show(code, capability)
		}
	}
	return true
}

// field cuts a field off b that has its length in the n bytes before it.
func field(b []byte, n int) (value, rest []byte, ok bool) {
	if len(b) < n {
		return nil, nil, false
	}
	length := 0
	for _, octet := range b[:n] {
		length = length<<8 | int(octet)
	}
	b = b[n:]
	if len(b) < length {
		return nil, nil, false
	}
	return b[:length], b[length:], true
}

// take notes what a capability says, and returns as much of it as GoBGP is to
// see; not ok: nothing. again tells that there was one of its kind. What is kept
// is a few dozen bytes at most.
func (o *opening) take(code byte, value []byte, again bool) (kept []byte, ok bool) {
	switch bgp.BGPCapabilityCode(code) {
	case bgp.BGP_CAP_MULTIPROTOCOL:
		if len(value) != 4 {
			return nil, false
		}
		f := bgp.NewFamily(binary.BigEndian.Uint16(value), value[3])
		known := slices.Contains(o.families, f)
		// One of the others tells GoBGP that IPv4 does not go without saying.
		ok = ours(value[0], value[1], value[3]) && !known || o.families == nil
		if !known && len(o.families) < maxFamilies {
			o.families = append(o.families, f)
		}
		return value, ok
	case bgp.BGP_CAP_FOUR_OCTET_AS_NUMBER:
		if len(value) != 4 || again {
			return nil, false
		}
		o.as = binary.BigEndian.Uint32(value)
		return value, true
	case bgp.BGP_CAP_ROUTE_REFRESH, bgp.BGP_CAP_EXTENDED_MESSAGE:
		o.refreshes = o.refreshes || bgp.BGPCapabilityCode(code) == bgp.BGP_CAP_ROUTE_REFRESH && len(value) == 0
		return nil, len(value) == 0 && !again
	case bgp.BGP_CAP_GRACEFUL_RESTART: // RFC 4724 section 3
		if len(value) < 2 || again {
			return nil, false
		}
		o.gracefulRestart = true
		return noRestart, true
	case bgp.BGP_CAP_ADD_PATH: // RFC 7911 section 4
		tuples, ok := ourTuples(value)
		if ok = ok && !again && len(tuples) > 0; ok {
			for tuple := range slices.Chunk(tuples, 4) {
				f, mode := familyBits(familyOf(tuple)), bgp.BGPAddPathMode(tuple[3])
				if mode == bgp.BGP_ADD_PATH_SEND || mode == bgp.BGP_ADD_PATH_BOTH {
					o.sends |= f
				}
				if mode == bgp.BGP_ADD_PATH_RECEIVE || mode == bgp.BGP_ADD_PATH_BOTH {
					o.takes |= f
				}
			}
		}
		return tuples, ok
	}
	return nil, false
}

// maxFamilies bounds the families of an OPEN; there are some thirty.
const maxFamilies = 64

// ours reports whether AFI, in two bytes, and SAFI are those of a family that
// sessions may carry.
func ours(afiHigh, afiLow, safi byte) bool {
	return slices.Contains(families, bgp.NewFamily(uint16(afiHigh)<<8|uint16(afiLow), safi))
}

// ourTuples keeps the first of each family that sessions may carry from a list
// of AFI, SAFI and one byte more.
func ourTuples(list []byte) (kept []byte, ok bool) {
	if len(list)%4 != 0 {
		return nil, false
	}
	for tuple := range slices.Chunk(list, 4) {
		again := false
		for other := range slices.Chunk(kept, 4) {
			again = again || slices.Equal(other[:3], tuple[:3])
		}
		if ours(tuple[0], tuple[1], tuple[2]) && !again {
			kept = append(kept, tuple...)
		}
	}
	return kept, true
}

// endOfRIB tells the End-of-RIB markers of the families that sessions may carry
// from other UPDATEs, by their bodies (RFC 4724 section 2).
func endOfRIB(body []byte) (family bgp.Family, ok bool) {
	withdrawn, rest, ok := field(body, 2)
	if !ok || len(withdrawn) > 0 {
		return 0, false
	}
	attributes, nlri, ok := field(rest, 2)
	if !ok || len(nlri) > 0 {
		return 0, false
	}
	if len(attributes) == 0 {
		return bgp.RF_IPv4_UC, true
	}
	if len(attributes) < 2 || bgp.BGPAttrType(attributes[1]) != bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI {
		return 0, false
	}
	size := 1
	if bgp.BGPAttrFlag(attributes[0])&bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH != 0 {
		size = 2
	}
	value, rest, ok := field(attributes[2:], size)
	if !ok || len(rest) > 0 || len(value) != 3 || !ours(value[0], value[1], value[2]) {
		return 0, false
	}
	return familyOf(value), true
}
