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
	// unanswered are the members whose first check has not answered yet.
	// Of a service that forwards they are not held against it: a reload that
	// brings members in, or all of them anew, is no failure.
	unanswered int
	was        bool // the service is known to forward
}

// needed is how many members must be up for the service to forward.
func (f family) needed() int {
	if f.fallen {
		return f.restore
	}
	return f.quorum
}

func (f family) forwarding() bool { return f.up >= f.needed() || f.held() }

// held tells that the service goes on only because it is not known yet how
// some of its members are.
func (f family) held() bool {
	return f.was && f.up < f.quorum && f.up+f.unanswered >= f.quorum
}

// inKernel is how many destinations must be seen to take new flows before the
// service's VIPs are announced. A member that has not answered has none of its
// own yet, unless it was found there.
func (f family) inKernel() int {
	if f.held() {
		return max(1, f.quorum-f.unanswered)
	}
	return f.quorum
}

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
	p.fallen = map[ServiceFamily]bool{}
	for _, s := range p.cfg.Services {
		pool, _ := p.cfg.Pool(s.Pool)
		out := Service{Config: s, Forwarding: true}
		for _, f := range []family{{name: "IPv4"}, {name: "IPv6", is6: true}} {
			if !slices.ContainsFunc(s.VIPs, func(vip netip.Addr) bool { return vip.Is6() == f.is6 }) {
				continue
			}
			drained := 0
			for _, m := range pool.Members {
				target, ok := TargetOf(pool, m, f.is6)
				if !ok {
					continue
				}
				f.members++
				if p.state(target) == health.Up {
					f.up++
				}
				if p.drainedUp(target) {
					drained++
				}
				if p.obs.Health[target].State == health.Unknown {
					f.unanswered++
				}
			}
			f.quorum = s.Quorum.Of(f.members)
			f.restore = max(f.quorum, s.QuorumRestore.Of(f.members))
			p.edge(s.Name, &f)
			if p.fell(f, drained) {
				p.fallen[ServiceFamily{Service: s.Name, IPv6: f.is6}] = true
			}
			out.families = append(out.families, f)
		}
		worst := slices.MinFunc(out.families, func(a, b family) int { return (a.up - a.needed()) - (b.up - b.needed()) })
		out.Up, out.Quorum, out.Restore, out.Members = worst.up, worst.quorum, worst.restore, worst.members
		out.Forwarding = worst.forwarding()
		out.Reason = out.reason(worst)
		p.d.Services = append(p.d.Services, out)
	}
}

// kept tells that peers have kept the route of a VIP of the service.
func (p *planner) kept(service string, is6 bool) bool {
	return slices.ContainsFunc(p.cfg.Services, func(s config.Service) bool {
		return s.Name == service && slices.ContainsFunc(s.VIPs, func(vip netip.Addr) bool {
			return vip.Is6() == is6 && p.obs.Kept[vip]
		})
	})
}

// edge chooses which of the two numbers counts for a service in one family,
// and notes for the next decision where it stands now.
func (p *planner) edge(service string, f *family) {
	key := ServiceFamily{Service: service, IPv6: f.is6}
	was, known := p.obs.Forwarding[key]
	if !known && p.kept(service, f.is6) {
		was, known = true, true
	}
	f.fallen, f.was = known && !was, known && was
	switch {
	case f.forwarding():
		p.d.Forwarding[key] = true
	case f.unanswered == 0:
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
	if f.held() {
		return fmt.Sprintf("%s goes on while %s of %d%s %s not answered yet", s.Config.Name, count(f.unanswered, "member"), f.members, in, have(f.unanswered))
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

func have(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}
