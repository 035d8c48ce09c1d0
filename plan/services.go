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
	name        string // IPv4 or IPv6
	is6         bool
	up, members int
	quorum      int
	restore     int // the quorum at least
	// fallen tells that the service is known not to forward: then restore
	// counts, and not the quorum.
	fallen bool
}

// needed is how many members must be up for the service to forward.
func (f family) needed() int {
	if f.fallen {
		return f.restore
	}
	return f.quorum
}

func (f family) forwarding() bool { return f.up >= f.needed() }

// ServiceFamily names what has a quorum of its own: a service in one address
// family.
type ServiceFamily struct {
	Service string
	IPv6    bool
}

// services counts, for each service, the members that are up.
//
// A service with VIPs of both families stands on each of them by itself: an
// IPv6 outage of the members takes the IPv6 VIPs out and leaves the others.
//
// The quorum has two edges. One that forwards goes on while its quorum is up;
// one that has ceased begins again with quorum_restore, so that the first
// member that comes back need not carry everything alone.
func (p *planner) services() {
	p.d.Forwarding = map[ServiceFamily]bool{}
	for _, s := range p.cfg.Services {
		pool, _ := p.cfg.Pool(s.Pool)
		out := Service{Config: s, Forwarding: true}
		for _, f := range []family{{name: "IPv4"}, {name: "IPv6", is6: true}} {
			if !slices.ContainsFunc(s.VIPs, func(vip netip.Addr) bool { return vip.Is6() == f.is6 }) {
				continue
			}
			unknown := false
			for _, m := range pool.Members {
				addr := memberAddr(m, f.is6)
				if !addr.IsValid() {
					continue
				}
				f.members++
				target := health.Target{Pool: pool.Name, Member: m.Name, Addr: addr}
				if p.state(target) == health.Up {
					f.up++
				}
				unknown = unknown || p.obs.Health[target].State == health.Unknown
			}
			f.quorum = s.Quorum.Of(f.members)
			f.restore = max(f.quorum, s.QuorumRestore.Of(f.members))
			p.edge(s.Name, &f, unknown)
			out.families = append(out.families, f)
		}
		worst := slices.MinFunc(out.families, func(a, b family) int { return (a.up - a.needed()) - (b.up - b.needed()) })
		out.Up, out.Quorum, out.Restore, out.Members = worst.up, worst.quorum, worst.restore, worst.members
		out.Forwarding = worst.forwarding()
		out.Reason = out.reason(worst)
		p.d.Services = append(p.d.Services, out)
	}
}

// edge chooses which of the two numbers counts for a service in one family,
// and notes for the next decision where it stands now.
func (p *planner) edge(service string, f *family, unknown bool) {
	key := ServiceFamily{Service: service, IPv6: f.is6}
	was, known := p.obs.Forwarding[key]
	f.fallen = known && !was
	switch {
	case f.forwarding():
		p.d.Forwarding[key] = true
	case !unknown:
		p.d.Forwarding[key] = false
	case known: // while members have not answered, nothing new is known
		p.d.Forwarding[key] = was
	}
}

// reason says how many members carry the service. It names the address family
// only where the families differ.
func (s Service) reason(f family) string {
	in := ""
	for _, other := range s.families {
		if other.up != f.up || other.members != f.members || other.forwarding() != f.forwarding() {
			in = " over " + f.name
		}
	}
	if f.forwarding() {
		return fmt.Sprintf("%s forwards to %d of %d members%s", s.Config.Name, f.up, f.members, in)
	}
	if f.up >= f.quorum {
		return fmt.Sprintf("%s has %d of %d members up%s, quorum_restore %d", s.Config.Name, f.up, f.members, in, f.restore)
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
