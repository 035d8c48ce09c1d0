// Package l4 keeps the kernel's IPVS table equal to a wanted one.
//
// Diff is pure: it turns (listed, wanted) into operations. Kernel lists the
// table and applies operations through generic netlink. A caller does the
// three in turn, as often as it likes: what is already as wanted causes no
// write, so a restart, a second pass or a hand-made change need no special
// care.
package l4

import (
	"fmt"
	"net/netip"
	"strings"
)

// Protocol is a transport protocol that IPVS schedules.
type Protocol uint8

// The protocols, with their IP protocol numbers.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String is tcp or udp.
func (p Protocol) String() string {
	if p == UDP {
		return "udp"
	}
	return "tcp"
}

// Flags are a service's scheduler flags, as in ip_vs.h of the kernel's uapi.
type Flags uint32

const (
	// Persistent (IP_VS_SVC_F_PERSISTENT): a client's flows stay together.
	// Never wanted here; a service that somebody else made may have it.
	Persistent Flags = 0x01
	// OnePacket (IP_VS_SVC_F_ONEPACKET): each datagram is scheduled anew.
	OnePacket Flags = 0x04
	// MHFallback (IP_VS_SVC_F_SCHED_MH_FALLBACK): flows on the slots of a
	// destination of weight 0 are hashed again instead of being refused.
	MHFallback Flags = 0x08
	// MHPort (IP_VS_SVC_F_SCHED_MH_PORT): the source port takes part in the
	// hash.
	MHPort Flags = 0x10
)

// hashed (IP_VS_SVC_F_HASHED) is the kernel's own mark on every service that
// it has in its table. Nobody sets it, so it is no difference.
const hashed Flags = 0x02

// flagNames are the flags with a name, in the order in which String lists
// them.
var flagNames = []struct {
	flag Flags
	name string
}{
	{MHFallback, "mh-fallback"},
	{MHPort, "mh-port"},
	{Persistent, "persistent"},
	{OnePacket, "ops"},
}

// String lists the flags as ipvsadm names them, and what has no name as a
// number.
func (f Flags) String() string {
	var names []string
	for _, n := range flagNames {
		if f&n.flag != 0 {
			names = append(names, n.name)
			f &^= n.flag
		}
	}
	if f != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(f)))
	}
	return strings.Join(names, ",")
}

// Key names a virtual service.
type Key struct {
	VIP      netip.Addr
	Port     uint16
	Protocol Protocol
}

// String is 198.51.100.1:80/tcp or [2001:db8::1]:80/tcp.
func (k Key) String() string {
	return netip.AddrPortFrom(k.VIP, k.Port).String() + "/" + k.Protocol.String()
}

// Service is one IPVS virtual service with its destinations.
type Service struct {
	Key
	Scheduler string
	Flags     Flags
	// Destinations are in the kernel's list order when listed; when wanted,
	// in the order in which they should be listed.
	Destinations []Destination
}

// Destination is one real server, reached through an IPIP tunnel (ip6ip6
// where its address is IPv6).
type Destination struct {
	Addr netip.Addr
	Port uint16
	// Weight as it is, or should be now; 0: no new flows.
	Weight int
	// FullWeight is the weight that the destination has when it is up. Only
	// wanted destinations have it: one that must be added while Weight is 0
	// is added at FullWeight and then set to 0, because in the kernel a
	// destination added at weight 0 has no slots in the Maglev table
	// (ip_vs_mh.c, last_weight).
	FullWeight int
	// Tunnel tells that the destination is reached by IPIP encapsulation (a
	// listed GUE or GRE tunnel does not count). Wanted destinations always
	// have it.
	Tunnel bool
	// Limited tells that connection limits are set (ipvsadm -x, -y). Listed
	// destinations only: a limit makes the kernel pass over a destination
	// that the others' tables still name, so none is ever wanted.
	Limited bool
	// ActiveConns and InactiveConns are the kernel's counts; listed
	// destinations only.
	ActiveConns, InactiveConns int
}

// AddrPort names the destination within its service.
func (d Destination) AddrPort() netip.AddrPort { return netip.AddrPortFrom(d.Addr, d.Port) }

// Table is a list of virtual services.
type Table []Service
