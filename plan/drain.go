package plan

import (
	"slices"
	"time"

	"lb4d/config"
	"lb4d/health"
)

// MemberName names a member of a pool, with all its addresses.
type MemberName struct {
	Pool, Member string
}

// Drain is an operator's wish that a member get no new flows from this host.
// Those in progress stay to their end, as they do when the member's own check
// asks for it.
type Drain struct {
	// Reason is the operator's, on one line; it may be empty.
	Reason string
	// Since is when the operator asked.
	Since time.Time
}

// String is the drain in words: drained by the operator: new disk, since
// 2026-03-01T03:00:00Z.
func (d Drain) String() string {
	s := "drained by the operator"
	if d.Reason != "" {
		s += ": " + d.Reason
	}
	return s + ", since " + d.Since.UTC().Format(time.RFC3339)
}

// state is what a target counts as. A drain holds whatever the check says, so
// that a member which was drained for work on it does not come back in the
// middle. Only down goes before it: flows that stay there would run into
// silence.
func (p *planner) state(target health.Target) health.State {
	state := p.obs.Health[target].State
	if _, drained := p.obs.Drains[MemberName{target.Pool, target.Member}]; drained && state != health.Down {
		return health.Draining
	}
	return state
}

// Fallen tells which services would cease to forward if the drains of obs were
// those given, in the words of their reasons. Only what forwards can cease: of
// a service that is down already it says nothing.
func Fallen(cfg *config.Config, obs Observations, drains map[MemberName]Drain) []string {
	before := Decide(cfg, obs)
	// As the next pass will find it: what forwards now has only its quorum to
	// keep.
	obs.Forwarding, obs.Drains = before.Forwarding, drains
	after := Decide(cfg, obs)
	var reasons []string
	for i, s := range after.Services {
		for j, f := range s.families {
			if !before.Services[i].families[j].forwarding() || f.forwarding() {
				continue
			}
			// Families that stand alike have one reason.
			if reason := s.reason(f); !slices.Contains(reasons, reason) {
				reasons = append(reasons, reason)
			}
		}
	}
	return reasons
}
