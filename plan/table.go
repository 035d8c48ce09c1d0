package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"lb4d/config"
	"lb4d/health"
	"lb4d/l4"
)

// MaxLeave bounds how long a destination that left the configuration may keep
// its flows.
const MaxLeave = time.Hour

var flagValues = map[string]l4.Flags{
	"mh-fallback": l4.MHFallback,
	"sh-fallback": l4.MHFallback, // the same scheduler-private bit, ip_vs.h
	"mh-port":     l4.MHPort,
	"sh-port":     l4.MHPort,
}

var encapsulations = map[config.Encapsulation]l4.Encapsulation{
	config.IPIP: l4.IPIP,
	config.GUE:  l4.GUE,
	config.GRE:  l4.GRE,
}

// table builds the wanted IPVS services: those of the configuration, and for
// a moment those of VIPs that have left it.
func (p *planner) table() {
	configured := map[netip.Addr]bool{}
	for _, s := range p.cfg.Services {
		pool, _ := p.cfg.Pool(s.Pool)
		for _, vip := range s.VIPs {
			if !configured[vip] {
				configured[vip] = true
				p.d.Addresses = append(p.d.Addresses, vip)
			}
			for _, port := range s.Ports {
				key := l4.Key{VIP: vip, Port: port.Number, Protocol: protocol(port)}
				p.d.Table = append(p.d.Table, l4.Service{
					Key:          key,
					Scheduler:    s.Scheduler,
					Flags:        flagsOf(s),
					Destinations: p.destinations(key, pool),
				})
			}
		}
	}

	// Withdraw first, remove last: a VIP that left the configuration keeps
	// its table until the routers have had the time to stop sending.
	for _, vip := range p.obs.Owned {
		if configured[vip] {
			continue
		}
		last, seen := p.obs.LastAnnounced[vip]
		if !p.obs.Announced[vip] && (!seen || !p.obs.Now.Before(last.Add(Linger))) {
			continue
		}
		if !p.obs.Announced[vip] {
			p.changesAt(last.Add(Linger))
		}
		p.d.Addresses = append(p.d.Addresses, vip)
		for _, s := range p.obs.Listed {
			if s.VIP == vip {
				p.d.Table = append(p.d.Table, s)
			}
		}
	}
	slices.SortFunc(p.d.Addresses, netip.Addr.Compare)
	slices.SortFunc(p.d.Table, func(a, b l4.Service) int {
		return cmp.Or(a.VIP.Compare(b.VIP), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
}

// flagsOf are the flags of a service's scheduler.
func flagsOf(s config.Service) l4.Flags {
	var flags l4.Flags
	for _, name := range s.Flags {
		flags |= flagValues[name]
	}
	return flags
}

// Pools tells which pool each service of the configuration leads to.
func Pools(cfg *config.Config) map[l4.Key]string {
	pools := map[l4.Key]string{}
	for _, s := range cfg.Services {
		for _, key := range Keys(s) {
			pools[key] = s.Pool
		}
	}
	return pools
}

// Keys are the services that the kernel has for one of the configuration, by
// VIP and then port, in the order of the configuration.
func Keys(s config.Service) []l4.Key {
	var keys []l4.Key
	for _, vip := range s.VIPs {
		for _, port := range s.Ports {
			keys = append(keys, l4.Key{VIP: vip, Port: port.Number, Protocol: protocol(port)})
		}
	}
	return keys
}

func protocol(p config.Port) l4.Protocol {
	if p.Protocol == "udp" {
		return l4.UDP
	}
	return l4.TCP
}

// destinations are the members of the pool as the service should have them,
// followed by those that left the configuration and still carry flows.
func (p *planner) destinations(key l4.Key, pool config.Pool) []l4.Destination {
	listed := map[netip.Addr]l4.Destination{}
	for _, d := range p.listed[key].Destinations {
		listed[d.Addr] = d
	}
	anyUp := slices.ContainsFunc(pool.Members, func(m config.Member) bool {
		target, ok := TargetOf(pool, m, key.VIP.Is6())
		return ok && p.state(target) == health.Up
	})

	var wanted []l4.Destination
	members, unanswered := map[netip.Addr]bool{}, false
	for _, m := range pool.Members {
		target, ok := TargetOf(pool, m, key.VIP.Is6())
		if !ok {
			continue
		}
		addr := target.Addr
		members[addr] = true
		unanswered = unanswered || p.obs.Health[target].State == health.Unknown
		found, isListed := listed[addr]
		weight, keep := p.weight(pool, m, target, found, isListed, anyUp)
		if keep {
			wanted = append(wanted, l4.Destination{
				Addr: addr, Port: key.Port, Weight: weight, FullWeight: m.Weight,
				Encapsulation: encapsulations[pool.Encapsulation], GUEPort: pool.GUEPort,
			})
		}
	}
	return append(wanted, p.leaving(key, members, unanswered)...)
}

// weight tells which weight a member's destination should have now, and
// whether there should be one at all.
func (p *planner) weight(pool config.Pool, m config.Member, target health.Target, found l4.Destination, listed, anyUp bool) (weight int, keep bool) {
	status := p.obs.Health[target]
	switch p.state(target) {
	case health.Up:
		return m.Weight, true
	case health.Draining:
		return 0, true
	case health.Down:
		// A member that is down and not in the table was purged before, by
		// this process or an earlier one, or never was fit. It has no flows
		// here that could be kept.
		if !listed {
			return 0, false
		}
		// Weight 0 at once, because the check may be wrong and flows may
		// still work. Deleted after purge_after, so that its flows are
		// scheduled anew and reset by another member instead of running
		// into silence; which serves only while there is another.
		if pool.PurgeAfter > 0 && anyUp && !status.FailingSince.IsZero() {
			purge := status.FailingSince.Add(pool.PurgeAfter)
			if !p.obs.Now.Before(purge) {
				return 0, false
			}
			p.changesAt(purge)
		}
		return 0, true
	default: // unknown: what the kernel has stays
		return found.Weight, listed
	}
}

// leaving are the listed destinations of a service that the configuration no
// longer has, at weight 0, as long as they carry flows. While members have not
// answered yet they stay as they are: a reload may bring in a whole new set,
// and until that is known to work the old one carries the traffic.
func (p *planner) leaving(key l4.Key, members map[netip.Addr]bool, unanswered bool) []l4.Destination {
	var out []l4.Destination
	for _, d := range p.listed[key].Destinations {
		// A destination of another tool on our VIP, not reached through a
		// tunnel or on another port, carries no flow that we could keep.
		if members[d.Addr] || d.Encapsulation == l4.None || d.Port != key.Port {
			continue
		}
		if unanswered {
			d.FullWeight = l4.UnknownWeight
			out = append(out, d)
			continue
		}
		if d.ActiveConns+d.InactiveConns == 0 {
			continue
		}
		leaver := Leaver{Service: key, Addr: d.Addr}
		if since, ok := p.obs.LeavingSince[leaver]; ok {
			if !p.obs.Now.Before(since.Add(MaxLeave)) {
				continue
			}
			p.changesAt(since.Add(MaxLeave))
		}
		p.d.Leaving = append(p.d.Leaving, leaver)
		// Without slots: then the others have the same on every host, whether
		// it has such flows left or not.
		out = append(out, l4.Destination{
			Addr: d.Addr, Port: d.Port,
			Encapsulation: d.Encapsulation, GUEPort: d.GUEPort,
		})
	}
	return out
}
