package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"lb4d/bgp"
	"lb4d/l4"
)

// Sibling is another host that announces a VIP, in the words of all peers that
// tell of it.
type Sibling struct {
	// RouterID is invalid where nobody says it; NextHop then tells the host.
	RouterID, NextHop netip.Addr
	Since             time.Time
	// Fingerprint is that of its tables; nil where it says none.
	Fingerprint *uint32
	// Draining: every peer tells that it drains.
	Draining bool
	Peers    []netip.Addr
}

// Others are what is known of the siblings of one VIP.
type Others struct {
	Siblings []Sibling
	// Heard tells that a session is up that would tell of siblings, and Sure
	// that one of them tells of all, so that there are no others.
	Heard, Sure bool
}

// Announcing counts the siblings that announce the VIP and mean to go on.
func (o Others) Announcing() int {
	n := 0
	for _, s := range o.Siblings {
		if !s.Draining {
			n++
		}
	}
	return n
}

// OthersOf gathers what the peers tell of the siblings of each VIP.
func OthersOf(vips []netip.Addr, paths []bgp.Sibling, peers []bgp.PeerStatus) map[netip.Addr]Others {
	var heard, sure bgp.Families
	for _, p := range peers {
		heard |= p.Received.Tells
		sure |= p.Received.All
	}
	others := make(map[netip.Addr]Others, len(vips))
	for _, vip := range vips {
		family := bgp.IPv4
		if vip.Is6() {
			family = bgp.IPv6
		}
		others[vip] = Others{Heard: heard&family != 0, Sure: sure&family != 0}
	}
	for _, path := range paths {
		o, ok := others[path.VIP]
		if !ok {
			continue
		}
		o.Siblings = gather(o.Siblings, path)
		others[path.VIP] = o
	}
	for _, o := range others {
		slices.SortFunc(o.Siblings, func(a, b Sibling) int {
			return cmp.Or(a.RouterID.Compare(b.RouterID), a.NextHop.Compare(b.NextHop))
		})
	}
	return others
}

// gather adds a path to the siblings. Two that say of themselves to be the same
// host are one; so are two of which nothing is known but the same next hop.
func gather(all []Sibling, path bgp.Sibling) []Sibling {
	i := slices.IndexFunc(all, func(s Sibling) bool {
		return s.RouterID == path.RouterID && (path.RouterID.IsValid() || s.NextHop == path.NextHop)
	})
	if i < 0 {
		return append(all, Sibling{
			RouterID: path.RouterID, NextHop: path.NextHop, Since: path.Since,
			Fingerprint: path.Fingerprint, Draining: path.Draining, Peers: []netip.Addr{path.Peer},
		})
	}
	s := &all[i]
	if path.Since.Before(s.Since) {
		s.Since = path.Since
	}
	s.Draining = s.Draining && path.Draining
	if s.Fingerprint == nil {
		s.Fingerprint = path.Fingerprint
	}
	if !slices.Contains(s.Peers, path.Peer) {
		s.Peers = append(s.Peers, path.Peer)
	}
	return all
}

// Agreement is how the tables of a sibling compare with those of this host.
type Agreement int

// The agreements. Unknown: one of the two does not say what it has.
const (
	Unknown Agreement = iota
	Agree
	Differ
)

// String is the agreement as status shows it.
func (a Agreement) String() string { return [...]string{"unknown", "agree", "differ"}[a] }

// Compare tells how a sibling's tables compare with those of this host, whose
// fingerprint is own; nil: it has none.
func (s Sibling) Compare(own *uint32) Agreement {
	switch {
	case own == nil || s.Fingerprint == nil:
		return Unknown
	case *own == *s.Fingerprint:
		return Agree
	}
	return Differ
}

// differs tells whether flows would go to other members by way of a sibling.
// What drains takes no new flows and is about to change anyway.
func (o Others) differs(own *uint32) bool {
	return slices.ContainsFunc(o.Siblings, func(s Sibling) bool { return !s.Draining && s.Compare(own) == Differ })
}

// Disagreement is that of this host and a sibling over the tables of a VIP.
type Disagreement struct {
	Since time.Time
	// Standing: it has lasted for longer than hosts may take to see the same.
	Standing bool
}

// Disagree tells over which VIPs the hosts disagree, after those over which they
// did before. A VIP that is not announced here carries no flows here, so its
// tables matter to nobody. A sibling that is not heard any more agrees.
func Disagree(before map[netip.Addr]Disagreement, vips []VIP, others map[netip.Addr]Others, own map[netip.Addr]uint32, now time.Time, settle time.Duration) map[netip.Addr]Disagreement {
	after := map[netip.Addr]Disagreement{}
	for _, v := range vips {
		fingerprint, known := own[v.Addr]
		if v.State == Withdrawn || !known || !others[v.Addr].differs(&fingerprint) {
			continue
		}
		d, ok := before[v.Addr]
		if !ok {
			d.Since = now
		}
		d.Standing = now.Sub(d.Since) >= settle
		after[v.Addr] = d
	}
	return after
}

// Scope is how far the failure of a VIP's members reaches.
type Scope int

// The scopes. NotFailing: the members do not keep the VIP from being announced.
const (
	NotFailing Scope = iota
	// FailingHere: siblings announce the VIP, so it is this host's way to the
	// members that fails.
	FailingHere
	// FailingEverywhere: no sibling announces it.
	FailingEverywhere
	// FailingSomewhere: nobody tells of siblings.
	FailingSomewhere
)

// String is the scope as status and metrics have it.
func (s Scope) String() string { return [...]string{"", "here", "everywhere", "unknown"}[s] }

// scope tells how far a failure reaches, and in words.
func (o Others) scope() (Scope, string) {
	switch {
	case o.Announcing() > 0:
		return FailingHere, "; other hosts still announce it"
	case o.Sure:
		return FailingEverywhere, "; no other host announces it"
	}
	return FailingSomewhere, ""
}

// Fingerprints are those of the VIPs, each of all services on it: equal on two
// hosts that send every flow to a VIP to the same member. tables are the
// fingerprints of the services with a Maglev table; a service with another
// scheduler counts by the scheduler. A VIP of which a service is not in the
// kernel, or whose table nobody can know, has none.
func Fingerprints(wanted, listed l4.Table, tables map[l4.Key]string) map[netip.Addr]uint32 {
	have := index(listed)
	parts := map[netip.Addr][]string{}
	unknown := map[netip.Addr]bool{}
	for _, s := range wanted {
		if s.FWMark != 0 {
			continue // a check's way, and no users'
		}
		got, ok := have[s.Key]
		said := tables[s.Key]
		if ok && got.Scheduler != "mh" {
			said = "scheduler " + got.Scheduler
		}
		if !ok || said == "" {
			unknown[s.VIP] = true
			continue
		}
		parts[s.VIP] = append(parts[s.VIP], fmt.Sprintf("%d/%s %s\n", s.Port, s.Protocol, said))
	}
	out := make(map[netip.Addr]uint32, len(parts))
	for vip, all := range parts {
		if unknown[vip] {
			continue
		}
		slices.Sort(all)
		h := sha256.New()
		for _, part := range all {
			_, _ = h.Write([]byte(part))
		}
		out[vip] = binary.BigEndian.Uint32(h.Sum(nil))
	}
	return out
}

// Say are the fingerprints that routes say, where tables have just changed. A
// table that changes again and again would have the routers learn its routes
// anew each time; so one that was said stands for least before the next.
type Say struct {
	Fingerprint uint32
	At          time.Time
}

// Saying is what is said after what was said before.
func Saying(before map[netip.Addr]Say, now time.Time, least time.Duration, fingerprints map[netip.Addr]uint32) map[netip.Addr]Say {
	after := make(map[netip.Addr]Say, len(fingerprints))
	for vip, f := range fingerprints {
		old, known := before[vip]
		if known && (old.Fingerprint == f || now.Sub(old.At) < least) {
			after[vip] = old
			continue
		}
		after[vip] = Say{f, now}
	}
	return after
}
