package plan

import (
	"maps"
	"net/netip"

	"lb4d/config"
	"lb4d/health"
)

// Reload is the decision after a reload to cfg has settled: what leaves the
// configuration has been withdrawn for long enough, and the members that have
// not answered a check yet are up. Those that have answered stay as they are.
func Reload(cfg *config.Config, obs Observations) Decision {
	obs.Health = maps.Clone(obs.Health)
	if obs.Health == nil {
		obs.Health = map[health.Target]health.Status{}
	}
	for target := range Targets(cfg) {
		if obs.Health[target].State == health.Unknown {
			obs.Health[target] = health.Status{State: health.Up, LastAnswer: "taken to be up"}
		}
	}
	configured := map[netip.Addr]bool{}
	for _, s := range cfg.Services {
		for _, vip := range s.VIPs {
			configured[vip] = true
		}
	}
	obs.Announced = maps.Clone(obs.Announced)
	maps.DeleteFunc(obs.Announced, func(vip netip.Addr, _ bool) bool { return !configured[vip] })
	obs.LastAnnounced, obs.Reloaded = nil, true
	return Decide(cfg, obs)
}
