package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"lb4d/bgp"
	"lb4d/config"
	"lb4d/control"
	"lb4d/health"
	"lb4d/l4"
	"lb4d/plan"
)

// maxOperations bounds how many operations a plan lists.
const maxOperations = 200

// Plan tells what a reload would change if the configuration file were the one
// of the request, and changes nothing. It may be called from any goroutine.
func (d *Daemon) Plan(ctx context.Context, r control.PlanRequest) (*control.PlanAnswer, error) {
	d.planning.Lock()
	defer d.planning.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err // the one who asked has waited for the others in vain
	}
	if len(r.Config) > control.MaxConfig {
		return nil, refuse(http.StatusRequestEntityTooLarge, "the configuration has %d bytes: the most is %d", len(r.Config), control.MaxConfig)
	}
	v, err := d.view()
	if err != nil {
		return nil, err
	}
	cfg, err := config.Parse(cmp.Or(r.Name, "configuration"), []byte(r.Config))
	if err != nil {
		return &control.PlanAnswer{
			Host: v.host, Refused: true, Faults: strings.Split(err.Error(), "\n"),
			Services: []control.ServiceChange{},
		}, nil
	}
	return v.preview(ctx, cfg)
}

// preview compares what is with what would be under another configuration.
func (v *view) preview(ctx context.Context, cfg *config.Config) (*control.PlanAnswer, error) {
	after := plan.Reload(cfg, v.obs)
	a := &control.PlanAnswer{
		Host:   v.host,
		Checks: checkChanges(plan.Targets(v.cfg), plan.Targets(cfg)),
		VIPs:   vipChanges(v.vips, after.VIPs),
		Peers:  append(peerChanges(peersOf(v.cfg), peersOf(cfg)), wayChanges(waysOf(v.cfg), waysOf(cfg))...),
	}
	if err := needsRestart(v.cfg, cfg); err != nil {
		a.Refused, a.Restart = true, strings.Split(err.Error(), "\n")
	}
	for _, s := range []struct{ key, old, new string }{
		{"http.listen", cmp.Or(v.cfg.HTTP.Listen, "off"), cmp.Or(cfg.HTTP.Listen, "off")},
		{"bgp.drain_time", v.cfg.BGP.DrainTime.String(), cfg.BGP.DrainTime.String()},
		{"bgp.drain_med", number(v.cfg.BGP.DrainMED), number(cfg.BGP.DrainMED)},
		{"bgp.drain_prepend", number(v.cfg.BGP.DrainPrepend), number(cfg.BGP.DrainPrepend)},
		{"bgp.siblings", strconv.FormatBool(v.cfg.BGP.Siblings), strconv.FormatBool(cfg.BGP.Siblings)},
		{"bgp.siblings_settle", v.cfg.BGP.SiblingsSettle.String(), cfg.BGP.SiblingsSettle.String()},
		{"damping", dampingWords(v.cfg.Damping), dampingWords(cfg.Damping)},
	} {
		if s.old != s.new {
			a.Settings = append(a.Settings, fmt.Sprintf("%s changes from %s to %s", s.key, s.old, s.new))
		}
	}
	ops := l4.Diff(v.listed, after.Table)
	for _, op := range ops[:min(len(ops), maxOperations)] {
		a.Operations = append(a.Operations, op.String())
	}
	a.MoreOperations = len(ops) - len(a.Operations)

	a.Services = []control.ServiceChange{}
	byKey := func(t l4.Table) map[l4.Key]l4.Service {
		services := make(map[l4.Key]l4.Service, len(t))
		for _, s := range t {
			services[s.Key] = s
		}
		return services
	}
	listed, wanted := byKey(v.listed), byKey(after.Table)
	for _, s := range after.Table {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if l, ok := listed[s.Key]; ok {
			a.Services = append(a.Services, moved(l, s))
		} else {
			a.Services = append(a.Services, control.ServiceChange{Service: s.Key.String(), Change: "added"})
		}
	}
	for _, s := range v.listed {
		if _, ok := wanted[s.Key]; !ok {
			a.Services = append(a.Services, control.ServiceChange{Service: s.Key.String(), Change: "removed"})
		}
	}
	return a, nil
}

// moved tells what share of the flows to a service goes elsewhere once it is
// as wanted.
func moved(listed, wanted l4.Service) control.ServiceChange {
	c := control.ServiceChange{Service: wanted.Key.String(), Change: "none", Moved: new(float64)}
	if len(l4.Diff(l4.Table{listed}, l4.Table{wanted})) == 0 {
		return c // and no table is filled for it
	}
	c.Change = "changed"
	before, err := l4.NewMaglev(listed)
	var after *l4.Maglev
	if err == nil {
		after, err = l4.NewMaglev(l4.Canonical(wanted))
	}
	if err != nil {
		c.Moved, c.Error = nil, oneLine(err)
		return c
	}
	*c.Moved = l4.Moved(before, after)
	return c
}

// vipChanges tells of the VIPs whose route changes: first those that go, then
// those that come, as a pass does it.
func vipChanges(old, new []plan.VIP) []control.Change {
	before := map[netip.Addr]plan.VIP{}
	for _, v := range old {
		before[v.Addr] = v
	}
	var gone, come []control.Change
	for _, v := range new {
		was, known := before[v.Addr]
		delete(before, v.Addr)
		c := control.Change{What: v.Addr.String(), Change: v.State.String(), Reason: v.Reason}
		switch {
		case !known || was.State != v.State:
			if v.State == plan.Announced {
				come = append(come, c)
			} else {
				gone = append(gone, c)
			}
		case v.State != plan.Withdrawn && !was.Attributes.Equal(v.Attributes):
			c.Change = "changed"
			c.Reason = fmt.Sprintf("attributes %s, were %s", none(v.Attributes.String()), none(was.Attributes.String()))
			come = append(come, c)
		}
	}
	for _, v := range old {
		if _, left := before[v.Addr]; !left {
			continue
		}
		change := plan.Withdrawn.String()
		if v.State == plan.Withdrawn {
			change = "removed" // it is withdrawn already
		}
		gone = append(gone, control.Change{What: v.Addr.String(), Change: change, Reason: "no longer in the configuration"})
	}
	return append(gone, come...)
}

// checkChanges tells of the addresses whose check begins, ends or changes.
func checkChanges(old, new map[health.Target]health.Check) []control.Change {
	var changes []control.Change
	note := func(t health.Target, change, reason string) {
		changes = append(changes, control.Change{What: fmt.Sprintf("%s of pool %s", t, t.Pool), Change: change, Reason: reason})
	}
	for target, check := range new {
		was, known := old[target]
		switch {
		case !known:
			note(target, "added", "")
		case !reflect.DeepEqual(was, check):
			note(target, "changed", newWay(was.Through, check.Through))
		}
	}
	for target := range old {
		if _, stays := new[target]; !stays {
			note(target, "removed", "")
		}
	}
	slices.SortFunc(changes, func(a, b control.Change) int { return cmp.Compare(a.What, b.What) })
	return changes
}

// newWay tells that a check goes another way: what the member then has to
// answer on.
func newWay(old, new *health.Through) string {
	words := func(t *health.Through) string {
		if t == nil {
			return "directly"
		}
		return "through the tunnel to " + t.VIP.String()
	}
	if words(old) == words(new) {
		return ""
	}
	return "it is made " + words(new) + ", was " + words(old)
}

// peerChanges tells of the sessions that begin, end or change. A peer is known
// by its address.
func peerChanges(old, new []bgp.Peer) []control.Change {
	before := map[netip.Addr]bgp.Peer{}
	for _, p := range old {
		before[p.Address] = p
	}
	var changes []control.Change
	note := func(p bgp.Peer, change, reason string) {
		changes = append(changes, control.Change{What: p.Name + " (" + p.Address.String() + ")", Change: change, Reason: reason})
	}
	stays := map[netip.Addr]bool{}
	for _, p := range new {
		stays[p.Address] = true
		was, known := before[p.Address]
		if !known {
			note(p, "added", "")
		} else if diff := peerDiff(was, p); diff != "" {
			note(p, "changed", diff)
		}
	}
	for _, p := range old {
		if !stays[p.Address] {
			note(p, "removed", "")
		}
	}
	return changes
}

// peerDiff is what differs between two states of a peer, in words. Of a
// password nothing is shown.
func peerDiff(old, new bgp.Peer) string {
	var words []string
	note := func(key string, old, new any) {
		if old != new {
			words = append(words, fmt.Sprintf("%s %v, was %v", key, new, old))
		}
	}
	note("name", old.Name, new.Name)
	note("as", old.AS, new.AS)
	note("port", old.Port, new.Port)
	note("hold_time", old.HoldTime, new.HoldTime)
	note("graceful_restart", old.GracefulRestart, new.GracefulRestart)
	note("multihop", old.Multihop, new.Multihop)
	note("ttl_security", old.TTLSecurity, new.TTLSecurity)
	note("source_address", address(old.Source), address(new.Source))
	note("passive", old.Passive, new.Passive)
	note("families", old.Families, new.Families)
	note("siblings", old.Siblings, new.Siblings)
	note("prefix_limit", old.PrefixLimit, new.PrefixLimit)
	if old.Password != new.Password {
		words = append(words, "another password")
	}
	if !old.Attributes.Equal(new.Attributes) {
		note("attributes", none(old.Attributes.String()), none(new.Attributes.String()))
	}
	if len(old.Restarts(new, netip.Addr{})) > 0 {
		words = append(words, "the session ends and begins anew")
	}
	return strings.Join(words, "; ")
}

// address is an address that need not be there.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return "none"
	}
	return a.String()
}

// number is a number that need not be there.
func number[T any](n *T) string {
	if n == nil {
		return "none"
	}
	return fmt.Sprint(*n)
}

func dampingWords(d config.Damping) string {
	return fmt.Sprintf("tolerate %d, hold_down %s to %s, forget_after %s", d.Tolerate, d.HoldDown, d.MaxHoldDown, d.ForgetAfter)
}

func none(s string) string { return cmp.Or(s, "none") }
