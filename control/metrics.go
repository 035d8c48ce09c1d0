package control

import (
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxLabel bounds a label's value in bytes. Reasons hold what a maintenance
// file says, and there is one reason for each VIP at any time.
const maxLabel = 256

// states that the one-hot metrics count through. A state that is none of them
// is added as it is, so that nothing hides.
var (
	daemonStates  = []string{"starting", "running", "stopping"}
	siblingStates = []string{"announced", "draining"}
	failingScopes = []string{"here", "everywhere", "unknown"}
	vipStates     = []string{"announced", "draining", "withdrawn"}
	memberStates  = []string{"unknown", "up", "draining", "down"}
)

// family is one metric: its description and whether it counts.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

var families []family // all of both daemons, for Describe

func gauge(name, help string, labels ...string) family {
	return newFamily(prometheus.GaugeValue, name, help, labels)
}

func counter(name, help string, labels ...string) family {
	return newFamily(prometheus.CounterValue, name, help, labels)
}

func newFamily(kind prometheus.ValueType, name, help string, labels []string) family {
	f := family{prometheus.NewDesc("lb4d_"+name, help, labels, nil), kind}
	families = append(families, f)
	return f
}

func lb7Gauge(name, help string, labels ...string) family {
	return newLB7Family(prometheus.GaugeValue, name, help, labels)
}

func lb7Counter(name, help string, labels ...string) family {
	return newLB7Family(prometheus.CounterValue, name, help, labels)
}

func newLB7Family(kind prometheus.ValueType, name, help string, labels []string) family {
	f := family{prometheus.NewDesc("lb7d_"+name, help, labels, nil), kind}
	families = append(families, f)
	return f
}

var (
	buildInfo  = gauge("build_info", "The version of lb4d that runs; always 1.", "version")
	stateNow   = gauge("state", "1 for the state that lb4d is in: starting until its first complete pass, running, or stopping.", "state")
	lastUpdate = gauge("last_update_timestamp_seconds", "When the latest pass over the configuration, the checks and the kernel ended. It grows old when lb4d is stuck.")
	lastErrors = gauge("last_pass_errors", "Operations that failed in the latest pass; they are tried again in the next.")
	lastPass   = gauge("last_pass_duration_seconds", "How long the latest pass took.")

	passes        = counter("passes_total", "Passes made.")
	passesFailed  = counter("passes_failed_total", "Passes in which an operation failed.")
	kernelWrites  = counter("kernel_writes_total", "IPVS, address and sysctl operations issued to the kernel. In steady state there are none.")
	announcements = counter("announcements_total", "VIPs announced over BGP.")
	withdrawals   = counter("withdrawals_total", "VIPs withdrawn over BGP.")

	reloads       = counter("config_reloads_total", "Reloads that put a new configuration in force.")
	reloadsFailed = counter("config_reloads_failed_total", "Reloads that were refused; the configuration before them stayed in force.")
	reloadOK      = gauge("config_last_reload_successful", "0 if the last reload was refused, 1 otherwise.")
	reloadTime    = gauge("config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded.")

	maintenancePresent = gauge("maintenance_file_present", "1 while the maintenance file exists, which withdraws every VIP.")
	maintenanceError   = gauge("maintenance_file_error", "1 while the maintenance file cannot be examined.")
	maintenanceChange  = gauge("maintenance_last_change_timestamp_seconds", "When the maintenance file was last seen to appear or disappear.")

	maintenanceUntil   = gauge("maintenance_until_timestamp_seconds", "When the maintenance file ceases to count; there only while it says so.")
	serviceMaintenance = gauge("service_maintenance_file_present", "1 while the maintenance file of the service exists, which withdraws its VIPs. A service that there is not has one too, if its file is there.", "service")

	vipAnnounced = gauge("vip_announced", "1 while the VIP is announced over BGP, draining included.", "vip")
	vipState     = gauge("vip_state", "1 for the state that the VIP is in: announced, draining (announced with GRACEFUL_SHUTDOWN) or withdrawn.", "vip", "state")
	vipReason    = gauge("vip_reason", "Why the VIP is in its state, in the words of the log and of lbctl; always 1, one reason at a time.", "vip", "reason")
	vipChange    = gauge("vip_last_change_timestamp_seconds", "When the VIP entered its state.", "vip")
	vipFailures  = gauge("vip_recent_failures", "How often the checks of the VIP have failed lately, as far as that is not forgotten yet.", "vip")
	vipHeld      = gauge("vip_held_until_timestamp_seconds", "When a VIP is announced again that is held down because its checks have failed too often; there only while it is.", "vip")
	vipFlows     = counter("vip_flows_total", "Flows to the VIP that IPVS has scheduled since it has the VIP's services.", "vip")
	vipPackets   = counter("vip_packets_total", "Packets to the VIP that IPVS has forwarded since it has the VIP's services.", "vip")
	vipDeadline  = gauge("vip_drain_deadline_timestamp_seconds", "When a VIP that drains is withdrawn at the latest; there only while it drains.", "vip")
	vipRate      = gauge("vip_drain_packets_per_second", "Packets that still come to a VIP that drains, or was withdrawn just now; there only then.", "vip")
	drainTook    = gauge("drain_last_duration_seconds", "How long the last drain of VIPs took, from the first GRACEFUL_SHUTDOWN to the last withdrawal.")
	drainLate    = gauge("drain_last_late_packets", "Packets that came after the withdrawals of the last drain, at most.")
	drainEnd     = gauge("drain_last_end_timestamp_seconds", "When the last drain of VIPs was over.")
	vipService   = gauge("vip_service_info", "Which services the VIP belongs to; always 1.", "vip", "service")

	vipSiblings = gauge("vip_siblings", "Other hosts that announce the VIP, by the state that they announce it in: announced or draining.", "vip", "state")
	vipKnown    = gauge("vip_siblings_known", "1 while a BGP peer tells of all hosts that announce the VIP; otherwise there may be more than lb4d_vip_siblings.", "vip")
	vipDiffer   = gauge("vip_tables_differ", "1 while another host has had other Maglev tables for the VIP than this one for longer than siblings_settle: flows that change their host change their member.", "vip")
	vipFailing  = gauge("vip_failing", "1 while the members keep the VIP from being announced, by how far that reaches: here (other hosts announce it), everywhere (none does) or unknown.", "vip", "where")

	serviceForwarding = gauge("service_forwarding", "1 while at least quorum members are up, so that the service may be announced.", "service")
	serviceUp         = gauge("service_members_up", "Members that are up, of the service's worst address family.", "service")
	serviceQuorum     = gauge("service_quorum_members", "Members that must be up for the service to be announced.", "service")
	serviceRestore    = gauge("service_quorum_restore_members", "Members that must be up before a service that has ceased to forward does so again.", "service")
	serviceMembers    = gauge("service_members", "Members in the service's pool.", "service")
	serviceChange     = gauge("service_last_change_timestamp_seconds", "When the service began or ceased to forward.", "service")
	servicePool       = gauge("service_pool_info", "Which pool the service sends to; always 1.", "service", "pool")
	serviceTable      = gauge("service_fingerprint_info", "The fingerprint of the Maglev table that the kernel has for a VIP and port; always 1. Hosts that differ send flows to different members.", "vip", "port", "protocol", "fingerprint")

	memberState    = gauge("member_state", "1 for the state that the member is in: unknown, up, draining or down.", "pool", "member", "address", "vip_family", "state")
	memberChange   = gauge("member_last_change_timestamp_seconds", "When the member entered its state.", "pool", "member", "address", "vip_family")
	memberDrained  = gauge("member_drained", "1 while an operator has the member drained, whatever its state.", "pool", "member", "address", "vip_family")
	memberWhy      = gauge("member_drain_reason", "What the operator gave as the reason of the drain; always 1, and there only while the drain lasts.", "pool", "member", "address", "vip_family", "reason")
	memberDrainAt  = gauge("member_drain_start_timestamp_seconds", "When the operator drained the member; there only while the drain lasts.", "pool", "member", "address", "vip_family")
	memberWeight   = gauge("member_weight", "The member's weight in the kernel; 0 takes no new flows.", "pool", "member", "address", "vip_family")
	memberWants    = gauge("member_configured_weight", "The member's weight in the configuration.", "pool", "member", "address", "vip_family")
	memberChecks   = counter("member_checks_total", "Checks of the member that were answered or timed out.", "pool", "member", "address", "vip_family")
	memberFailed   = counter("member_checks_failed_total", "Checks of the member that failed.", "pool", "member", "address", "vip_family")
	memberDuration = gauge("member_check_duration_seconds", "How long the member's last check took.", "pool", "member", "address", "vip_family")
	memberChecked  = gauge("member_last_check_timestamp_seconds", "When the member's last check ended.", "pool", "member", "address", "vip_family")
	memberFullSize = gauge("member_full_size_packets", "1 while full-size packets get through the tunnel to the member, 0 while they do not; not there while nobody knows, or where the check is direct.", "pool", "member", "address", "vip_family")
	memberActive   = gauge("member_active_flows", "IPVS connections to the member in an active state, over all services of the pool.", "pool", "member", "address", "vip_family")
	memberInactive = gauge("member_inactive_flows", "IPVS connections to the member in any other state, over all services of the pool.", "pool", "member", "address", "vip_family")

	peerUp        = gauge("peer_session_up", "1 while the BGP session with the peer is established.", "peer", "address")
	peerRoutes    = gauge("peer_advertised_routes", "Routes that the peer has from this host.", "peer", "address")
	peerKeeps     = gauge("peer_graceful_restart_seconds", "How long the peer has agreed to keep the routes of an lb4d that restarts; 0: it has not.", "peer", "address")
	peerChange    = gauge("peer_last_change_timestamp_seconds", "When the session entered its BGP state.", "peer", "address")
	peerPaths     = gauge("peer_sibling_paths", "Paths of other hosts to the VIPs that the peer tells of.", "peer", "address")
	peerIgnored   = counter("peer_ignored_prefixes_total", "Announcements of other prefixes in this session; nothing of them is kept.", "peer", "address")
	peerMalformed = counter("peer_malformed_updates_total", "UPDATE messages in this session that could not be read to their end.", "peer", "address")
	peerOver      = gauge("peer_prefix_limit_exceeded", "1 after the peer has announced more different prefixes in this session than prefix_limit.", "peer", "address")
	peerBFD       = gauge("peer_bfd_up", "1 while BFD finds the way to the peer whole; there only for peers with BFD.", "peer", "address")
	peerBFDFailed = counter("peer_bfd_failures_total", "How often BFD has found the way to the peer broken, which ends the BGP session.", "peer", "address")
	peerBFDFlaps  = gauge("peer_bfd_flapping", "1 after the way to the peer has broken three times within five minutes, until there are five without.", "peer", "address")
	peerInfo      = gauge("peer_info", "The peer's AS number; always 1.", "peer", "address", "as")
)

// collector turns the latest status into metrics at each scrape. So they
// never disagree with one another, nor with lbctl.
type collector struct {
	latest func() *snapshot
}

// metricsHandler serves the collector together with those of the Go runtime
// and of the process.
func (s *Server) metricsHandler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collector{s.latest.Load},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		// One bad metric must not hide the others on the night they are
		// needed; promhttp_metric_handler_errors_total tells of it.
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            reg,
		MaxRequestsInFlight: 4,
		Timeout:             writeTimeout / 2,
	})
}

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	c.latest().emit(emitter{ch})
}

// lb4 sends the metrics of lb4d.
func (e emitter) lb4(st *Status) {
	e.daemon(st)
	for i := range st.VIPs {
		e.vip(&st.VIPs[i])
	}
	for i := range st.Services {
		e.service(&st.Services[i])
	}
	for i := range st.Members {
		e.member(&st.Members[i])
	}
	for i := range st.Peers {
		e.peer(&st.Peers[i])
	}
}

type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) daemon(st *Status) {
	e.put(buildInfo, 1, st.Version)
	e.oneHot(stateNow, daemonStates, st.State)
	e.time(lastUpdate, st.Updated)
	e.put(lastErrors, float64(len(st.Errors)))

	c := st.Counters
	e.put(lastPass, seconds(c.LastPassMicros))
	e.put(passes, float64(c.Passes))
	e.put(passesFailed, float64(c.PassesFailed))
	e.put(kernelWrites, float64(c.KernelWrites))
	e.put(announcements, float64(c.Announcements))
	e.put(withdrawals, float64(c.Withdrawals))

	e.put(reloads, float64(c.Reloads))
	e.put(reloadsFailed, float64(c.ReloadsFailed))
	e.put(reloadOK, truth(st.Config.Error == ""))
	e.time(reloadTime, st.Config.Loaded)

	if r := st.LastDrain; r != nil {
		e.put(drainTook, r.Seconds)
		e.put(drainLate, float64(r.LatePackets))
		e.time(drainEnd, r.Ended)
	}
	e.put(maintenancePresent, truth(st.Maintenance.Present))
	e.put(maintenanceError, truth(st.Maintenance.Error != ""))
	e.time(maintenanceChange, st.Maintenance.Since)
	e.time(maintenanceUntil, st.Maintenance.Until)
	present := map[string]bool{}
	for _, s := range st.Services {
		present[s.Name] = false
	}
	for _, s := range st.Maintenance.Services {
		present[s.Service] = true
	}
	for name, is := range present {
		e.put(serviceMaintenance, truth(is), name)
	}
}

func (e emitter) vip(v *VIP) {
	e.put(vipAnnounced, truth(v.Announced), v.Address)
	e.oneHot(vipState, vipStates, v.State, v.Address)
	e.put(vipReason, 1, v.Address, v.Reason)
	e.time(vipChange, v.Since, v.Address)
	e.put(vipFlows, float64(v.Flows), v.Address)
	e.put(vipPackets, float64(v.Packets), v.Address)
	if v.Drain != nil {
		e.put(vipRate, v.Drain.PacketsPerSecond, v.Address)
		if v.Drain.Withdrawn.IsZero() {
			e.time(vipDeadline, v.Drain.Deadline, v.Address)
		}
	}
	e.put(vipFailures, float64(v.Failures), v.Address)
	e.time(vipHeld, v.HeldUntil, v.Address)
	for _, name := range v.Services {
		e.put(vipService, 1, v.Address, name)
	}
	for _, state := range siblingStates {
		n := 0
		for _, s := range v.Siblings {
			if s.State == state {
				n++
			}
		}
		e.put(vipSiblings, float64(n), v.Address, state)
	}
	e.put(vipKnown, truth(v.SiblingsKnown == "all"), v.Address)
	e.put(vipDiffer, truth(v.TablesDiffer), v.Address)
	for _, where := range failingScopes {
		e.put(vipFailing, truth(v.Failing == where), v.Address, where)
	}
}

func (e emitter) service(s *Service) {
	e.put(serviceForwarding, truth(s.Forwarding), s.Name)
	e.put(serviceUp, float64(s.Up), s.Name)
	e.put(serviceQuorum, float64(s.Quorum), s.Name)
	e.put(serviceRestore, float64(s.QuorumRestore), s.Name)
	e.put(serviceMembers, float64(s.Members), s.Name)
	e.time(serviceChange, s.Since, s.Name)
	e.put(servicePool, 1, s.Name, s.Pool)
	for _, t := range s.Tables {
		if t.Fingerprint != "" {
			e.put(serviceTable, 1, t.VIP, strconv.Itoa(int(t.Port)), t.Protocol, t.Fingerprint)
		}
	}
}

func (e emitter) member(m *Member) {
	who := []string{m.Pool, m.Name, m.Address, m.VIPFamily}
	e.oneHot(memberState, memberStates, m.State, who...)
	e.time(memberChange, m.Since, who...)
	e.put(memberDrained, truth(m.Drained != nil), who...)
	if m.Drained != nil {
		e.put(memberWhy, 1, append(who[:len(who):len(who)], m.Drained.Reason)...)
		e.time(memberDrainAt, m.Drained.Since, who...)
	}
	e.put(memberWeight, float64(m.Weight), who...)
	e.put(memberWants, float64(m.ConfiguredWeight), who...)
	e.put(memberChecks, float64(m.Checks), who...)
	e.put(memberFailed, float64(m.ChecksFailed), who...)
	e.put(memberActive, float64(m.ActiveFlows), who...)
	e.put(memberInactive, float64(m.InactiveFlows), who...)
	switch m.FullSize {
	case "ok", "failed":
		e.put(memberFullSize, truth(m.FullSize == "ok"), who...)
	}
	if !m.LastCheck.IsZero() {
		e.put(memberDuration, seconds(m.LatencyMicros), who...)
		e.time(memberChecked, m.LastCheck, who...)
	}
}

func (e emitter) peer(p *Peer) {
	e.put(peerUp, truth(p.State == "established"), p.Name, p.Address)
	e.put(peerRoutes, float64(p.Advertised), p.Name, p.Address)
	e.put(peerKeeps, float64(p.GracefulRestart), p.Name, p.Address)
	e.time(peerChange, p.Since, p.Name, p.Address)
	e.put(peerPaths, float64(p.Received.Paths), p.Name, p.Address)
	e.put(peerIgnored, float64(p.Received.Ignored), p.Name, p.Address)
	e.put(peerMalformed, float64(p.Received.Malformed), p.Name, p.Address)
	e.put(peerOver, truth(p.Received.OverLimit), p.Name, p.Address)
	if b := p.BFD; b != nil {
		e.put(peerBFD, truth(b.State == "up"), p.Name, p.Address)
		e.put(peerBFDFailed, float64(b.Failures), p.Name, p.Address)
		e.put(peerBFDFlaps, truth(b.Flapping), p.Name, p.Address)
	}
	e.put(peerInfo, 1, p.Name, p.Address, strconv.FormatUint(uint64(p.AS), 10))
}

// put sends one metric.
func (e emitter) put(f family, value float64, labels ...string) {
	clean := make([]string, len(labels))
	for i, l := range labels {
		clean[i] = label(l)
	}
	m, err := prometheus.NewConstMetric(f.desc, f.kind, value, clean...)
	if err != nil {
		m = prometheus.NewInvalidMetric(f.desc, err)
	}
	e.ch <- m
}

// oneHot sends a metric for each of states: 1 for the one that is now, 0 for
// the others. So a state that was left is seen to end.
func (e emitter) oneHot(f family, states []string, now string, labels ...string) {
	found := false
	for _, s := range states {
		found = found || s == now
		e.put(f, truth(s == now), append(labels[:len(labels):len(labels)], s)...)
	}
	if !found {
		e.put(f, 1, append(labels[:len(labels):len(labels)], now)...)
	}
}

// time sends t in seconds since the epoch, and nothing where it never was.
func (e emitter) time(f family, t time.Time, labels ...string) {
	if !t.IsZero() {
		e.put(f, float64(t.UnixMilli())/1e3, labels...)
	}
}

// label is s as a label's value may be: UTF-8 and bounded.
func label(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxLabel {
		return s
	}
	cut := maxLabel - len("…")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

func seconds(micros int64) float64 { return float64(micros) / 1e6 }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
