package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"lb4d/control"
	"lb4d/health"
	"lb4d/l4"
	"lb4d/plan"
)

// reporter tells of changes once: it keeps what was told last.
type reporter struct {
	issued   map[string]map[string]bool // operations of the last pass, by kind
	vips     map[netip.Addr]toldVIP
	services map[string]toldService
	errors   []string
	strays   []string // maintenance files of services that there are not
	summary  string
	quotas   map[string]*quota // of the kinds of lines that others cause
}

type toldVIP struct {
	state  plan.VIPState
	reason string
	since  time.Time
	// waiting: it has never been announced, and its members have not failed.
	waiting bool
}

type toldService struct {
	forwarding bool
	since      time.Time
}

// maxNamed bounds how many VIPs, operations or errors a log line names.
const maxNamed = 8

// few names the first of many.
func few(all []string) string {
	if len(all) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:maxNamed], " "), len(all)-maxNamed)
	}
	return strings.Join(all, " ")
}

// tell logs the operations of one kind that a pass issues to the kernel, on one
// line. Those that the pass before issued as well, because they fail or because
// another program takes them back, are told once; why they fail is told by
// tellErrors.
//
// Where another program has changed what the pass before had left, that is said
// along with what puts it right, as a warning; where it never ends, now and then.
func (r *reporter) tell(log *slog.Logger, what string, foreign bool, ops []string) {
	fresh := r.fresh(what, ops)
	if len(fresh) == 0 {
		return
	}
	say, msg := log.Info, what
	var words []any
	if foreign {
		quota := r.quota(what)
		untold, ok := quota.take(time.Now())
		if !ok {
			return
		}
		say, msg, words = log.Warn, what+" changed by another program, put right", quota.words(untold)
	}
	if len(fresh) == 1 {
		say(msg+": "+fresh[0], words...)
		return
	}
	say(msg+": "+counted(fresh), append([]any{"first", fresh[0]}, words...)...)
}

// fresh are the operations that the pass before did not issue.
func (r *reporter) fresh(what string, ops []string) []string {
	var fresh []string
	now := make(map[string]bool, len(ops))
	for _, op := range ops {
		now[op] = true
		if !r.issued[what][op] {
			fresh = append(fresh, op)
		}
	}
	if r.issued == nil {
		r.issued = map[string]map[string]bool{}
	}
	r.issued[what] = now
	return fresh
}

// counted sums operations up by what they do, which their first two words say:
// "8 add service, 32 add destination".
func counted(ops []string) string {
	var order, parts []string
	n := map[string]int{}
	for _, op := range ops {
		words := strings.SplitN(op, " ", 3)
		kind := strings.Join(words[:min(2, len(words))], " ")
		if n[kind]++; n[kind] == 1 {
			order = append(order, kind)
		}
	}
	for _, kind := range order {
		parts = append(parts, fmt.Sprintf("%d %s", n[kind], kind))
	}
	return strings.Join(parts, ", ")
}

// sentences are the operations in words.
func sentences[T fmt.Stringer](ops []T) []string {
	out := make([]string, 0, len(ops))
	for _, op := range ops {
		out = append(out, op.String())
	}
	return out
}

// tellVIPs logs the VIPs whose state changed, those with one new state and one
// reason on one line.
func (r *reporter) tellVIPs(log *slog.Logger, now time.Time, vips []plan.VIP) {
	type group struct {
		state  plan.VIPState
		reason string
		first  bool // there was nothing to withdraw
		// failing: nobody has asked for it, so it is a warning.
		failing bool
	}
	groups := map[group][]string{}
	var order []group
	add := func(g group, vip netip.Addr) {
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], vip.String())
	}
	told := make(map[netip.Addr]toldVIP, len(vips))
	for _, v := range vips {
		last, known := r.vips[v.Addr]
		if known && last.state == v.State {
			// A changed reason alone is a changed state of maintenance or
			// members; those are logged where they happen.
			failing := v.Failing != plan.NotFailing
			told[v.Addr] = toldVIP{v.State, v.Reason, last.since, last.waiting && !failing}
			if !last.waiting || !failing {
				continue
			}
			// That the first answers were awaited would else be the last word.
			add(group{v.State, v.Reason, true, true}, v.Addr)
			continue
		}
		told[v.Addr] = toldVIP{v.State, v.Reason, now, !known && v.State == plan.Withdrawn && v.Failing == plan.NotFailing}
		first := !known && v.State == plan.Withdrawn
		g := group{v.State, v.Reason, first, !first && v.State == plan.Withdrawn && v.Failing != plan.NotFailing}
		add(g, v.Addr)
	}
	for _, g := range order {
		msg, level := "vip "+g.state.String(), slog.LevelInfo
		if g.first {
			msg = "vip not announced yet"
		}
		if g.failing {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, msg, "vips", few(groups[g]), "reason", g.reason)
	}
	var gone []string
	for addr := range r.vips {
		if _, ok := told[addr]; !ok {
			gone = append(gone, addr.String())
		}
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		log.Info("vip removed", "vips", few(gone), "reason", "no longer in the configuration")
	}
	r.vips = told
}

func (r *reporter) tellServices(log *slog.Logger, now time.Time, services []plan.Service) {
	told := make(map[string]toldService, len(services))
	for _, s := range services {
		last, known := r.services[s.Config.Name]
		if known && last.forwarding == s.Forwarding {
			told[s.Config.Name] = last
			continue
		}
		told[s.Config.Name] = toldService{s.Forwarding, now}
		if s.Forwarding {
			log.Info("service forwarding", "service", s.Config.Name, "reason", s.Reason)
		} else if known {
			log.Warn("service not forwarding", "service", s.Config.Name, "reason", s.Reason)
		}
	}
	r.services = told
}

// tellErrors logs the errors that the pass before did not have.
func (r *reporter) tellErrors(log *slog.Logger, errs []string) {
	for i, e := range errs {
		if !slices.Contains(r.errors, e) && i < maxNamed {
			log.Error("pass incomplete, to be tried again", "err", e)
		}
	}
	if len(errs) == 0 && len(r.errors) > 0 {
		log.Info("pass complete again")
	}
	r.errors = errs
}

// tally counts the routes that came and went since the pass before.
func (d *Daemon) tally(announced map[netip.Addr]bool) {
	for vip := range announced {
		if !d.memory.announced[vip] {
			d.counters.Announcements++
		}
	}
	for vip := range d.memory.announced {
		if !announced[vip] {
			d.counters.Withdrawals++
		}
	}
}

// publish logs what changed and shows the state that the pass has left.
func (d *Daemon) publish(decision plan.Decision, vips []plan.VIP, listed l4.Table, obs plan.Observations, errs []error) {
	now := obs.Now
	texts := make([]string, 0, len(errs))
	for _, err := range errs {
		// One fault may be met twice in a pass.
		if text := oneLine(err); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	d.report.tellServices(d.log, now, decision.Services)
	d.report.tellVIPs(d.log, now, vips)
	d.report.tellErrors(d.log, texts)

	st := &control.Status{
		Version: d.opts.Version, PID: os.Getpid(),
		Started: d.started, Updated: now,
		State:    "running",
		Config:   d.cfgFile,
		Errors:   texts,
		Counters: d.counters,
	}
	st.Maintenance = showMaintenance(obs.Maintenance, plan.Strays(d.cfg, obs.Maintenance))
	d.report.tellStrays(d.log, st.Maintenance.Services)
	st.Host, _ = os.Hostname()
	switch {
	case !d.stopping.IsZero():
		st.State = "stopping"
	case !d.settled:
		st.State = "starting"
	}
	st.LastDrain = d.drained
	counted := received(listed)
	d.tellAgreement(now, vips, obs.Others)
	for _, v := range vips {
		told := d.report.vips[v.Addr]
		st.VIPs = append(st.VIPs, control.VIP{
			Address: v.Addr.String(), Announced: v.State != plan.Withdrawn, State: v.State.String(),
			Reason: v.Reason, Since: told.since, Services: v.Services,
			Attributes: v.Attributes.String(),
			Failures:   v.Failures, HeldUntil: v.HeldUntil,
			Flows: counted[v.Addr].Flows, Packets: counted[v.Addr].Packets,
			Drain:   showProgress(d.meter.Progress(v.Addr)),
			Failing: v.Failing.String(),
		})
		d.showSiblings(&st.VIPs[len(st.VIPs)-1], v.Addr, obs.Others[v.Addr])
	}
	tables := d.maglevs(listed)
	for _, s := range decision.Services {
		st.Services = append(st.Services, d.showService(s, tables))
	}
	loads := loads(listed, plan.Pools(d.cfg))
	for _, m := range decision.Members {
		undrained := d.memory.undrained[plan.MemberName{Pool: m.Pool, Member: m.Member}]
		st.Members = append(st.Members, showMember(m, loads[destination{m.Pool, m.Addr, m.IPv6()}], undrained))
	}
	for _, p := range d.peers.Peers() {
		st.Peers = append(st.Peers, control.Peer{
			Name: p.Name, Address: p.Address.String(), AS: p.AS, State: p.State, Since: p.Since,
			Advertised: p.Advertised, Attributes: p.Attributes.String(),
			GracefulRestartAsked: int(p.GracefulRestartAsked / time.Second), GracefulRestart: int(p.GracefulRestart / time.Second),
			Received: showReceived(p.Received), LastError: p.LastError,
		})
	}
	showWays(st.Peers, d.detect.Peers())
	st.Summary = summary(st, decision.Waiting)
	if st.Summary != d.report.summary {
		d.report.summary = st.Summary
		d.opts.Notify("STATUS=" + st.Summary)
	}
	d.shown = st
	d.show(st)
}

func (d *Daemon) showService(s plan.Service, tables map[l4.Key]control.Table) control.Service {
	out := control.Service{
		Name: s.Config.Name, Forwarding: s.Forwarding, Reason: s.Reason,
		Since: d.report.services[s.Config.Name].since,
		Pool:  s.Config.Pool, Up: s.Up, Quorum: s.Quorum, QuorumRestore: s.Restore, Members: s.Members,
	}
	for _, vip := range s.Config.VIPs {
		out.VIPs = append(out.VIPs, vip.String())
	}
	for _, p := range s.Config.Ports {
		out.Ports = append(out.Ports, fmt.Sprintf("%d/%s", p.Number, p.Protocol))
	}
	for _, key := range plan.Keys(s.Config) {
		if t, ok := tables[key]; ok {
			out.Tables = append(out.Tables, t)
		}
	}
	return out
}

// destination is an address in one pool that takes packets of VIPs of one
// family. A host may be in several pools.
type destination struct {
	pool string
	addr netip.Addr
	vip6 bool
}

// load is what the kernel has for a destination over all services of its pool.
type load struct {
	weight           int
	active, inactive int
}

func loads(listed l4.Table, pools map[l4.Key]string) map[destination]load {
	out := map[destination]load{}
	for _, s := range listed {
		pool, ours := pools[s.Key]
		if !ours {
			continue
		}
		for _, d := range s.Destinations {
			at := destination{pool, d.Addr, s.VIP.Is6()}
			l := out[at]
			l.weight = max(l.weight, d.Weight)
			l.active += d.ActiveConns
			l.inactive += d.InactiveConns
			out[at] = l
		}
	}
	return out
}

func vipFamily(ipv6 bool) string {
	if ipv6 {
		return "ipv6"
	}
	return "ipv4"
}

// showMember shows a member whose last drain ended at the time undrained.
func showMember(m plan.Member, l load, undrained time.Time) control.Member {
	since := m.Status.Since
	switch {
	case m.Drain != nil && m.State == health.Draining:
		since = m.Drain.Since
	case undrained.After(since):
		since = undrained
	}
	out := control.Member{
		Pool: m.Pool, Name: m.Member, Address: m.Addr.String(), VIPFamily: vipFamily(m.IPv6()),
		State: m.State.String(), Reason: m.Reason, Since: since, Drained: showDrain(m.Drain),
		Weight: l.weight, ConfiguredWeight: m.ConfiguredWeight,
		LastAnswer: m.Status.LastAnswer, LastCheck: m.Status.LastCheck,
		LatencyMicros: m.Status.Latency.Microseconds(),
		Checks:        m.Status.ChecksTotal, ChecksFailed: m.Status.FailedTotal,
		ActiveFlows: l.active, InactiveFlows: l.inactive,
		Warning: m.Warning,
	}
	if m.VIP.IsValid() {
		out.CheckedVIP = m.VIP.String()
		out.FullSize, out.FullSizeAnswer = m.Status.MTU.String(), m.Status.MTUAnswer
	}
	return out
}
