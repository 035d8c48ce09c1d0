package lab

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Routes are the service addresses that a router's kernel has a route to, each
// with its next hops in ascending order.
type Routes map[netip.Addr][]netip.Addr

// Through tells whether any service address is reached by a.
func (r Routes) Through(a netip.Addr) bool {
	for _, hops := range r {
		if slices.Contains(hops, a) {
			return true
		}
	}
	return false
}

// String is one service address a line.
func (r Routes) String() string {
	var b strings.Builder
	for _, v := range slices.SortedFunc(maps.Keys(r), netip.Addr.Compare) {
		fmt.Fprintf(&b, "%v via", v)
		for _, hop := range r[v] {
			fmt.Fprintf(&b, " %v", hop)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// tableMain is where BIRD puts its routes.
const tableMain = unix.RT_TABLE_MAIN

// listRoutes reads a router's routes to the service addresses from its kernel.
func listRoutes(h *netlink.Handle, vips map[netip.Addr]bool) (Routes, error) {
	filter := &netlink.Route{Table: tableMain, Protocol: unix.RTPROT_BIRD}
	all, err := h.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	routes := make(Routes)
	for _, r := range all {
		if r.Dst == nil {
			continue
		}
		dst, ok := netip.AddrFromSlice(r.Dst.IP)
		dst = dst.Unmap()
		ones, _ := r.Dst.Mask.Size()
		if !ok || !vips[dst] || ones != dst.BitLen() {
			continue
		}
		if gw, ok := netip.AddrFromSlice(r.Gw); ok {
			routes[dst] = append(routes[dst], gw.Unmap())
		}
		for _, hop := range r.MultiPath {
			if gw, ok := netip.AddrFromSlice(hop.Gw); ok {
				routes[dst] = append(routes[dst], gw.Unmap())
			}
		}
	}
	for _, hops := range routes {
		slices.SortFunc(hops, netip.Addr.Compare)
	}
	return routes, nil
}

// routeWatch follows the routes of all routers by the kernel's own
// notifications, so that the time of a change is known to the millisecond
// without asking all the time.
type routeWatch struct {
	mu      sync.Mutex
	now     map[string]Routes // by router
	changed time.Time
	// wake is closed and replaced at each change.
	wake chan struct{}
	stop chan struct{}
}

// watchRoutes follows the routers' routes until close.
func watchRoutes(w *wiring, t *Topology) (*routeWatch, error) {
	vips := t.vipSet()
	rw := &routeWatch{now: make(map[string]Routes), wake: make(chan struct{}), stop: make(chan struct{})}
	for _, h := range t.ByRole(RoleRouter) {
		// A router without routes is one that a condition must look at.
		rw.now[h.Name] = Routes{}
		p := w.places[h.Name]
		ns := netns.NsHandle(p.netns.Fd())
		updates := make(chan netlink.RouteUpdate, 1024)
		err := netlink.RouteSubscribeWithOptions(updates, rw.stop, netlink.RouteSubscribeOptions{
			Namespace:         &ns,
			ReceiveBufferSize: 1 << 20,
			// An overrun loses nothing: what follows is read anew.
			ErrorCallback: func(error) {},
		})
		if err != nil {
			rw.close()
			return nil, fmt.Errorf("watching the routes of %s: %w", h.Name, err)
		}
		if err := rw.read(h.Name, p.rtnl, vips); err != nil {
			rw.close()
			return nil, err
		}
		go func() {
			for range updates {
				// One reading serves for all that has happened before it.
				for len(updates) > 0 {
					<-updates
				}
				_ = rw.read(h.Name, p.rtnl, vips)
			}
		}()
	}
	return rw, nil
}

func (rw *routeWatch) read(router string, h *netlink.Handle, vips map[netip.Addr]bool) error {
	routes, err := listRoutes(h, vips)
	at := time.Now()
	if err != nil {
		return fmt.Errorf("%s: %w", router, err)
	}
	rw.mu.Lock()
	defer rw.mu.Unlock()
	if maps.EqualFunc(rw.now[router], routes, slices.Equal) {
		return nil
	}
	rw.now[router], rw.changed = routes, at
	close(rw.wake)
	rw.wake = make(chan struct{})
	return nil
}

// wait returns when cond holds for every router at once, and the time of the
// change that made it so; where it holds at the start, that is the last
// change's.
func (rw *routeWatch) wait(ctx context.Context, cond func(Routes) bool) (time.Time, error) {
	for {
		rw.mu.Lock()
		holds := true
		for _, routes := range rw.now {
			holds = holds && cond(routes)
		}
		changed, wake := rw.changed, rw.wake
		rw.mu.Unlock()
		if holds {
			return changed, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("waiting for the routers: %w", ctx.Err())
		}
	}
}

func (rw *routeWatch) routes(router string) (Routes, bool) {
	rw.mu.Lock()
	defer rw.mu.Unlock()
	routes, ok := rw.now[router]
	return routes, ok
}

func (rw *routeWatch) close() { close(rw.stop) }
