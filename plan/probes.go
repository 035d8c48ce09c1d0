package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"lb4d/config"
	"lb4d/health"
	"lb4d/l4"
)

// TargetOf is where a member takes the packets of VIPs of one family: at its
// address of that family, or else, where its checks go through the tunnel and
// so would find out that it cannot, at its other one.
func TargetOf(pool config.Pool, m config.Member, vip6 bool) (health.Target, bool) {
	addr, other := m.Address, m.Address6
	if vip6 {
		addr, other = other, addr
	}
	target := health.Target{Pool: pool.Name, Member: m.Name, Addr: addr}
	if !addr.IsValid() && pool.Check.Via == config.ViaTunnel {
		target.Addr, target.OtherFamily = other, true
	}
	return target, target.Addr.IsValid()
}

// Targets lists what must be probed, and how: one target for each address
// family of the VIPs in front of a member's pool, or the member's own address
// where no service uses the pool yet.
//
// What depends on the host, which is the source and the mark of a check through
// the tunnel, is left open.
func Targets(cfg *config.Config) map[health.Target]health.Check {
	targets := map[health.Target]health.Check{}
	for _, pool := range cfg.Pools {
		v4, v6 := probedVIP(cfg, pool, false), probedVIP(cfg, pool, true)
		add := func(target health.Target, vip netip.Addr) {
			check := health.Check{
				HTTP: pool.Check.HTTP, Host: pool.Check.Host, Port: pool.Check.Port,
				ExpectStatus: pool.Check.ExpectStatus, DrainStatus: pool.Check.DrainStatus,
				Interval: pool.Check.Interval, Timeout: pool.Check.Timeout,
				Rise: pool.Check.Rise, Fall: pool.Check.Fall,
			}
			if pool.Check.Via == config.ViaTunnel && vip.IsValid() {
				check.MTURequired = pool.Check.MTURequired
				check.Through = &health.Through{
					VIP: vip, MTU: pool.Check.MTU,
					Overhead: encapsulations[pool.Encapsulation].Overhead(target.Addr.Is6()),
				}
			}
			targets[target] = check
		}
		for _, m := range pool.Members {
			used := false
			for _, vip := range []netip.Addr{v4, v6} {
				target, ok := TargetOf(pool, m, vip.Is6())
				if ok && vip.IsValid() {
					add(target, vip)
					used = true
				}
			}
			if !used {
				target, _ := TargetOf(pool, m, !m.Address.IsValid())
				add(target, netip.Addr{})
			}
		}
	}
	return targets
}

// probedVIP is the VIP of one address family to which the members of a pool are
// checked; invalid where none leads to the pool.
//
// It is the first one, of services by name and of VIPs in the order of the file,
// so that every LB4 host asks for the same, and the operator says which: a VIP
// that is added behind the others asks nothing of the members. Services that
// have the check's port go before others, as a member surely listens there.
func probedVIP(cfg *config.Config, pool config.Pool, ipv6 bool) netip.Addr {
	var first netip.Addr
	for _, s := range cfg.Services {
		i := slices.IndexFunc(s.VIPs, func(vip netip.Addr) bool { return vip.Is6() == ipv6 })
		if s.Pool != pool.Name || i < 0 {
			continue
		}
		if slices.Contains(s.Ports, config.Port{Number: pool.Check.Port, Protocol: "tcp"}) {
			return s.VIPs[i]
		}
		if !first.IsValid() {
			first = s.VIPs[i]
		}
	}
	return first
}

// through lists the targets that are checked through the tunnel, in an order
// that does not change.
func through(targets map[health.Target]health.Check) []health.Target {
	var list []health.Target
	for target, check := range targets {
		if check.Through != nil {
			list = append(list, target)
		}
	}
	slices.SortFunc(list, func(a, b health.Target) int {
		return cmp.Or(strings.Compare(a.Pool, b.Pool), strings.Compare(a.Member, b.Member), a.Addr.Compare(b.Addr), compareFamily(a, b))
	})
	return list
}

// compareFamily puts the target that stands for IPv4 VIPs first.
func compareFamily(a, b health.Target) int {
	switch {
	case a.IPv6() == b.IPv6():
		return 0
	case a.IPv6():
		return 1
	}
	return -1
}

// Marks chooses a firewall mark for each target that is checked through the
// tunnel, out of those that are ours. No two have the same.
//
// A target keeps the mark that it has: known is what this process has chosen
// before, listed what the kernel has, from an earlier process too. So neither a
// restart nor a member that comes or goes changes the service of another.
func Marks(cfg *config.Config, targets map[health.Target]health.Check, known map[health.Target]uint32, listed l4.Table) map[health.Target]uint32 {
	first := cfg.CheckMark
	ours := func(mark uint32) bool { return mark >= first && mark-first < config.CheckMarks }
	marks := map[health.Target]uint32{}
	taken := map[uint32]bool{}
	choose := func(target health.Target, mark uint32) {
		marks[target], taken[mark] = mark, true
	}

	list := through(targets)
	for _, target := range list {
		if mark, ok := known[target]; ok && ours(mark) && !taken[mark] {
			choose(target, mark)
		}
	}
	type place struct {
		vip6   bool
		member netip.Addr
	}
	found := map[place][]uint32{}
	for _, s := range listed {
		if len(s.Destinations) == 1 && ours(s.FWMark) && !taken[s.FWMark] {
			at := place{s.VIP.Is6(), s.Destinations[0].Addr}
			found[at] = append(found[at], s.FWMark)
		}
	}
	for _, target := range list {
		at := place{targets[target].Through.VIP.Is6(), target.Addr}
		if _, has := marks[target]; has || len(found[at]) == 0 {
			continue
		}
		choose(target, slices.Min(found[at]))
		found[at] = slices.DeleteFunc(found[at], func(mark uint32) bool { return taken[mark] })
	}
	next := first
	for _, target := range list {
		if _, has := marks[target]; has {
			continue
		}
		for taken[next] {
			next++
		}
		choose(target, next)
	}
	return marks
}

// MarkTable is the services of the marks: each has one destination, so it leads
// a check to its target and nowhere else, also while the target is down.
func MarkTable(cfg *config.Config, targets map[health.Target]health.Check, marks map[health.Target]uint32) l4.Table {
	var table l4.Table
	for _, target := range through(targets) {
		pool, _ := cfg.Pool(target.Pool)
		table = append(table, l4.Service{
			Key:       l4.MarkKey(marks[target], targets[target].Through.VIP.Is6()),
			Scheduler: "rr",
			Destinations: []l4.Destination{{
				Addr: target.Addr, Weight: 1, FullWeight: 1, Encapsulation: encapsulations[pool.Encapsulation], GUEPort: pool.GUEPort,
			}},
		})
	}
	return table
}
