package tunnel

import (
	"fmt"
	"net/netip"
)

// maxRoutes bounds the routes whose advmss is kept. A host with more has its
// routes from BGP, where the routing daemon can set it (BIRD: krt_advmss).
const maxRoutes = 4096

// routeKey is what the kernel tells routes of the main table by.
type routeKey struct {
	Dst      netip.Prefix `json:"dst"`
	Priority int          `json:"priority,omitempty"`
	Tos      int          `json:"tos,omitempty"`
}

// String is "route to 0.0.0.0/0" or "route to 2001:db8::/32 metric 256".
func (k routeKey) String() string {
	if k.Priority == 0 {
		return "route to " + k.Dst.String()
	}
	return fmt.Sprintf("route to %s metric %d", k.Dst, k.Priority)
}

// routeMSS is one route as it is. TCP puts that MSS into an answer to a SYN that
// goes out by it (tcp_output.c, tcp_make_synack).
type routeMSS struct {
	key    routeKey
	advmss int // in bytes, 0 where the route has none of its own
	// derived is what holds where advmss is 0: it comes from the MTU.
	derived int
}

// notedMSS is a change that was made to a route.
type notedMSS struct {
	Route routeKey `json:"route"`
	Was   int      `json:"was"` // 0: it had none
	Set   int      `json:"set"`
}

// mssOp is one change to a route.
type mssOp struct {
	key     routeKey
	was, to int
}

// String is "set advmss of route to 0.0.0.0/0 to 1440 (was none)".
func (o mssOp) String() string {
	word := func(mss int) string {
		if mss == 0 {
			return "none"
		}
		return fmt.Sprint(mss)
	}
	return fmt.Sprintf("set advmss of %s to %s (was %s)", o.key, word(o.to), word(o.was))
}

// diffMSS returns the changes that keep every route from asking for segments
// larger than mss4 and mss6, and what is to be noted after them. A limit of 0 is
// none, and sets back what was changed. A route that somebody gave a smaller
// advmss keeps it; one that somebody changed since is theirs again.
func diffMSS(listed []routeMSS, before []notedMSS, mss4, mss6 int) (ops []mssOp, after []notedMSS) {
	byRoute := make(map[routeKey]notedMSS, len(before))
	for _, n := range before {
		byRoute[n.Route] = n
	}
	for _, r := range listed {
		own := r.advmss
		if n, ok := byRoute[r.key]; ok && r.advmss == n.Set {
			own = n.Was
		}
		limit := mss4
		if r.key.Dst.Addr().Is6() {
			limit = mss6
		}
		to, asks := own, own
		if own == 0 {
			asks = r.derived
		}
		if limit > 0 && asks > limit {
			to = limit
		}
		if to != r.advmss {
			ops = append(ops, mssOp{key: r.key, was: r.advmss, to: to})
		}
		if to != own {
			after = append(after, notedMSS{Route: r.key, Was: own, Set: to})
		}
	}
	return ops, after
}
