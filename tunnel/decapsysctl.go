package tunnel

import "strings"

func confKey6(device, key string) string {
	return strings.Replace(confKey(device, key), "net.ipv4.", "net.ipv6.", 1)
}

// underlaySysctls are what a device that hears ARP still needs so that it
// neither answers nor asks in the name of a VIP, given the present values of its
// keys and of those of "all". IPv6 needs nothing of the kind: a neighbour
// solicitation is answered for, and sent from, addresses of the device itself
// (ndisc.c, ndisc_recv_ns and ndisc_solicit).
func underlaySysctls(device string, present map[string]string) []Sysctl {
	var needed []Sysctl
	// The greater of the two values is in force (IN_DEV_MAXCONF). 1 and 2
	// answer for addresses of the device itself, 8 for none; a VIP has scope
	// host, for which 3 does not answer. 0 and the reserved values answer for
	// all.
	key := confKey(device, "arp_ignore")
	switch max(present[key], present[confKey("all", "arp_ignore")]) {
	case "1", "2", "3", "8":
	default:
		needed = append(needed, Sysctl{
			Key: key, Value: "3",
			Why: "a neighbour that asks for a VIP is not answered: its packets come through the LB4 hosts",
		})
	}
	// arp.c, arp_solicit. 1 would still name a VIP that lies in a subnet of
	// the device.
	key = confKey(device, "arp_announce")
	if max(present[key], present[confKey("all", "arp_announce")]) != "2" {
		needed = append(needed, Sysctl{
			Key: key, Value: "2",
			Why: "a router that gets an answer from a VIP is asked for its address in this host's own name, or it would learn that the VIP is here",
		})
	}
	return needed
}

// tunnelSysctls are what a tunnel device still needs.
func tunnelSysctls(device string, present map[string]string) []Sysctl {
	var needed []Sysctl
	// As in probeSysctls: 2 on the device loosens a strict "all" for it alone.
	key := confKey(device, keyRPFilter)
	if max(present[key], present[confKey("all", keyRPFilter)]) == "1" {
		needed = append(needed, Sysctl{
			Key: key, Value: "2",
			Why: "users' packets come out of the tunnel, and the way back to them is another",
		})
	}
	for _, s := range []Sysctl{
		// What is not for a VIP is dropped, on a host that is a router too.
		// IPv6 has no such setting for a device.
		{Key: confKey(device, "forwarding"), Value: "0", Why: "what comes out of a tunnel is for a VIP, or for nobody"},
		// 1 is IN6_ADDR_GEN_MODE_NONE (if_link.h).
		{Key: confKey6(device, "addr_gen_mode"), Value: "1", Why: "it needs no address that the kernel makes up"},
		{Key: confKey6(device, "accept_ra"), Value: "0", Why: "no router is behind a tunnel"},
		{Key: confKey6(device, "accept_redirects"), Value: "0", Why: "no router is behind a tunnel"},
	} {
		if now, ok := present[s.Key]; ok && now != s.Value {
			needed = append(needed, s)
		}
	}
	return needed
}

// decapKeys are the keys that the two look at.
func decapKeys(underlay, tunnels []string) []Sysctl {
	keys := []Sysctl{
		{Key: confKey("all", "arp_ignore")}, {Key: confKey("all", "arp_announce")}, {Key: confKey("all", keyRPFilter)},
	}
	for _, d := range underlay {
		keys = append(keys, Sysctl{Key: confKey(d, "arp_ignore")}, Sysctl{Key: confKey(d, "arp_announce")})
	}
	for _, d := range tunnels {
		keys = append(keys, Sysctl{Key: confKey(d, keyRPFilter)}, Sysctl{Key: confKey(d, "forwarding")},
			Sysctl{Key: confKey6(d, "addr_gen_mode")}, Sysctl{Key: confKey6(d, "accept_ra")}, Sysctl{Key: confKey6(d, "accept_redirects")})
	}
	return keys
}
