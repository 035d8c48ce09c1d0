package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Set makes the announced set equal to the routes given: what is missing is
// announced, what is not among them is withdrawn, and what has other attributes
// is announced anew, which replaces it at the peer without a withdrawal (RFC
// 4271 section 3.1). It compares with what the speaker's table lists.
//
// An IPv6 route needs a next hop that IPv4 peers can use. Where this host has
// none, and nobody has set one, its IPv6 routes are not announced, or
// withdrawn, and the error says so; the others go out. An address that goes or
// comes is noticed within nextHopAge.
func (s *Speaker) Set(routes []Route) error {
	canonical, err := canonicalRoutes(routes)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("announcing BGP routes: %w", errClosed)
	}
	if !slices.EqualFunc(canonical, s.routes, Route.equal) {
		s.hops.stale()
	}
	s.routes = canonical
	return s.announce()
}

// canonicalRoutes copies the routes into the form that the table lists them in.
func canonicalRoutes(routes []Route) ([]Route, error) {
	seen := make(map[netip.Prefix]bool, len(routes))
	out := make([]Route, 0, len(routes))
	for _, r := range routes {
		if !r.Prefix.IsValid() || r.Prefix != r.Prefix.Masked() || r.Prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("announcing BGP route %s: not a prefix", r.Prefix)
		}
		if seen[r.Prefix] {
			return nil, fmt.Errorf("announcing BGP route %s: given twice", r.Prefix)
		}
		seen[r.Prefix] = true
		if err := r.validate(); err != nil {
			return nil, fmt.Errorf("announcing BGP route %s: %w", r.Prefix, err)
		}
		out = append(out, r.canonical())
	}
	return out, nil
}

// announce brings the table to s.routes, with next hops for s.peers.
func (s *Speaker) announce() error {
	have, err := s.listed()
	if err != nil {
		return err
	}
	want, faults := withNextHops(s.routes, s.hops.lookUp(s.peers, s.routes))
	hops := make(map[netip.Addr]bool)
	for i := range want {
		want[i].tags = s.options.tags(want[i].Fingerprint)
		hops[want[i].hop] = true
	}
	s.siblings.hops.Store(&hops)
	add, remove := diff(have, want)
	return errors.Join(faults, s.withdraw(remove), s.add(add))
}

// withNextHops completes the routes with next hops, and leaves out those for
// which there is none.
func withNextHops(routes []Route, hops nextHops) ([]announcement, error) {
	want := make([]announcement, 0, len(routes))
	var missing int
	for _, r := range routes {
		hop := r.nextHop(r.Prefix.Addr())
		if !hop.IsValid() {
			hop = hops.of(r.Prefix.Addr())
		}
		if !hop.IsValid() {
			missing++
			continue
		}
		want = append(want, announcement{Route: r, hop: hop})
	}
	if missing > 0 {
		return want, fmt.Errorf("announcing %d IPv6 routes: no global IPv6 address on the interface towards %s to be their next hop",
			missing, hops.foreign)
	}
	return want, nil
}

// diff tells what to add to, or replace in, a table that has the one and
// should have the other, and what to remove from it. Both are sorted.
func diff(have, want []announcement) (add, remove []announcement) {
	present := make(map[netip.Prefix]announcement, len(have))
	for _, a := range have {
		present[a.Prefix] = a
	}
	for _, a := range want {
		if old, ok := present[a.Prefix]; !ok || !old.equal(a) {
			add = append(add, a)
		}
		delete(present, a.Prefix)
	}
	for _, a := range present {
		remove = append(remove, a)
	}
	sortAnnouncements(add)
	sortAnnouncements(remove)
	return add, remove
}

func sortAnnouncements(all []announcement) {
	slices.SortFunc(all, func(a, b announcement) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
}

// add puts routes into the table, in place of those with the same prefix.
func (s *Speaker) add(routes []announcement) error {
	if len(routes) == 0 {
		return nil
	}
	defer s.table.stale()
	paths := make([]*apiutil.Path, 0, len(routes))
	for _, a := range routes {
		path, err := a.path()
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	if _, err := s.server.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
		return fmt.Errorf("announcing %d BGP routes: %w", len(routes), err)
	}
	return nil
}

// withdraw takes routes out of the table.
func (s *Speaker) withdraw(routes []announcement) error {
	if len(routes) == 0 {
		return nil
	}
	defer s.table.stale()
	paths := make([]*apiutil.Path, 0, len(routes))
	for _, a := range routes {
		path, err := a.path()
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	if err := s.server.DeletePath(apiutil.DeletePathRequest{Paths: paths}); err != nil {
		return fmt.Errorf("withdrawing %d BGP routes: %w", len(routes), err)
	}
	return nil
}

// Routes lists what is announced now, sorted by prefix, as the speaker's table
// has it.
func (s *Speaker) Routes() ([]Route, error) {
	all, err := s.listed()
	if err != nil {
		return nil, err
	}
	routes := make([]Route, 0, len(all))
	for _, a := range all {
		routes = append(routes, a.Route)
	}
	return routes, nil
}

// tableAge bounds how long a listing of the table counts that nobody has
// changed since. The table is GoBGP's and in this process, with nobody else to
// write into it; to list it takes a millisecond and 10,000 allocations even
// where it is empty, and the routes are set every second.
const tableAge = 10 * time.Second

// listing remembers what the table holds.
type listing struct {
	mu    sync.Mutex
	all   []announcement
	until time.Time
}

// stale has the next listing be a new one.
func (l *listing) stale() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = time.Time{}
}

// listed lists the table, sorted. The caller does not change the list.
func (s *Speaker) listed() ([]announcement, error) {
	l := &s.table
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().Before(l.until) {
		return l.all, nil
	}
	var all []announcement
	var errs []error
	for _, f := range families {
		err := s.server.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f},
			func(nlri bgp.NLRI, paths []*apiutil.Path) {
				for _, p := range paths {
					a, err := announcementOf(nlri, p)
					if err != nil {
						errs = append(errs, err)
						continue
					}
					all = append(all, a)
				}
			})
		if err != nil {
			return nil, fmt.Errorf("listing the BGP table: %w", err)
		}
	}
	sortAnnouncements(all)
	if errs == nil {
		l.all, l.until = all, time.Now().Add(tableAge)
	}
	return all, errors.Join(errs...)
}
