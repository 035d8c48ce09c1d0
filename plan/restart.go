package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"lb4d/config"
	"lb4d/health"
	"lb4d/l4"
)

// Before is what a start finds of the process before it.
type Before struct {
	// Announced are the VIPs whose routes it had announced and not withdrawn.
	Announced []netip.Addr
	// Booted tells that the host has been booted since.
	Booted bool
	// Listed and Addresses are the kernel's table and the local addresses, as
	// far as the VIPs are owned. Err is why they could not be read.
	Listed    l4.Table
	Addresses []netip.Addr
	Err       error
}

// Kept is what becomes of the routes that the process before has left with the
// peers.
type Kept struct {
	// IPv4 and IPv6 tell in which families forwarding went on, so that the
	// peers may keep the routes until they have heard the new ones (RFC 4724
	// section 4.1).
	IPv4, IPv6 bool
	// VIPs are those of these families that the configuration still has.
	VIPs map[netip.Addr]bool
	// Left tells that peers may have routes at all.
	Left   bool
	Reason string
}

// Keep tells whether forwarding went on while there was no process: the host
// has not been booted, and each VIP that was announced is a local address for
// which the kernel has every service of the configuration, with a quorum of
// members that take new flows. A family in which one VIP fails to is not kept.
func Keep(cfg *config.Config, before Before) Kept {
	asks := slices.ContainsFunc(cfg.BGP.Peers, func(p config.Peer) bool { return p.GracefulRestart > 0 })
	kept := Kept{Left: len(before.Announced) > 0}
	switch {
	case !kept.Left:
		kept.Reason = "no routes were left announced"
	case !asks:
		kept.Reason = "no peer is asked to, graceful_restart is 0s"
	case before.Booted:
		kept.Reason = "the host has been booted since"
	case before.Err != nil:
		kept.Reason = "the kernel cannot be read: " + before.Err.Error()
	}
	if kept.Reason != "" {
		return kept
	}

	have := index(before.Listed)
	services := map[netip.Addr][]config.Service{}
	for _, s := range cfg.Services {
		for _, vip := range s.VIPs {
			services[vip] = append(services[vip], s)
		}
	}
	// What leaves the configuration is withdrawn, whatever the kernel has.
	configured := slices.DeleteFunc(slices.Clone(before.Announced), func(vip netip.Addr) bool { return services[vip] == nil })
	if len(configured) == 0 {
		kept.Reason = "the configuration has none of the VIPs any more that were announced"
		return kept
	}
	faults := map[bool]string{} // by whether it is IPv6
	count := map[bool]int{}
	kept.VIPs = map[netip.Addr]bool{}
	for _, vip := range configured {
		count[vip.Is6()]++
		if fault := notForwarded(cfg, vip, services[vip], have, before.Addresses); fault != "" && faults[vip.Is6()] == "" {
			faults[vip.Is6()] = fault
		}
	}
	kept.IPv4 = count[false] > 0 && faults[false] == ""
	kept.IPv6 = count[true] > 0 && faults[true] == ""
	n := 0
	for _, vip := range configured {
		if (vip.Is4() && kept.IPv4) || (vip.Is6() && kept.IPv6) {
			kept.VIPs[vip] = true
			n++
		}
	}
	if n > 0 {
		kept.Reason = fmt.Sprintf("the kernel still forwards %d of the %d VIPs that were announced", n, len(before.Announced))
	}
	for _, fault := range []string{faults[false], faults[true]} {
		if fault != "" && kept.Reason != "" {
			kept.Reason += "; "
		}
		kept.Reason += fault
	}
	return kept
}

// notForwarded is what the kernel lacks of a VIP; empty: nothing.
func notForwarded(cfg *config.Config, vip netip.Addr, services []config.Service, have map[l4.Key]l4.Service, local []netip.Addr) string {
	if !slices.Contains(local, vip) {
		return fmt.Sprintf("%s is not a local address", vip)
	}
	for _, s := range services {
		pool, _ := cfg.Pool(s.Pool)
		members := 0
		for _, m := range pool.Members {
			if _, ok := TargetOf(pool, m, vip.Is6()); ok {
				members++
			}
		}
		for _, key := range Keys(s) {
			if key.VIP != vip {
				continue
			}
			want := l4.Service{Key: key, Scheduler: s.Scheduler, Flags: flagsOf(s)}
			if fault := missing(want, have, s.Quorum.Of(members)); fault != "" {
				return fault
			}
		}
	}
	return ""
}

// maxDeferral bounds how long peers that keep routes wait for the new ones.
const maxDeferral = 20 * time.Second

// Deferral is how long a start may wait for the first answers of the checks
// while peers keep the routes of the process before: half of the shortest time
// that any of them was asked for, so that none gives up. By then what the kernel
// forwards is announced.
func Deferral(cfg *config.Config) time.Duration {
	d := maxDeferral
	for _, p := range cfg.BGP.Peers {
		if p.GracefulRestart > 0 {
			d = min(d, p.GracefulRestart/2)
		}
	}
	return d
}

// Carrying lists the targets that the kernel sends new flows to. After a restart
// they are presumed up: whoever put them there had them answer.
func Carrying(cfg *config.Config, listed l4.Table) map[health.Target]bool {
	carrying := map[health.Target]bool{}
	have := index(listed)
	for _, s := range cfg.Services {
		pool, _ := cfg.Pool(s.Pool)
		for _, key := range Keys(s) {
			for _, m := range pool.Members {
				target, ok := TargetOf(pool, m, key.VIP.Is6())
				if ok && slices.ContainsFunc(have[key].Destinations, func(d l4.Destination) bool {
					return d.Addr == target.Addr && d.Weight > 0 && d.Encapsulation != l4.None
				}) {
					carrying[target] = true
				}
			}
		}
	}
	return carrying
}
