// Package tunnel keeps what the host itself must have so that IPVS can do its
// work on an LB4: each VIP as a local address (IPVS takes packets in the
// LOCAL_IN hook, so the kernel must believe that they are for it), and the
// sysctls that IPVS depends on.
//
// Both are kept in the same manner: list what is there, compare, write what
// differs. They are not undone when the process ends, because the host has to go
// on forwarding what still arrives.
//
// For checks that go to a VIP through the tunnel, ProbePath finds out what the
// host needs besides. That serves nobody once the checks end, so the caller notes
// what it has set, and gives it to RestoreSysctls.
//
// # What a VIP on the host means
//
// The VIPs are on a dummy device of their own, Device, so that they are easily
// told from addresses that somebody else set, and no address of that device is
// anything else. A VIP that is on another device as well is left alone there.
//
// The host itself never speaks from a VIP of its own accord: an IPv4 VIP has
// scope host, and an IPv6 VIP is deprecated (RFC 6724 section 5, rule 3), so
// that both come last when the kernel chooses a source address. Without that, a
// host whose uplink has no global IPv6 address may choose a VIP.
//
// Linux answers an ARP request for any of its IPv4 addresses on any device, so
// for VIPs on the uplink too. Routers never ask: their next hop is the host's
// own address. It matters only where a VIP lies inside a subnet that the uplink
// is in: neighbours there reach the VIP by ARP instead of BGP, also while it is
// withdrawn. Those who do not want that set net.ipv4.conf.DEVICE.arp_ignore to 3
// on the uplink, which silences addresses of scope host and no others. It is
// not set here, because only the operator knows whether such neighbours have
// another way. IPv6 has no such case: a neighbour solicitation is answered for
// addresses of the device that it comes in on, and no others.
//
// On an LB7 it is set, since there nobody may find a VIP but through the LB4
// hosts; and arp_announce with it, or the router that an answer goes to would be
// asked for its address in the name of the VIP, and learn from the question.
//
// # What an LB7 decapsulates
//
// A device of its own, named lb-KIND-DIGEST, for each kind of inner packet and
// each address that is sent to, or each LB4 host that may send:
//
//	ipip     IPv4 in IPv4: ipip; IPv6 in IPv4: sit
//	ip6ip6   both in IPv6: ip6tnl of mode any
//	gue      a UDP port that takes the outer header off, and the devices above
//	gre      both in IPv4: gre; both in IPv6: ip6gre
//
// The kernel's own devices that take in from and to any address (tunl0, sit0 and
// the like) are left alone, and so are those that others made.
//
// So that nobody has to make fragments, or to say that a packet is too large, the
// routes of the main table get an advmss that leaves room for the outer header:
// it is the MSS in an answer to a user's SYN.
package tunnel

import (
	"fmt"
	"net/netip"
	"slices"
)

// Device is the dummy device that holds the VIPs.
const Device = "lb-vips"

// AddressOp is one change to the addresses of Device.
type AddressOp struct {
	Addr   netip.Addr
	Remove bool // or add
}

// String is "add address 198.51.100.1/32 to lb-vips" or "remove address
// 2001:db8::1/128 from lb-vips".
func (o AddressOp) String() string {
	prefix := netip.PrefixFrom(o.Addr, o.Addr.BitLen())
	if o.Remove {
		return fmt.Sprintf("remove address %s from %s", prefix, Device)
	}
	return fmt.Sprintf("add address %s to %s", prefix, Device)
}

// DiffAddresses returns the operations that turn the listed addresses into the
// wanted ones, additions before removals. An address may be wanted by several
// services, hence be named more than once.
func DiffAddresses(listed, wanted []netip.Addr) []AddressOp {
	have := make(map[netip.Addr]bool, len(listed))
	for _, a := range listed {
		have[a] = true
	}
	var ops []AddressOp
	for _, a := range wanted {
		if !have[a] {
			have[a] = true
			ops = append(ops, AddressOp{Addr: a})
		}
	}
	for _, a := range listed {
		if !slices.Contains(wanted, a) {
			ops = append(ops, AddressOp{Addr: a, Remove: true})
		}
	}
	return ops
}
