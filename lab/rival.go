package lab

import (
	"fmt"
	"net/netip"
	"slices"
)

// rivalSysctls are what the LB4 hosts of the public three-tier lab set. Only
// the first is needed for a flow to change its LB4 host.
var rivalSysctls = []Sysctl{
	{"net/ipv4/vs/sloppy_tcp", "1"},
	{"net/ipv4/vs/pmtu_disc", "0"},
	{"net/ipv4/vs/expire_nodest_conn", "0"},
	{"net/ipv4/vs/expire_quiescent_template", "0"},
}

// rival is an LB4 host as it is put together without lb4d: keepalived checks
// the LB7 hosts and programs IPVS, and leaves a file for as long as it has a
// quorum; ExaBGP's health check announces the VIPs while that file is there
// and the maintenance file is not. VIPs and sysctls are set beforehand.
func (t *Topology) rival(i int) Host {
	a := t.Sizes.lb4Addr(i)
	return Host{
		Name: fmt.Sprintf("LB4-%d", i), Role: RoleLB4,
		Address: a, Address6: twin(a),
		Links:    []Link{{Device: "eth0", Segment: segmentInfra, Addresses: on(a, infraPrefix)}},
		Loopback: single(t.VIPs),
		Routes:   t.home(),
		Sysctls:  slices.Concat(plain, spread, forwarding, rivalSysctls),
		Directories: []string{
			"/etc/lb", "/run/lb", "/var/lib/lb", "/etc/keepalived", "/run/keepalived", "/etc/exabgp", "/run/exabgp",
		},
		Processes: []Process{
			{Name: "keepalived", Argv: []string{
				"keepalived", "--dont-fork", "--log-console", "--check",
				"--pid=/run/lb/keepalived.pid", "--checkers_pid=/run/lb/checkers.pid", "--use-file=/etc/keepalived/keepalived.conf",
			}},
			{Name: "exabgp", Argv: []string{"exabgp", "--env", "/etc/exabgp/exabgp.env", "/etc/exabgp/exabgp.conf"}},
		},
	}
}

// balancers are the processes of an LB4 host, in the order of their start.
func (t *Topology) balancers() []string {
	if t.Balancer == Keepalived {
		return []string{"keepalived", "exabgp"}
	}
	return []string{"lb4d"}
}

// member is the address by which an LB4 host knows an LB7 host, for a VIP of
// the same family.
func (h *Host) member(vip netip.Addr) netip.Addr {
	if vip.Is6() {
		return h.Address6
	}
	return h.Address
}
