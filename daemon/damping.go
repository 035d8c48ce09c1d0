package daemon

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lb4d/control"
	"lb4d/plan"
)

// savedFlaps are a VIP's failures in the state file.
type savedFlaps struct {
	VIP   netip.Addr `json:"vip"`
	Count int        `json:"count"`
	Last  time.Time  `json:"last"`
}

func savedOf(flaps map[netip.Addr]plan.Flaps) []savedFlaps {
	var out []savedFlaps
	for vip, f := range flaps {
		out = append(out, savedFlaps{vip, f.Count, f.Last.UTC()})
	}
	slices.SortFunc(out, func(a, b savedFlaps) int { return a.VIP.Compare(b.VIP) })
	return out
}

// restoredFlaps is savedOf read back. A failure that is yet to come is one of a
// clock that was wrong, and could hold a VIP back for ever.
func restoredFlaps(list []savedFlaps, now time.Time) map[netip.Addr]plan.Flaps {
	flaps := map[netip.Addr]plan.Flaps{}
	for _, s := range list {
		if s.Count > 0 && !s.Last.After(now) {
			flaps[s.VIP] = plan.Flaps{Count: s.Count, Last: s.Last}
		}
	}
	return flaps
}

// Reset forgets the failures of a VIP, or of all, and returns when a pass has
// announced what was held back for them alone. It may be called from any
// goroutine.
func (d *Daemon) Reset(ctx context.Context, r control.ResetRequest) (*control.ResetAnswer, error) {
	return ask(ctx, d, func() (func() *control.ResetAnswer, error) { return d.reset(r) })
}

func (d *Daemon) reset(r control.ResetRequest) (func() *control.ResetAnswer, error) {
	configured := vipsOf(d.cfg)
	var wanted []netip.Addr
	switch vip, err := netip.ParseAddr(r.VIP); {
	case r.VIP == "":
		wanted = slices.SortedFunc(maps.Keys(configured), netip.Addr.Compare)
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "%.80q is no address of a VIP", r.VIP)
	case !configured[vip]:
		return nil, refuse(http.StatusNotFound, "%s is no VIP of this host: see lbctl status", vip)
	default:
		wanted = []netip.Addr{vip}
	}
	flaps := maps.Clone(d.memory.flaps)
	var forgotten []string
	for _, vip := range wanted {
		if flaps[vip].Count > 0 {
			forgotten = append(forgotten, vip.String())
			delete(flaps, vip)
		}
	}
	if len(forgotten) > 0 {
		d.memory.flaps, d.memory.unsaved = flaps, true
		d.log.Info("failures forgotten by the operator", "vips", few(forgotten))
	}
	return func() *control.ResetAnswer {
		a := &control.ResetAnswer{Host: d.shown.Host, Reset: len(forgotten), Errors: d.shown.Errors}
		for _, v := range d.shown.VIPs {
			if slices.Contains(forgotten, v.Address) || strings.EqualFold(v.Address, r.VIP) {
				a.VIPs = append(a.VIPs, v)
			}
		}
		return a
	}, nil
}
