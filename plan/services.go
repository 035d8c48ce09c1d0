package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"lb4d/config"
	"lb4d/health"
)

// family is how a service stands in one address family: the members that its
// VIPs of this family reach.
type family struct {
	name                string // IPv4 or IPv6
	is6                 bool
	up, members, quorum int
}

func (f family) forwarding() bool { return f.up >= f.quorum }

// services counts, for each service, the members that are up.
//
// A service with VIPs of both families stands on each of them by itself: an
// IPv6 outage of the members takes the IPv6 VIPs out and leaves the others.
func (p *planner) services() {
	for _, s := range p.cfg.Services {
		pool, _ := p.cfg.Pool(s.Pool)
		out := Service{Config: s, Forwarding: true}
		for _, f := range []family{{name: "IPv4"}, {name: "IPv6", is6: true}} {
			if !slices.ContainsFunc(s.VIPs, func(vip netip.Addr) bool { return vip.Is6() == f.is6 }) {
				continue
			}
			for _, m := range pool.Members {
				addr := memberAddr(m, f.is6)
				if !addr.IsValid() {
					continue
				}
				f.members++
				if p.health(pool.Name, m.Name, addr).State == health.Up {
					f.up++
				}
			}
			f.quorum = s.Quorum.Of(f.members)
			out.families = append(out.families, f)
		}
		worst := slices.MinFunc(out.families, func(a, b family) int { return (a.up - a.quorum) - (b.up - b.quorum) })
		out.Up, out.Quorum, out.Members = worst.up, worst.quorum, worst.members
		out.Forwarding = worst.forwarding()
		out.Reason = out.reason(worst)
		p.d.Services = append(p.d.Services, out)
	}
}

// reason says how many members carry the service. It names the address family
// only where the families differ.
func (s Service) reason(f family) string {
	in := ""
	for _, other := range s.families {
		if other.up != f.up || other.members != f.members {
			in = " over " + f.name
		}
	}
	if f.forwarding() {
		return fmt.Sprintf("%s forwards to %d of %d members%s", s.Config.Name, f.up, f.members, in)
	}
	return fmt.Sprintf("%s has %d of %d members up%s, quorum %d", s.Config.Name, f.up, f.members, in, f.quorum)
}

// in is the service's standing in the address family of vip.
func (s Service) in(vip netip.Addr) family {
	i := slices.IndexFunc(s.families, func(f family) bool { return f.is6 == vip.Is6() })
	return s.families[i]
}

func memberAddr(m config.Member, is6 bool) netip.Addr {
	if is6 {
		return m.Address6
	}
	return m.Address
}

func (p *planner) health(pool, member string, addr netip.Addr) health.Status {
	return p.obs.Health[health.Target{Pool: pool, Member: member, Addr: addr}]
}
