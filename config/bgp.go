package config

import (
	"math"
	"net/netip"
	"time"
)

const (
	// maxPeers bounds the sessions; an LB4 host has two or four.
	maxPeers = 64
	// maxMultihop is the highest TTL.
	maxMultihop = 255
	// maxDrainTime bounds how long a stop may take.
	maxDrainTime = 10 * time.Minute
	// The hold time travels as 16 bits of seconds, and one or two seconds are
	// not allowed (RFC 4271 section 4.2).
	minHoldTime = 3 * time.Second
	maxHoldTime = math.MaxUint16 * time.Second
	// The restart time travels as 12 bits of seconds (RFC 4724 section 3).
	maxRestartTime = 4095 * time.Second
	// maxPrefixLimit is what the speaker can count to (bgp.MaxPrefixLimit).
	maxPrefixLimit = 1000000
	// A shorter interval finds the pauses of this host's own scheduler. The
	// multiplier travels as one byte, and two is the least that bears a loss.
	minBFDInterval   = 50 * time.Millisecond
	maxBFDInterval   = 10 * time.Second
	minBFDMultiplier = 2
	maxBFDMultiplier = 50
)

// bgp validates [bgp] and its peers, and reads the names of communities.
func (c *checker) bgp(file *rawFile) (BGP, communityNames) {
	raw := &file.bgp
	if !raw.ok {
		if !raw.present {
			c.fault(file.child("bgp"), `the table is missing; write [bgp] with as = 65000 and router_id = "192.0.2.132"`)
		}
		return BGP{}, nil
	}
	names := c.communityNames(raw.community)
	b := BGP{
		AS:              c.as(raw.as, 0),
		RouterID:        c.routerID(raw),
		HoldTime:        c.holdTime(raw.holdTime, defaultHoldTime),
		Multihop:        int(c.integer(raw.multihop, 1, 1, maxMultihop)),
		ListenPort:      int(c.integer(raw.listenPort, 0, 0, math.MaxUint16)),
		GracefulRestart: c.gracefulRestart(raw.gracefulRestart, defaultGracefulRestart),
		DrainTime:       c.duration(raw.drainTime, defaultDrainTime, 0, maxDrainTime),
		Attributes:      c.attributes(&raw.rawAttributes, names).farthest(),
	}
	b.TTLSecurity = raw.ttlSecurity.value
	b.Siblings = truth(raw.siblings, true)
	b.SiblingsSettle = c.duration(raw.siblingsSettle, defaultSiblingsSettle, time.Second, time.Hour)
	b.PrefixLimit = int(c.integer(raw.prefixLimit, defaultPrefixLimit, 0, maxPrefixLimit))
	if !raw.as.present {
		c.fault(raw.child("as"), "is missing; write the number of your autonomous system, such as as = 65000")
	}
	b.Peers = c.peers(raw, b, names)
	return b, names
}

// maxAS is the highest number of an autonomous system: RFC 7300 reserves the
// one above.
const maxAS = math.MaxUint32 - 1

// as is a number of an autonomous system. RFC 7607 reserves 0.
func (c *checker) as(t number, fallback uint32) uint32 {
	if t.ok && t.value == 0 {
		c.fault(t.place, "0 is reserved and numbers no autonomous system; write 1 to %d", maxAS)
		return fallback
	}
	return uint32(c.integer(t, int64(fallback), 1, maxAS))
}

// routerID is the BGP identifier: four bytes that are not all zero (RFC 6286
// section 2.1).
func (c *checker) routerID(raw *rawBGP) netip.Addr {
	t := raw.routerID
	if !t.present {
		c.fault(raw.child("router_id"), `is missing; write an IPv4 address of this host, such as router_id = "192.0.2.132"`)
	}
	if !t.ok {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(t.value)
	switch {
	case err != nil || !a.Is4():
		c.fault(t.place, `%s is not an IPv4 address; write one of this host, such as "192.0.2.132"`, quote(t.value))
	case a.IsUnspecified():
		c.fault(t.place, `%s identifies nobody; write an IPv4 address of this host, such as "192.0.2.132"`, quote(t.value))
	default:
		return a
	}
	return netip.Addr{}
}

// holdTime is how long a session outlives silence.
func (c *checker) holdTime(t text, fallback time.Duration) time.Duration {
	return c.seconds(t, fallback, minHoldTime, maxHoldTime)
}

// seconds is a duration that BGP carries in whole seconds.
func (c *checker) seconds(t text, fallback, least, most time.Duration) time.Duration {
	d := c.duration(t, fallback, least, most)
	if d%time.Second != 0 {
		c.fault(t.place, "%s is not in whole seconds, and BGP knows no others; write %q or %q",
			quote(t.value), spell(d.Truncate(time.Second)), spell(d.Truncate(time.Second)+time.Second))
		return fallback
	}
	return d
}

// bfd is how the way to a peer is watched; nil: it is not.
func (c *checker) bfd(raw *rawBFD) *BFD {
	if !raw.ok {
		return nil
	}
	return &BFD{
		Interval:   c.duration(raw.interval, defaultBFDInterval, minBFDInterval, maxBFDInterval),
		Multiplier: int(c.integer(raw.multiplier, defaultBFDMultiplier, minBFDMultiplier, maxBFDMultiplier)),
		Multihop:   raw.multihop.value,
	}
}

// truth is what t says, or the fallback where it says nothing.
func truth(t boolean, fallback bool) bool {
	if t.ok {
		return t.value
	}
	return fallback
}

// gracefulRestart is how long the peers are to keep the routes of a daemon that
// has gone without a word; 0: not at all.
func (c *checker) gracefulRestart(t text, fallback time.Duration) time.Duration {
	return c.seconds(t, fallback, 0, maxRestartTime)
}
