// Package l4 keeps the kernel's IPVS table equal to a wanted one.
//
// Diff is pure: it turns (listed, wanted) into operations. Kernel lists the
// table and applies operations through generic netlink.
package l4

import (
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
	// MHFallback (IP_VS_SVC_F_SCHED_MH_FALLBACK): flows on the slots of a
	// destination of weight 0 are hashed again instead of being refused.
	MHFallback Flags = 0x08
	// MHPort (IP_VS_SVC_F_SCHED_MH_PORT): the source port takes part in the
	// hash.
	MHPort Flags = 0x10
)

// String lists the flags as ipvsadm names them.
func (f Flags) String() string {
	var names []string
	if f&MHFallback != 0 {
		names = append(names, "mh-fallback")
	}
	if f&MHPort != 0 {
		names = append(names, "mh-port")
	}
	return strings.Join(names, ",")
}

// Key names a virtual service.
type Key struct {
	VIP      netip.Addr
	Port     uint16
	Protocol Protocol
}

// String is VIP:port/protocol.
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
	// Tunnel tells that the destination is reached by encapsulation. Wanted
	// destinations always have it.
	Tunnel bool
	// ActiveConns and InactiveConns are the kernel's counts; listed
	// destinations only.
	ActiveConns, InactiveConns int
}

// Table is a list of virtual services.
type Table []Service
