package daemon

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"

	"lb4d/config"
	"lb4d/l4"
	"lb4d/plan"
)

// view is what a pass has left: all that a question about the present is
// answered from. It is never changed, so that questions are answered beside
// the loop and cannot hold it up.
type view struct {
	host     string
	cfg      *config.Config
	obs      plan.Observations // as the next pass will find it
	decision plan.Decision
	vips     []plan.VIP
	listed   l4.Table // all that the kernel has on VIPs of ours
	settled  bool
	unread   bool
}

// keep has questions answered from what the pass has left.
func (d *Daemon) keep(decision plan.Decision, vips []plan.VIP, listed l4.Table, obs plan.Observations, announced map[netip.Addr]bool) {
	// The memory goes on changing these.
	obs.LastAnnounced, obs.LeavingSince = maps.Clone(obs.LastAnnounced), maps.Clone(obs.LeavingSince)
	view := &view{
		host: d.shown.Host, cfg: d.cfg, decision: decision,
		vips: slices.Clone(vips), listed: d.ours(listed),
		settled: d.settled, unread: !d.unreadSince.IsZero(),
	}
	// As the next pass will find it.
	obs.Listed, obs.Announced = view.listed, maps.Clone(announced)
	obs.Forwarding, obs.Flaps = decision.Forwarding, decision.Flaps
	view.obs = obs
	d.seen.Store(view)
}

// view is what the last pass has left, or why nothing can be told from that.
func (d *Daemon) view() (*view, error) {
	v := d.seen.Load()
	switch {
	case v == nil || !v.settled:
		return nil, refuse(http.StatusServiceUnavailable, "lb4d is starting and knows too little yet: try again in a moment")
	case v.unread:
		return nil, refuse(http.StatusServiceUnavailable, "the kernel's table cannot be read: see lbctl status")
	}
	return v, nil
}
