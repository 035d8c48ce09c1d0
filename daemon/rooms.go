package daemon

import (
	"net/netip"

	"lb4d/bfd"
	"lb4d/bgp"
	"lb4d/health"
	"lb4d/l4"
	"lb4d/maintenance"
	"lb4d/tunnel"
)

// What the loop has of the rooms, as far as a test must replace it.

// checks are the health observer. A test replaces it, to set states.
type checks interface {
	Set(map[health.Target]health.Check)
	Statuses() map[health.Target]health.Status
	Close()
}

// file is the maintenance file. A test replaces it.
type file interface {
	State() maintenance.State
	Refresh()
	Close()
}

// table is the kernel's IPVS table. A test replaces it to fail on demand.
type table interface {
	ListVIPs(ours func(netip.Addr) bool) (l4.Table, error)
	ListMarks(first, last uint32) (l4.Table, error)
	Apply([]l4.Op) (int, error)
	Received(ours func(netip.Addr) bool) (map[netip.Addr]l4.Received, error)
}

// host holds the VIPs as local addresses, and knows the ways to the members. A
// test replaces it.
type host interface {
	Addresses() ([]netip.Addr, error)
	ApplyAddresses([]tunnel.AddressOp) (int, error)
	ProbePath([]tunnel.Probe) (tunnel.Path, error)
}

// sysctls are the kernel's settings. A test replaces them.
type sysctls interface {
	Read([]tunnel.Sysctl) (map[string]string, error)
	Apply([]tunnel.Sysctl) ([]tunnel.SysctlChange, error)
	Restore([]tunnel.SysctlChange) ([]tunnel.SysctlChange, error)
}

// procSysctls are those of this host.
type procSysctls struct{}

func (procSysctls) Read(s []tunnel.Sysctl) (map[string]string, error) { return tunnel.ReadSysctls(s) }

func (procSysctls) Apply(s []tunnel.Sysctl) ([]tunnel.SysctlChange, error) {
	return tunnel.ApplySysctls(s)
}

func (procSysctls) Restore(c []tunnel.SysctlChange) ([]tunnel.SysctlChange, error) {
	return tunnel.RestoreSysctls(c)
}

// routes is the set of announced routes. A test replaces it.
type routes interface {
	Set([]bgp.Route) error
	Routes() ([]bgp.Route, error)
}

// peers are the BGP sessions. A test replaces them.
type peers interface {
	SetPeers([]bgp.Peer) error
	Peers() []bgp.PeerStatus
}

// siblings are the other hosts that announce the VIPs. A test replaces them.
type siblings interface {
	Watch(vips []netip.Addr)
	Siblings() []bgp.Sibling
}

// ways are the ways to the peers, watched by BFD. A test replaces them.
type ways interface {
	SetPeers([]bfd.Peer) error
	Peers() []bfd.Status
	Close()
}
