package config

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	maxPools   = 1024
	maxMembers = 1024 // of one pool; a Maglev table has 4093 slots
	// maxPurgeAfter is past the life of any flow worth waiting for.
	maxPurgeAfter = 24 * time.Hour
)

// checkedPool is a pool with where its parts stand.
type checkedPool struct {
	Pool
	place
	// members are the places of the pool's members, in the same order.
	members []place
	// size is how many members the file gives the pool, the faulty ones
	// included; negative where nobody can tell.
	size int
}

// checkedPools are the pools by their names; nil where nobody can tell which
// there are.
type checkedPools map[string]*checkedPool

// names are the names of the pools, sorted.
func (p checkedPools) names() []string {
	var names []string
	for name := range p {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// sorted is the pools by name, their members too.
func (p checkedPools) sorted() []Pool {
	var pools []Pool
	for _, name := range p.names() {
		pool := p[name].Pool
		slices.SortFunc(pool.Members, func(x, y Member) int { return strings.Compare(x.Name, y.Name) })
		pools = append(pools, pool)
	}
	return pools
}

// pools validates every [pool.NAME].
func (c *checker) pools(file *rawFile) checkedPools {
	raw := file.pools
	if raw.present && !raw.ok {
		return nil
	}
	if n := len(raw.entries); n > maxPools {
		c.fault(raw.place, "there are %d pools; write at most %d", n, maxPools)
		return nil
	}
	pools := make(checkedPools)
	for _, r := range raw.entries {
		p := &checkedPool{Pool: Pool{Name: r.name}, place: r.place, size: -1}
		pools[r.name] = p
		if !r.ok {
			continue
		}
		c.encapsulation(r, p)
		p.PurgeAfter = c.duration(r.purgeAfter, defaultPurgeAfter, 0, maxPurgeAfter)
		c.members(r, p)
		p.Check = c.check(r)
	}
	return pools
}

// encapsulation is how packets travel to the members of a pool.
func (c *checker) encapsulation(r *rawPool, p *checkedPool) {
	p.Encapsulation = Encapsulation(c.choose(r.encapsulation, encapsulations))
	switch {
	case p.Encapsulation == GUE:
		p.GUEPort = uint16(c.integer(r.guePort, defaultGUEPort, 1, math.MaxUint16))
	case r.guePort.present:
		c.fault(r.guePort.place, `only GUE has a port; write encapsulation = "gue", or leave the key out`)
	}
}

// members validates both forms of a pool's members.
func (c *checker) members(r *rawPool, p *checkedPool) {
	if (!r.members.present || r.members.ok) && (!r.member.present || r.member.ok) {
		p.size = len(r.members.values) + len(r.member.entries)
	}
	if p.size == 0 {
		at := r.place
		if r.members.present {
			at = r.members.place
		}
		c.fault(at, `the pool has no member; write members = ["192.0.2.139", "192.0.2.140"]`)
	}
	if p.size > maxMembers {
		c.fault(r.place, "there are %d members; write at most %d", p.size, maxMembers)
		return
	}
	seen := make(map[netip.Addr]place)
	once := func(a netip.Addr, at place) bool {
		first, twice := seen[a]
		if twice {
			c.fault(at, "%s is %s in line %d already; leave one of them out", a, first.key, first.line)
		}
		seen[a] = at
		return !twice
	}
	for _, t := range r.members.values {
		a, ok := c.address(t)
		if !ok || !once(a, t.place) {
			continue
		}
		m := Member{Name: a.String(), Weight: defaultWeight}
		if a.Is4() {
			m.Address = a
		} else {
			m.Address6 = a
		}
		p.add(m, t.place)
	}
	for _, t := range r.member.entries {
		if !t.ok {
			continue
		}
		m := Member{Name: t.name, Weight: c.weight(t.weight)}
		faults := len(c.faults)
		if !t.address.present && !t.address6.present {
			c.fault(t.child("address"), `is missing; write address = "192.0.2.139" or address6 = "2001:db8::c000:28b", or both`)
		}
		m.Address = c.memberAddress(t.address, netip.Addr.Is4, `an IPv4 address; write an IPv6 one as address6`, once)
		m.Address6 = c.memberAddress(t.address6, netip.Addr.Is6, `an IPv6 address; write an IPv4 one as address`, once)
		if i := slices.IndexFunc(p.Members, func(other Member) bool { return other.Name == t.name }); i >= 0 {
			c.fault(t.place, "%s in line %d has this name already; write another", p.members[i].key, p.members[i].line)
		}
		// A faulty one is left out, so that it is not found lacking again.
		if len(c.faults) == faults {
			p.add(m, t.place)
		}
	}
}

func (p *checkedPool) add(m Member, at place) {
	p.Members = append(p.Members, m)
	p.members = append(p.members, at)
}

// memberAddress is one of the two addresses of a member's long form.
func (c *checker) memberAddress(t text, family func(netip.Addr) bool, want string, once func(netip.Addr, place) bool) netip.Addr {
	a, ok := c.address(t)
	if !ok {
		return netip.Addr{}
	}
	if !family(a) {
		c.fault(t.place, "%s is not %s", quote(t.value), want)
		return netip.Addr{}
	}
	if !once(a, t.place) {
		return netip.Addr{}
	}
	return a
}

// weight is a member's share of the flows. In the kernel 0 means that no new
// flow is sent there, which the daemon says by itself when it drains.
func (c *checker) weight(t number) int {
	if t.ok && t.value == 0 {
		c.fault(t.place, "0 would never send a flow to the member; write 1 to %d, or leave the member out", math.MaxUint16)
		return defaultWeight
	}
	return int(c.integer(t, defaultWeight, 1, math.MaxUint16))
}

// families tells of each pool whose services have VIPs of a family that some
// member has no address of. Any encapsulation carries them to its other address;
// but that the member takes them there is more than a direct check finds out, and
// a VIP must not be announced on a guess.
func (c *checker) families(pool *checkedPool, vip netip.Addr, at place) {
	if pool.Check.Via == ViaTunnel {
		return
	}
	for i, m := range pool.Members {
		switch has := pool.members[i]; {
		case vip.Is4() && !m.Address.IsValid():
			c.fault(has, "has no IPv4 address, and %s in line %d is an IPv4 VIP; %s, or via = \"tunnel\" in the check", at.key, at.line, pool.longForm(m, "address"))
		case vip.Is6() && !m.Address6.IsValid():
			c.fault(has, "has no IPv6 address, and %s in line %d is an IPv6 VIP; %s, or via = \"tunnel\" in the check", at.key, at.line, pool.longForm(m, "address6"))
		}
	}
}

// longForm tells how to give a member its other address.
func (p *checkedPool) longForm(m Member, key string) string {
	if m.Name == m.Address.String() || m.Name == m.Address6.String() {
		return "write the member as [" + p.child("member").child("NAME").key + "] with address and address6"
	}
	return "write " + key + " too"
}
