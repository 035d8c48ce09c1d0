package config

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxCommunities keeps the attribute far below the 4096 bytes of a BGP
	// message (RFC 4271 section 4.1), and a large one takes three times the
	// room.
	maxCommunities      = 64
	maxLargeCommunities = 32
	// maxCommunityNames bounds [bgp.community].
	maxCommunityNames = 1024
	// defaultLocalPreference is what GoBGP, like most speakers, tells internal
	// peers of its own routes.
	defaultLocalPreference = 100
	// maxPrepend is what speakers put up with; bgp has the same bound.
	maxPrepend = 16
	// fingerprintTag and routerTag make a large community the daemon's own
	// (bgp.FingerprintTag, bgp.RouterTag).
	fingerprintTag, routerTag = 1818375270, 1818375282
)

// Attributes are what BGP says of a route besides its prefix. A nil pointer or
// list, or an invalid address, is not set. A service's count before a peer's,
// and a peer's before those of [bgp], each attribute by itself.
type Attributes struct {
	// Communities are those of RFC 1997 as 32-bit values, and
	// LargeCommunities those of RFC 8092 as their three numbers; sorted. A
	// list that is empty and not nil is set: to none.
	Communities      []uint32
	LargeCommunities [][3]uint32
	// MED is the MULTI_EXIT_DISC: lower is better.
	MED *uint32
	// LocalPreference is for peers in our own autonomous system: higher is
	// better.
	LocalPreference *uint32
	// Prepend is how often our AS is put before the path besides the one time
	// it must be, for peers in another autonomous system.
	Prepend *int
	// NextHop4 and NextHop6 are the next hops of IPv4 and of IPv6 routes.
	NextHop4, NextHop6 netip.Addr
}

// over is a with what b sets where a sets nothing.
func (a Attributes) over(b Attributes) Attributes {
	if a.Communities == nil {
		a.Communities = b.Communities
	}
	if a.LargeCommunities == nil {
		a.LargeCommunities = b.LargeCommunities
	}
	if a.MED == nil {
		a.MED = b.MED
	}
	if a.LocalPreference == nil {
		a.LocalPreference = b.LocalPreference
	}
	if a.Prepend == nil {
		a.Prepend = b.Prepend
	}
	if !a.NextHop4.IsValid() {
		a.NextHop4 = b.NextHop4
	}
	if !a.NextHop6.IsValid() {
		a.NextHop6 = b.NextHop6
	}
	return a
}

// farthest leaves out of the attributes of [bgp] what is so anyway. Nobody
// stands behind them whom an empty list would have to keep away.
func (a Attributes) farthest() Attributes {
	if len(a.Communities) == 0 {
		a.Communities = nil
	}
	if len(a.LargeCommunities) == 0 {
		a.LargeCommunities = nil
	}
	if a.LocalPreference != nil && *a.LocalPreference == defaultLocalPreference {
		a.LocalPreference = nil
	}
	if a.Prepend != nil && *a.Prepend == 0 {
		a.Prepend = nil
	}
	return a
}

// rawAttributes are the keys of attributes in a table that may have them.
type rawAttributes struct {
	communities      texts
	largeCommunities texts
	med              number
	localPreference  number
	prepend          number
	nextHops         texts
}

func (r *rawAttributes) attributeFields() []field {
	return []field{
		{"communities", &r.communities, `["65000:100"]`},
		{"large_communities", &r.largeCommunities, `["65000:1:100"]`},
		{"med", &r.med, "100"},
		{"local_preference", &r.localPreference, "50"},
		{"prepend", &r.prepend, "2"},
		{"next_hops", &r.nextHops, `["192.0.2.132"]`},
	}
}

// attributes validates the attributes of one table.
func (c *checker) attributes(r *rawAttributes, names communityNames) Attributes {
	a := Attributes{
		Communities:      c.communities(r.communities, names),
		LargeCommunities: c.largeCommunities(r.largeCommunities, names),
		MED:              c.optional(r.med, 0),
		// 0 is refused because GoBGP's export policy takes it for none.
		LocalPreference: c.optional(r.localPreference, 1),
	}
	if r.prepend.ok {
		a.Prepend = new(int(c.integer(r.prepend, 0, 0, maxPrepend)))
	}
	a.NextHop4, a.NextHop6 = c.nextHops(r.nextHops)
	return a
}

// optional is a number of 32 bits, from least on, or nil where the key is left
// out or wrong.
func (c *checker) optional(t number, least uint32) *uint32 {
	if !t.ok {
		return nil
	}
	return new(uint32(c.integer(t, int64(least), int64(least), math.MaxUint32)))
}

// nextHops is an address of each family, or invalid ones.
func (c *checker) nextHops(t texts) (v4, v6 netip.Addr) {
	if t.ok && len(t.values) == 0 {
		c.fault(t.place, `the list is empty; write an address of this host such as ["192.0.2.132"], or leave the key out`)
	}
	for _, one := range t.values {
		a, ok := c.address(one)
		if !ok {
			continue
		}
		of, name := &v4, "IPv4"
		if a.Is6() {
			of, name = &v6, "IPv6"
		}
		switch {
		case a.IsLoopback():
			c.fault(one.place, "%s is a loopback address; write one that the routers can reach", quote(one.value))
		case of.IsValid():
			c.fault(one.place, "%s is the second %s address in the list; write one of each family at most", quote(one.value), name)
		default:
			*of = a
		}
	}
	return v4, v6
}

// nextHops are all next hops that the file names.
func (r *rawFile) nextHops() []text {
	all := slices.Clone(r.bgp.nextHops.values)
	for _, p := range r.bgp.peers.entries {
		all = append(all, p.nextHops.values...)
	}
	for _, s := range r.services.entries {
		all = append(all, s.bgp.nextHops.values...)
	}
	return all
}

// sources are the local addresses of sessions that the file names.
func (r *rawFile) sources() []text {
	var all []text
	for _, p := range r.bgp.peers.entries {
		all = append(all, p.sourceAddress)
	}
	return all
}

// wellKnown are the communities that have a name, as the registry of IANA
// (bgp-well-known-communities) spells it.
var wellKnown = map[string]uint32{
	"blackhole":           0xFFFF029A, // RFC 7999
	"no-export":           0xFFFFFF01, // RFC 1997
	"no-advertise":        0xFFFFFF02, // RFC 1997
	"no-export-subconfed": 0xFFFFFF03, // RFC 1997
	"no-peer":             0xFFFFFF04, // RFC 3765
}

// gracefulShutdown is 65535:0 of RFC 8326. On every route and for good it
// would say that this host is always about to go.
const gracefulShutdown uint32 = 0xFFFF0000

// community is a community or, with three numbers, a large one.
type community struct {
	large bool
	value uint32
	three [3]uint32
}

// communityNames are the names of [bgp.community].
type communityNames map[string]community

// communityNames reads [bgp.community].
func (c *checker) communityNames(t namedTexts) communityNames {
	if len(t.entries) > maxCommunityNames {
		c.fault(t.place, "there are %d names; write at most %d", len(t.entries), maxCommunityNames)
		return nil
	}
	names := communityNames{}
	for _, e := range t.entries {
		if !e.ok {
			continue
		}
		_, taken := wellKnown[e.name]
		value, ok := parseCommunity(e.value)
		switch {
		case taken || e.name == "graceful-shutdown":
			c.fault(e.place, "%s has a meaning of its own everywhere; write another name", e.name)
		case !ok:
			c.fault(e.place, `%s is not a community; write two numbers from 0 to 65535 as "65000:100", or three of a large one as "65000:1:100"`, quote(e.value))
		default:
			names[e.name] = value
		}
	}
	return names
}

// known are all the names of communities that may be written.
func (n communityNames) known() []string {
	var all []string
	for name := range wellKnown {
		all = append(all, name)
	}
	for name := range n {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// find is what a word of a list stands for.
func (n communityNames) find(word string) (community, bool) {
	if word == "graceful-shutdown" {
		return community{value: gracefulShutdown}, true
	}
	if value, ok := wellKnown[word]; ok {
		return community{value: value}, true
	}
	if value, ok := n[word]; ok {
		return value, true
	}
	return parseCommunity(word)
}

// parseCommunity reads 65000:100, or 65000:1:100.
func parseCommunity(s string) (community, bool) {
	parts := strings.Split(s, ":")
	bits := 16
	if len(parts) == 3 {
		bits = 32
	} else if len(parts) != 2 {
		return community{}, false
	}
	var numbers [3]uint32
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, bits)
		if err != nil {
			return community{}, false
		}
		numbers[i] = uint32(n)
	}
	if len(parts) == 3 {
		return community{large: true, three: numbers}, true
	}
	return community{value: numbers[0]<<16 | numbers[1]}, true
}

// communities reads the list, sorted and each once; nil where the key is left
// out.
func (c *checker) communities(t texts, names communityNames) []uint32 {
	if !t.ok {
		return nil
	}
	if len(t.values) > maxCommunities {
		c.fault(t.place, "there are %d communities; write at most %d", len(t.values), maxCommunities)
		return nil
	}
	all := []uint32{}
	for _, one := range t.values {
		if !one.ok {
			continue
		}
		found, ok := names.find(one.value)
		switch {
		case !ok:
			c.notCommunity(one, names, `two numbers from 0 to 65535 as "65000:100"`)
		case found.large:
			c.fault(one.place, "%s is a large community; write it into large_communities", quote(one.value))
		case found.value == gracefulShutdown:
			c.fault(one.place, "%s is what the daemon itself adds while it drains; leave it out", quote(one.value))
		case slices.Contains(all, found.value):
			c.fault(one.place, "%s is in the list twice; leave one of them out", quote(one.value))
		default:
			all = append(all, found.value)
		}
	}
	slices.Sort(all)
	return all
}

// largeCommunities is communities for large ones.
func (c *checker) largeCommunities(t texts, names communityNames) [][3]uint32 {
	if !t.ok {
		return nil
	}
	if len(t.values) > maxLargeCommunities {
		c.fault(t.place, "there are %d large communities; write at most %d", len(t.values), maxLargeCommunities)
		return nil
	}
	all := [][3]uint32{}
	for _, one := range t.values {
		if !one.ok {
			continue
		}
		found, ok := names.find(one.value)
		switch {
		case !ok:
			c.notCommunity(one, names, `three numbers from 0 to 4294967295 as "65000:1:100"`)
		case !found.large:
			c.fault(one.place, "%s is no large community; write it into communities", quote(one.value))
		case found.three[1] == fingerprintTag || found.three[1] == routerTag:
			c.fault(one.place, "%s is what the daemon itself says to other LB4 hosts; leave it out", quote(one.value))
		case slices.Contains(all, found.three):
			c.fault(one.place, "%s is in the list twice; leave one of them out", quote(one.value))
		default:
			all = append(all, found.three)
		}
	}
	slices.SortFunc(all, func(x, y [3]uint32) int { return slices.Compare(x[:], y[:]) })
	return all
}

// notCommunity tells of a word that is none, and what would be one.
func (c *checker) notCommunity(t text, names communityNames, numbers string) {
	known := names.known()
	if near := closest(t.value, known); near != "" {
		c.fault(t.place, "%s is not a community; did you mean %s?", quote(t.value), quote(near))
		return
	}
	c.fault(t.place, "%s is not a community; write %s, or a name: %s", quote(t.value), numbers, list(known, "or"))
}
