package config

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

const (
	maxServices  = 4096
	maxVIPs      = 16384 // of all services
	maxPorts     = 256   // of one service
	maxEndpoints = 65536 // VIPs x ports of all services; each is a service of IPVS
)

// schedulers are those of the kernel's net/netfilter/ipvs, by their names in
// ipvsadm -s.
var schedulers = []string{"mh", "rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "lblc", "lblcr", "fo", "ovf"}

// schedulerFlags are the flags of each scheduler that has some, by their names
// in ipvsadm -b.
var schedulerFlags = map[string][]string{
	"mh": {"mh-port", "mh-fallback"},
	"sh": {"sh-port", "sh-fallback"},
}

// endpoint is what only one service can have.
type endpoint struct {
	vip  netip.Addr
	port Port
}

// claim is a VIP's place in a service.
type claim struct {
	place
	service, pool string
	attributes    Attributes
}

// serviceChecker is what the services must not do to one another.
type serviceChecker struct {
	*checker
	pools     checkedPools
	names     communityNames
	vips      map[netip.Addr]claim
	endpoints map[endpoint]claim
	order     []netip.Addr // the keys of vips, in the order of the file
	count     int          // VIPs so far, with those of several services
}

// services validates every [service.NAME], sorted by name.
func (c *checker) services(file *rawFile, pools checkedPools, names communityNames) []Service {
	raw := file.services
	if raw.ok && len(raw.entries) == 0 || !raw.present {
		// A file that was cut off in the middle must not withdraw everything
		// at the next reload.
		c.fault(file.child("service"), `there is no service; write [service.www] with vips = ["198.51.100.1"], ports = ["80/tcp"] and pool = "lb7"`)
		return nil
	}
	if n := len(raw.entries); n > maxServices {
		c.fault(raw.place, "there are %d services; write at most %d", n, maxServices)
		return nil
	}
	s := &serviceChecker{
		checker: c, pools: pools, names: names,
		vips: make(map[netip.Addr]claim), endpoints: make(map[endpoint]claim),
	}
	services := make([]Service, 0, len(raw.entries))
	for _, r := range raw.entries {
		if r.ok {
			services = append(services, s.service(r))
		}
	}
	s.members()
	slices.SortFunc(services, func(x, y Service) int { return strings.Compare(x.Name, y.Name) })
	return services
}

// service validates one service, and against those before it.
func (s *serviceChecker) service(r *rawService) Service {
	svc := Service{Name: r.name, Pool: s.pool(r)}
	svc.Scheduler, svc.Flags = s.scheduler(r)
	svc.Quorum, svc.QuorumRestore = s.quorums(r, s.pools[svc.Pool])
	svc.Ports = s.ports(r)
	svc.Attributes = s.attributes(&r.bgp.rawAttributes, s.names)
	svc.VIPs = s.claims(r, svc)
	return svc
}

// pool is the name of the service's pool, or empty where there is none such.
func (s *serviceChecker) pool(r *rawService) string {
	if !r.pool.present {
		s.fault(r.child("pool"), `is missing; write the name of a pool, such as pool = "lb7"`)
	}
	if !r.pool.ok || s.pools == nil {
		return ""
	}
	if s.pools[r.pool.value] != nil {
		return r.pool.value
	}
	names := s.pools.names()
	switch near := closest(r.pool.value, names); {
	case len(names) == 0:
		s.fault(r.pool.place, "there is no pool %s, nor any other; write [pool.NAME] with its members and check", quote(r.pool.value))
	case near != "":
		s.fault(r.pool.place, "there is no pool %s; did you mean %s? There are %s", quote(r.pool.value), quote(near), list(names, "and"))
	default:
		s.fault(r.pool.place, "there is no pool %s; write %s", quote(r.pool.value), list(names, "or"))
	}
	return ""
}

// scheduler is the service's scheduler and its flags.
func (s *serviceChecker) scheduler(r *rawService) (string, []string) {
	name := defaultScheduler
	if r.scheduler.ok {
		name = r.scheduler.value
	}
	if !slices.Contains(schedulers, name) {
		s.fault(r.scheduler.place, "%s is not a scheduler of IPVS; write one of %s", quote(name), strings.Join(schedulers, ", "))
		return name, nil
	}
	known := schedulerFlags[name]
	if !r.flags.present {
		// Without mh-port, all clients behind one address translator would
		// meet one member; without mh-fallback, those of a draining one would
		// be refused.
		if name == defaultScheduler {
			return name, slices.Clone(known)
		}
		return name, nil
	}
	var flags []string
	for _, t := range r.flags.values {
		if !t.ok {
			continue
		}
		switch {
		case slices.Contains(flags, t.value):
			s.fault(t.place, "%s is in the list twice; leave one of them out", quote(t.value))
		case slices.Contains(known, t.value):
			flags = append(flags, t.value)
		case len(known) == 0:
			s.fault(t.place, "%s: the scheduler %s has no flags; leave it out", quote(t.value), name)
		default:
			s.fault(t.place, "%s is not a flag of the scheduler %s; write %s", quote(t.value), name, list(known, "or"))
		}
	}
	return name, flags
}

// ports reads the list of a service's ports.
func (s *serviceChecker) ports(r *rawService) []Port {
	switch t := r.ports; {
	case !t.present:
		s.fault(r.child("ports"), `is missing; write the ports with their protocols, such as ports = ["80/tcp"]`)
	case t.ok && len(t.values) == 0:
		s.fault(t.place, `the list is empty; write the ports with their protocols, such as ["80/tcp"]`)
	case len(t.values) > maxPorts:
		s.fault(t.place, "there are %d ports; write at most %d", len(t.values), maxPorts)
		return nil
	}
	var ports []Port
	for _, t := range r.ports.values {
		p, ok := s.port(t)
		if !ok {
			continue
		}
		if slices.Contains(ports, p) {
			s.fault(t.place, "%s is in the list twice; leave one of them out", quote(t.value))
			continue
		}
		ports = append(ports, p)
	}
	return ports
}

// port reads 80/tcp.
func (s *serviceChecker) port(t text) (Port, bool) {
	if !t.ok {
		return Port{}, false
	}
	number, protocol, found := strings.Cut(t.value, "/")
	n, ok := portNumber(number)
	switch {
	case !ok:
		s.fault(t.place, `%s is not a port; write a number from 1 to 65535 and its protocol, such as "80/tcp"`, quote(t.value))
	case !found:
		s.fault(t.place, `%s names no protocol; write "%d/tcp" or "%d/udp"`, quote(t.value), n, n)
	case protocol != "tcp" && protocol != "udp":
		s.fault(t.place, `%s has a protocol that is not known; write "%d/tcp" or "%d/udp"`, quote(t.value), n, n)
	default:
		return Port{Number: n, Protocol: protocol}, true
	}
	return Port{}, false
}

// claims reads the VIPs of a service and notes each for it.
func (s *serviceChecker) claims(r *rawService, svc Service) []netip.Addr {
	switch t := r.vips; {
	case !t.present:
		s.fault(r.child("vips"), `is missing; write the addresses that users reach the service at, such as vips = ["198.51.100.1"]`)
	case t.ok && len(t.values) == 0:
		s.fault(t.place, `the list is empty; write the addresses that users reach the service at, such as ["198.51.100.1"]`)
	}
	var vips []netip.Addr
	seen := make(map[netip.Addr]bool)
	for _, t := range r.vips.values {
		vip, ok := s.address(t)
		if !ok {
			continue
		}
		if vip.IsLoopback() {
			s.fault(t.place, "%s is a loopback address; write one that other hosts can reach", quote(t.value))
			continue
		}
		if seen[vip] {
			s.fault(t.place, "%s is in the list twice; leave one of them out", quote(t.value))
			continue
		}
		seen[vip] = true
		if !s.room(t.place, len(svc.Ports)) {
			break
		}
		vips = append(vips, vip)
		s.claim(vip, claim{t.place, svc.Name, svc.Pool, svc.Attributes}, svc.Ports)
	}
	return vips
}

// room counts a VIP with so many ports, and tells whether there is still room
// for it. Only the one that passes a bound is told.
func (s *serviceChecker) room(at place, ports int) bool {
	s.count++
	switch {
	case s.count == maxVIPs+1:
		s.fault(at, "there are more than %d VIPs; leave some out", maxVIPs)
	case len(s.endpoints) <= maxEndpoints && len(s.endpoints)+ports > maxEndpoints:
		s.fault(at, "all VIPs and their ports together are more than %d; leave some out", maxEndpoints)
		s.count = maxVIPs + 1
	}
	return s.count <= maxVIPs
}

// claim notes that a VIP is used, and tells of who uses it already.
func (s *serviceChecker) claim(vip netip.Addr, by claim, ports []Port) {
	shared := false
	for _, port := range ports {
		e := endpoint{vip, port}
		first, taken := s.endpoints[e]
		if !taken {
			s.endpoints[e] = by
			continue
		}
		shared = true
		s.fault(by.place, "%s with port %d/%s is in service %s in line %d already; leave it out of one of them",
			vip, port.Number, port.Protocol, first.service, first.line)
	}
	first, taken := s.vips[vip]
	if !taken {
		s.vips[vip] = by
		s.order = append(s.order, vip)
		return
	}
	// One pool for all ports of a VIP: its announcement stands for one set
	// of hosts.
	if !shared && first.pool != by.pool && first.pool != "" && by.pool != "" {
		s.fault(by.place, "%s leads to pool %s in service %s in line %d already; use that pool here too, or another VIP",
			vip, first.pool, first.service, first.line)
		return
	}
	// One route for all ports of a VIP, and it says one thing.
	if !shared && !reflect.DeepEqual(first.attributes, by.attributes) {
		s.fault(by.place, "%s is in service %s in line %d already, with other BGP attributes; write the same here, or use another VIP",
			vip, first.service, first.line)
	}
}

// members tells of the members that cannot be reached for some VIP, once for
// each family.
func (s *serviceChecker) members() {
	type need struct {
		pool string
		ip4  bool
	}
	told := make(map[need]bool)
	for _, vip := range s.order {
		by := s.vips[vip]
		n := need{by.pool, vip.Is4()}
		if pool := s.pools[by.pool]; pool != nil && !told[n] {
			s.families(pool, vip, by.place)
		}
		told[n] = true
	}
}

// taken tells of VIPs that are an address of a host too. Such a host would
// answer for itself, or lose its way back.
func (c *checker) taken(file *rawFile, cfg *Config, pools checkedPools) {
	hosts := make(map[netip.Addr]place)
	for _, name := range pools.names() {
		for i, m := range pools[name].Members {
			for _, a := range []netip.Addr{m.Address, m.Address6} {
				if a.IsValid() {
					hosts[a] = pools[name].members[i]
				}
			}
		}
	}
	for _, p := range file.bgp.peers.entries {
		if a, err := netip.ParseAddr(p.address.value); err == nil {
			hosts[a] = p.address.place
		}
	}
	for _, r := range append(file.nextHops(), file.sources()...) {
		if a, err := netip.ParseAddr(r.value); err == nil {
			hosts[a] = r.place
		}
	}
	if cfg.BGP.RouterID.IsValid() {
		hosts[cfg.BGP.RouterID] = file.bgp.routerID.place
	}
	for _, s := range file.services.entries {
		for _, t := range s.vips.values {
			a, err := netip.ParseAddr(t.value)
			if err != nil {
				continue
			}
			if host, ok := hosts[a]; ok {
				c.fault(t.place, "%s is %s in line %d, and a VIP belongs to no single host; write another address", a, host.key, host.line)
			}
		}
	}
}
