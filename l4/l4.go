// Package l4 keeps the kernel's IPVS table equal to a wanted one, and knows
// where the kernel will send a flow.
//
// Diff is pure: it turns (listed, wanted) into operations. Kernel lists the
// table and applies operations through generic netlink. A caller does the
// three in turn, as often as it likes: what is already as wanted causes no
// write, so a restart, a second pass or a hand-made change need no special
// care.
//
// Hosts that have the same destinations must send a flow to the same one. In
// the kernel that depends on the order of a service's destination list and on
// weights of the past, so Diff brings both into one canonical state on every
// host, whatever happened before. Maglev computes the kernel's table from a
// listed service: where a flow goes and why, what a change would move, and a
// fingerprint by which hosts can be compared.
package l4

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
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

// Key names a virtual service: by address, port and protocol, or by a firewall
// mark.
type Key struct {
	VIP      netip.Addr
	Port     uint16
	Protocol Protocol
	// FWMark, where it is not 0, makes the service take every packet that
	// bears the mark, whatever its address and port. VIP is then the
	// unspecified address of the family whose packets are meant, and Port and
	// Protocol are 0, as MarkKey has it.
	FWMark uint32
}

// MarkKey names the service of a firewall mark in one address family.
func MarkKey(mark uint32, ipv6 bool) Key {
	if ipv6 {
		return Key{VIP: netip.IPv6Unspecified(), FWMark: mark}
	}
	return Key{VIP: netip.IPv4Unspecified(), FWMark: mark}
}

// String is 198.51.100.1:80/tcp or [2001:db8::1]:80/tcp, and fwmark 7 or
// fwmark 7 IPv6 for the service of a mark.
func (k Key) String() string {
	switch {
	case k.FWMark != 0 && k.VIP.Is6():
		return fmt.Sprintf("fwmark %d IPv6", k.FWMark)
	case k.FWMark != 0:
		return fmt.Sprintf("fwmark %d", k.FWMark)
	}
	return netip.AddrPortFrom(k.VIP, k.Port).String() + "/" + k.Protocol.String()
}

// Service is one IPVS virtual service with its destinations.
type Service struct {
	Key
	Scheduler string
	Flags     Flags
	// Destinations are in the kernel's list order when listed. Wanted ones
	// may be in any order: Diff puts them into the canonical one.
	Destinations []Destination
	// Received is what the kernel has counted; listed services only.
	Received Received
}

// Received is what the kernel has counted of the packets to a service, since it
// was added.
type Received struct {
	// Flows are those that IPVS has scheduled.
	Flows uint64
	// Packets and Bytes are all that it has forwarded.
	Packets, Bytes uint64
}

// Add is the sum of both.
func (r Received) Add(o Received) Received {
	return Received{r.Flows + o.Flows, r.Packets + o.Packets, r.Bytes + o.Bytes}
}

// ReceivedAge is how old what Received says may be. IPVS counts on each
// processor by itself and adds that up every two seconds for whoever asks
// (ip_vs_est.c, estimation_timer; ip_vs_ctl.c, ip_vs_copy_stats), and not at all
// where net.ipv4.vs.run_estimation is 0.
const ReceivedAge = 2 * time.Second

// UnknownWeight is the FullWeight of a listed destination of which the kernel
// does not tell which slots it has.
const UnknownWeight = -1

// Destination is one real server, reached through a tunnel.
type Destination struct {
	Addr netip.Addr
	Port uint16 // 0 in a service of a firewall mark: the packet's own
	// Weight as it is, or should be now; 0: no new flows.
	Weight int
	// FullWeight is the weight by which the destination has its slots in the
	// Maglev table, which it keeps while Weight is 0 (ip_vs_mh.c, last_weight):
	// the weight that it has when it is up. 0: it has none, so that the table
	// is the same as if it were not there. While Weight is not 0 the slots
	// follow that, whatever FullWeight says.
	//
	// In a listed destination it is Weight where that is not 0, else what was
	// noted when Weight became 0 (note.go), else UnknownWeight. In a
	// wanted one, UnknownWeight leaves the slots as they are.
	FullWeight int
	// Encapsulation is how packets travel to the destination. One that is
	// wanted has one; None is only ever listed.
	Encapsulation Encapsulation
	// GUEPort is the UDP port that GUE packets are sent to; 0 for all other
	// encapsulations.
	GUEPort uint16
	// Checksummed tells that the outer headers of GUE or GRE carry checksums
	// (ipvsadm --tun-csum, --tun-remcsum), which are never wanted here.
	// Listed destinations only.
	Checksummed bool
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

// slotWeight is the weight by which the destination has slots;
// UnknownWeight where that is not known.
func (d Destination) slotWeight() int {
	if d.Weight != 0 {
		return d.Weight
	}
	return d.FullWeight
}

// Table is a list of virtual services.
type Table []Service
