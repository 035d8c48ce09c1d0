// Package plan decides. Decide is a pure function from the configuration and
// what was observed to what should be: the IPVS table, the local addresses and
// the routes, each with its reason in words. It reads no clock, touches no
// kernel and remembers nothing.
package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"lb4d/bgp"
	"lb4d/config"
	"lb4d/health"
	"lb4d/l4"
	"lb4d/maintenance"
)

// Linger is how long the table of a VIP that left the configuration stays
// after its withdrawal: the routers need a moment to stop sending, and what
// they send meanwhile must still be forwarded.
const Linger = 2 * time.Second

// Observations are all that a decision depends on besides the configuration.
type Observations struct {
	Now         time.Time
	Health      map[health.Target]health.Status
	Maintenance maintenance.State
	// Drains are the members that an operator wants drained on this host.
	Drains map[MemberName]Drain
	// Forwarding is what the decision before this one had as its Forwarding:
	// whether a service has to reach its quorum_restore or only to keep its
	// quorum. At a start it is nil, and the quorum counts.
	Forwarding map[ServiceFamily]bool
	// Flaps is what the decision before this one had as its Flaps.
	Flaps map[netip.Addr]Flaps
	// Reloaded tells that the configuration has changed since the decision
	// before this one: what ceases to forward now does so by that.
	Reloaded bool
	// Others are the siblings of the VIPs.
	Others map[netip.Addr]Others
	// Stopping is when the daemon was asked to stop; zero: it was not.
	Stopping time.Time
	// Hurry tells that it was asked to once more: nothing drains any longer.
	Hurry bool
	// DrainBegan is since when a VIP is announced with GRACEFUL_SHUTDOWN, and
	// Still since when its counter in the kernel has not changed; Meter has
	// both. A VIP that is not in Still is not counted.
	DrainBegan, Still map[netip.Addr]time.Time
	// Listed is the kernel's table, at least as far as its VIPs are owned.
	Listed l4.Table
	// Announced holds the VIPs that the speaker announces now.
	Announced map[netip.Addr]bool
	// Kept are the VIPs whose routes peers have kept from the process before,
	// and that can wait for the first answers of the checks no longer. They
	// count as announced, and their services as forwarding, until it is known
	// better.
	Kept map[netip.Addr]bool
	// Owned are the VIPs that this daemon has configured at some time and
	// not yet removed, beyond those of the present configuration.
	Owned []netip.Addr
	// LastAnnounced is when a VIP that has left the configuration was last
	// seen announced.
	LastAnnounced map[netip.Addr]time.Time
	// LeavingSince is when a destination was first found to have left the
	// configuration.
	LeavingSince map[Leaver]time.Time
}

// Leaver is a destination in the kernel's table that the configuration no
// longer has. It keeps its flows, at weight 0, until they have ended.
type Leaver struct {
	Service l4.Key
	Addr    netip.Addr
}

// Decision is what should be.
type Decision struct {
	// Waiting counts the checks that have not answered yet. A process that
	// starts applies nothing before it is 0: the weights found in the kernel
	// are better than what it knows. After that a member that joins is left
	// as it is found, and holds nothing up.
	Waiting int
	// Table is the wanted part of the kernel's table: all services on owned
	// VIPs.
	Table l4.Table
	// Addresses are the VIPs that must be local.
	Addresses []netip.Addr
	VIPs      []VIP     // in the order of their addresses
	Services  []Service // in the order of the configuration
	Members   []Member  // by pool, name, address, family of the VIPs
	Leaving   []Leaver
	// Forwarding is what the next decision wants to know of this one. A
	// service that has never forwarded and whose members have not all
	// answered yet is not in it.
	Forwarding map[ServiceFamily]bool
	// Flaps are the VIPs that have failed lately; the next decision wants to
	// know of them too.
	Flaps map[netip.Addr]Flaps
	// Next is when the decision changes by the mere passing of time; zero:
	// never.
	Next time.Time
}

// VIPState is what becomes of a VIP's route.
type VIPState int

// The states of a VIP.
const (
	Withdrawn VIPState = iota
	// Draining: announced with GRACEFUL_SHUTDOWN until drain_time is over, or
	// no packet comes any more.
	Draining
	Announced
)

// String is the state's name in status, metrics and logs.
func (s VIPState) String() string {
	return [...]string{"withdrawn", "draining", "announced"}[s]
}

// VIP is the decision on one service address.
type VIP struct {
	Addr     netip.Addr
	State    VIPState
	Reason   string
	Services []string // names
	// Attributes are what its services say of its route; all say the same.
	Attributes bgp.Attributes
	// Failing is how far it reaches that members keep the VIP from being
	// announced.
	Failing Scope
	// Failures is how often it has failed lately, and HeldUntil when it is
	// announced again if it does not fail once more; zero: it is not held.
	Failures  int
	HeldUntil time.Time
	// Deadline is when a VIP that drains is withdrawn at the latest.
	Deadline time.Time
}

// Service is the decision on one service.
type Service struct {
	Config     config.Service
	Forwarding bool
	Reason     string
	// Up, Quorum and Members are those of the address family that is worst
	// off. Restore is how many must be up before a service that has ceased
	// to forward does so again.
	Up, Quorum, Restore, Members int

	families []family
}

// Member is the decision on one address of one member.
type Member struct {
	health.Target
	Status health.Status
	// State is what the member counts as: Status.State, or Draining where an
	// operator has drained it and it is not down.
	State health.State
	// Drain is the operator's; nil: there is none.
	Drain *Drain
	// Weight is what its destinations should have now.
	Weight           int
	ConfiguredWeight int
	Reason           string
	// VIP is the one to which the member is checked through the tunnel;
	// invalid: it is checked directly.
	VIP netip.Addr
	// Warning is what is wrong with the member although it is not down; empty:
	// nothing.
	Warning string
}

// Decide tells what should be, and why.
func Decide(cfg *config.Config, obs Observations) Decision {
	p := &planner{cfg: cfg, obs: obs, listed: index(obs.Listed)}
	p.members()
	p.services()
	p.table()
	p.vips()
	return p.d
}

type planner struct {
	cfg    *config.Config
	obs    Observations
	listed map[l4.Key]l4.Service
	d      Decision
	// unanswered counts the first answers that are missing, by pool.
	unanswered map[string]int
	// fallen are the services that have just ceased to forward by their checks.
	fallen map[ServiceFamily]bool
}

func index(table l4.Table) map[l4.Key]l4.Service {
	m := make(map[l4.Key]l4.Service, len(table))
	for _, s := range table {
		m[s.Key] = s
	}
	return m
}

// changesAt notes a moment at which the decision will be another one.
func (p *planner) changesAt(t time.Time) {
	if t.After(p.obs.Now) && (p.d.Next.IsZero() || t.Before(p.d.Next)) {
		p.d.Next = t
	}
}

// members lists every probed address with its state in words.
func (p *planner) members() {
	weights := map[MemberName]int{}
	for _, pool := range p.cfg.Pools {
		for _, m := range pool.Members {
			weights[MemberName{pool.Name, m.Name}] = m.Weight
		}
	}
	p.unanswered = map[string]int{}
	for target, check := range Targets(p.cfg) {
		m := Member{
			Target:           target,
			Status:           p.obs.Health[target],
			State:            p.state(target),
			ConfiguredWeight: weights[MemberName{target.Pool, target.Member}],
		}
		if drain, ok := p.obs.Drains[MemberName{target.Pool, target.Member}]; ok {
			m.Drain = &drain
		}
		if check.Through != nil {
			m.VIP = check.Through.VIP
		}
		switch m.Status.State {
		case health.Up:
			m.Weight, m.Reason = m.ConfiguredWeight, "up: "+m.Status.LastAnswer
		case health.Draining:
			m.Reason = "draining: " + m.Status.LastAnswer + ", flows in progress stay"
		case health.Down:
			m.Reason = "down: " + m.Status.LastAnswer
		case health.Unknown:
			m.Reason = "unknown: no answer to the first check yet"
			p.d.Waiting++
			p.unanswered[target.Pool]++
		}
		if m.Status.MTU == health.MTUFailed && m.State != health.Down {
			m.Warning = m.Status.MTUAnswer
		}
		switch {
		case m.Drain == nil:
		case m.State == health.Down:
			m.Reason += "; " + m.Drain.String()
		default:
			m.Weight, m.Reason = 0, "draining: "+m.Drain.String()
		}
		p.d.Members = append(p.d.Members, m)
	}
	slices.SortFunc(p.d.Members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Member, b.Member), a.Addr.Compare(b.Addr), compareFamily(a.Target, b.Target))
	})
}

// Routes are the routes of those VIPs that are announced or draining.
func Routes(vips []VIP) []bgp.Route {
	var routes []bgp.Route
	for _, v := range vips {
		if v.State != Withdrawn {
			routes = append(routes, bgp.Route{
				Prefix:     netip.PrefixFrom(v.Addr, v.Addr.BitLen()),
				Attributes: v.Attributes,
				Draining:   v.State == Draining,
			})
		}
	}
	return routes
}

// draining are the attributes of a route that drains. Whatever else is said of
// the route is not better: the configuration is refused where it would be.
func draining(a bgp.Attributes, b config.BGP) bgp.Attributes {
	if b.DrainMED != nil {
		a.MED = b.DrainMED
	}
	if b.DrainPrepend != nil {
		a.Prepend = b.DrainPrepend
	}
	return a
}
