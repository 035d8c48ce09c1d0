package bgp

import (
	"cmp"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// What lb4d says of itself in a route is two large communities (RFC 8092): the
// number of its autonomous system, one of the two numbers below, and a value.
// The numbers spell lb4f and lb4r, so that no numbering plan has them by
// accident.
const (
	// FingerprintTag comes before the fingerprint of the route's Maglev tables.
	FingerprintTag uint32 = 0x6c623466 // 1818375270
	// RouterTag comes before the router ID. A reflector says the same in
	// ORIGINATOR_ID, but a router in between puts its own next hop and leaves
	// nothing else to tell two hosts apart by.
	RouterTag uint32 = 0x6c623472 // 1818375282
)

const (
	// maxPaths bounds what is kept of one peer for one VIP.
	maxPaths = 64
	// tellInterval bounds how often the loop is woken by what peers announce.
	tellInterval = 200 * time.Millisecond
	// tellAll is how long after its start a session without an End-of-RIB
	// marker is taken to have told all. The marker belongs to graceful restart,
	// and not every router sends it without.
	tellAll = 5 * time.Second
)

// Sibling is the path of another host to a VIP, as one peer tells of it.
type Sibling struct {
	VIP  netip.Addr
	Peer netip.Addr
	// RouterID is the other host's; invalid where nobody says it. Then NextHop
	// is all that is known, and it may be a router's.
	RouterID netip.Addr
	NextHop  netip.Addr
	// Since is when the peer first told of the path in this session.
	Since time.Time
	// Fingerprint is that of the other host's tables; nil where it says none.
	Fingerprint *uint32
	// Draining tells that the path carries GracefulShutdown.
	Draining bool
}

// Received is what came from a peer.
type Received struct {
	// Tells are the families in which the peer would have told of siblings by
	// now: the session is up, and the table has come. 0: nothing is known.
	Tells Families
	// All are those of them in which it tells of every path (RFC 7911), and not
	// of the one that it finds best, which may be our own.
	All Families
	// Paths counts the paths of siblings that are kept.
	Paths int
	// Ignored counts the announcements that were dropped because they are for
	// other prefixes, or are too many for one VIP.
	Ignored uint64
	// Malformed counts the UPDATEs that could not be read to their end.
	Malformed uint64
	// Over tells that the peer has announced more than Peer.PrefixLimit other
	// prefixes in this session.
	Over bool
}

// siblings are the paths that all peers tell of. It keeps those for VIPs alone.
type siblings struct {
	router  netip.Addr
	changed func()

	vips atomic.Pointer[map[netip.Addr]bool]
	hops atomic.Pointer[map[netip.Addr]bool] // the next hops of our own routes

	mu    sync.Mutex
	from  map[*source]bool
	timer *time.Timer // runs until the loop is told; nil: nothing to tell
}

func newSiblings(router netip.Addr, changed func()) *siblings {
	s := &siblings{router: router, changed: changed, from: map[*source]bool{}}
	s.vips.Store(&map[netip.Addr]bool{})
	s.hops.Store(&map[netip.Addr]bool{})
	return s
}

// source is one session whose UPDATEs are read. GoBGP's reader alone calls its
// methods announced, withdrawn and ended.
type source struct {
	all   *siblings
	peer  netip.Addr
	local netip.Addr // the session's
	log   *slog.Logger
	limit atomic.Int64

	ignored, malformed atomic.Uint64
	over               atomic.Bool
	others             sketch

	// Below: with all.mu held.
	paths map[netip.Addr]map[uint32]Sibling
	count int
	begun time.Time // when the session came up; zero: it has not yet
	ends  Families  // whose End-of-RIB marker has come
	// speaks are the families of the session, tagged those in which prefixes
	// have path identifiers.
	speaks, tagged Families
}

// open begins to read what a peer announces.
func (s *siblings) open(peer, local netip.Addr, limit int, log *slog.Logger) *source {
	src := &source{all: s, peer: peer, local: local, log: log, paths: map[netip.Addr]map[uint32]Sibling{}}
	src.limit.Store(int64(limit))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from[src] = true
	return src
}

// close forgets what the peer has announced: with the session its routes are
// gone (RFC 4271 section 8.2.2), or nobody can tell any more.
func (s *siblings) close(src *source) {
	if src == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.from, src)
	if !src.begun.IsZero() {
		s.tell()
	}
}

// tell wakes the loop, soon. It is called with mu held.
func (s *siblings) tell() {
	if s.timer != nil {
		return
	}
	s.timer = time.AfterFunc(tellInterval, func() {
		s.mu.Lock()
		s.timer = nil
		s.mu.Unlock()
		s.changed()
	})
}

// watch makes the VIPs those given, and reports in which families there is one
// that was none before.
func (s *siblings) watch(vips []netip.Addr) (fresh Families) {
	old := *s.vips.Load()
	now := make(map[netip.Addr]bool, len(vips))
	for _, vip := range vips {
		now[vip] = true
		if !old[vip] {
			fresh |= familyBit(vip)
		}
	}
	if fresh == 0 && len(now) == len(old) {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vips.Store(&now)
	for src := range s.from {
		for vip, paths := range src.paths {
			if !now[vip] {
				src.count -= len(paths)
				delete(src.paths, vip)
			}
		}
	}
	return fresh
}

// list is what all peers tell, sorted.
func (s *siblings) list() []Sibling {
	s.mu.Lock()
	var all []Sibling
	for src := range s.from {
		for _, paths := range src.paths {
			all = slices.AppendSeq(all, maps.Values(paths))
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b Sibling) int {
		return cmp.Or(a.VIP.Compare(b.VIP), a.RouterID.Compare(b.RouterID), a.NextHop.Compare(b.NextHop), a.Peer.Compare(b.Peer))
	})
	return all
}

// began notes that the session is up, and what it carries.
func (src *source) began(speaks, tagged Families) {
	if src == nil {
		return
	}
	src.all.mu.Lock()
	defer src.all.mu.Unlock()
	src.begun, src.speaks, src.tagged = time.Now(), speaks, tagged
	// When it has told all is another thing to look at.
	time.AfterFunc(tellAll, src.all.changed)
	src.all.tell()
}

// read takes in an UPDATE, whose prefixes have path identifiers in the families
// given.
func (src *source) read(body []byte, identified Families) {
	if src != nil && !readUpdate(body, func(f bgp.Family) bool { return familyBits(f)&identified != 0 }, src) {
		src.malformed.Add(1)
	}
}

// ended notes an End-of-RIB marker.
func (src *source) ended(f Families) {
	if src == nil {
		return
	}
	src.all.mu.Lock()
	defer src.all.mu.Unlock()
	if src.ends&f != f {
		src.ends |= f
		src.all.tell()
	}
}

// status is what came from the peer so far.
func (src *source) status() Received {
	if src == nil {
		return Received{}
	}
	src.all.mu.Lock()
	defer src.all.mu.Unlock()
	r := Received{
		Paths:   src.count,
		Ignored: src.ignored.Load(), Malformed: src.malformed.Load(), Over: src.over.Load(),
	}
	if src.begun.IsZero() {
		return r
	}
	if r.Tells = src.ends & src.speaks; time.Since(src.begun) >= tellAll {
		r.Tells = src.speaks
	}
	r.All = r.Tells & src.tagged
	return r
}

// announced implements reader.
func (src *source) announced(_ bgp.Family, prefix []byte, host netip.Addr, id uint32, said heard) {
	if !host.IsValid() || !(*src.all.vips.Load())[host] {
		src.ignore(prefix)
		return
	}
	if src.own(said) {
		// It may stand where another host's path stood before.
		src.withdrawn(host, id)
		return
	}
	path := Sibling{
		VIP: host, Peer: src.peer, RouterID: said.router, NextHop: said.hop,
		Since: time.Now(), Draining: said.draining,
	}
	if !path.RouterID.IsValid() {
		path.RouterID = said.originator
	}
	if said.marked {
		fingerprint := said.fingerprint // else all of said would be on the heap, for each prefix
		path.Fingerprint = &fingerprint
	}
	src.all.mu.Lock()
	defer src.all.mu.Unlock()
	if !src.all.from[src] {
		return // the session is over
	}
	paths := src.paths[host]
	old, known := paths[id]
	switch {
	case known && old.RouterID == path.RouterID && old.NextHop == path.NextHop:
		path.Since = old.Since
	case !known && len(paths) >= maxPaths:
		src.ignored.Add(1)
		return
	}
	if paths == nil {
		paths = map[uint32]Sibling{}
		src.paths[host] = paths
	}
	paths[id] = path
	if !known {
		src.count++
	}
	if !known || !sameValue(old.Fingerprint, path.Fingerprint) || old.Since != path.Since || old.Draining != path.Draining {
		src.all.tell()
	}
}

// withdrawn implements reader.
func (src *source) withdrawn(host netip.Addr, id uint32) {
	if !(*src.all.vips.Load())[host] {
		return
	}
	src.all.mu.Lock()
	defer src.all.mu.Unlock()
	if _, known := src.paths[host][id]; !known {
		return
	}
	delete(src.paths[host], id)
	src.count--
	if len(src.paths[host]) == 0 {
		delete(src.paths, host)
	}
	src.all.tell()
}

// own tells a path of ours that comes back from that of another host.
func (src *source) own(said heard) bool {
	switch {
	case said.router.IsValid():
		return said.router == src.all.router
	case said.originator.IsValid():
		return said.originator == src.all.router
	}
	return said.hop == src.local || (*src.all.hops.Load())[said.hop]
}

// ignore counts a prefix that is no VIP of ours.
func (src *source) ignore(prefix []byte) {
	src.ignored.Add(1)
	limit := src.limit.Load()
	if limit == 0 || src.over.Load() || !src.others.add(prefix) || src.others.count() <= float64(limit) {
		return
	}
	src.over.Store(true)
	src.log.Warn("bgp peer announces more prefixes than the limit", "limit", limit,
		"reason", "nothing but the VIPs is kept, so this costs no memory; the router should announce nothing else to this host")
}

func familyBit(a netip.Addr) Families {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// familyBits are the families of GoBGP's as ours.
func familyBits(all ...bgp.Family) (f Families) {
	for _, one := range all {
		switch one {
		case bgp.RF_IPv4_UC:
			f |= IPv4
		case bgp.RF_IPv6_UC:
			f |= IPv6
		}
	}
	return f
}

// Siblings are the paths of other hosts to the VIPs that were last watched, one
// for each peer that tells of it, sorted by VIP and router ID. Which peers would
// tell is in PeerStatus.Received.
func (s *Speaker) Siblings() []Sibling { return s.siblings.list() }

// Watch sets the VIPs whose siblings are of interest, announced here or not.
// Peers tell of a new one at once where they know ROUTE-REFRESH (RFC 2918), and
// when it next changes where they do not.
func (s *Speaker) Watch(vips []netip.Addr) {
	fresh := s.siblings.watch(vips)
	if fresh == 0 {
		return
	}
	s.sessionsMu.RLock()
	defer s.sessionsMu.RUnlock()
	for _, session := range s.sessions {
		session.refresh(fresh)
	}
}
