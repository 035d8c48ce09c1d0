package tunnel

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Mode is a way in which LB4 hosts encapsulate.
type Mode string

// The modes. Each carries VIPs of both families.
const (
	// IPIP is IPv4 outside: IPv4 in IPv4 (RFC 2003), IPv6 in IPv4 (RFC 4213).
	IPIP Mode = "ipip"
	// IP6IP6 is IPv6 outside (RFC 2473).
	IP6IP6 Mode = "ip6ip6"
	// GUE is Generic UDP Encapsulation (draft-ietf-intarea-gue), of the outer
	// family that the host has addresses of.
	GUE Mode = "gue"
	// GRE is Generic Routing Encapsulation (RFC 2784), likewise.
	GRE Mode = "gre"
)

// Modes are all modes.
func Modes() []Mode { return []Mode{IPIP, IP6IP6, GUE, GRE} }

// DefaultGUEPort is the UDP port that IANA has assigned to GUE.
const DefaultGUEPort = 6080

// maxTunnels bounds the devices: the kernel goes through those without a source
// one by one for each packet.
const maxTunnels = 256

// Decapsulation is what an LB7 host takes out of which tunnels.
type Decapsulation struct {
	VIPs  []netip.Addr
	Modes []Mode
	// Local are the addresses that the LB4 hosts send to. Where there are none,
	// they are all addresses of the host that others can reach, without VIPs
	// and temporary ones (RFC 8981).
	Local []netip.Addr
	// Sources are the addresses that the LB4 hosts send from. What others send
	// is not decapsulated. Where there are none, it is from anybody: then
	// whoever reaches this host can send packets to the VIPs with a forged
	// source, past the filters of the routers.
	Sources []netip.Addr
	// GUEPort is the UDP port of GUE; DefaultGUEPort where it is 0.
	GUEPort uint16
	// MTU is the largest packet that the network between the LB4 hosts and this
	// one carries, in bytes, outer header included. Where it is 0, it is the
	// smallest one of the devices on the way.
	MTU int
	// KeepRoutes leaves the advmss of routes alone, for hosts where HAProxy's
	// "mss" or the routing daemon limits segments.
	KeepRoutes bool
}

// Validate tells what is wrong, all of it, one line each.
func (d Decapsulation) Validate() error {
	var errs []error
	for _, m := range d.Modes {
		if !slices.Contains(Modes(), m) {
			errs = append(errs, fmt.Errorf("mode %q is none of ipip, ip6ip6, gue, gre", m))
		}
	}
	if len(d.Modes) == 0 && len(d.VIPs) > 0 {
		errs = append(errs, errors.New("no mode is named: say which of ipip, ip6ip6, gue, gre the LB4 hosts send"))
	}
	for _, list := range []struct {
		name      string
		addresses []netip.Addr
	}{{"VIP", d.VIPs}, {"local address", d.Local}, {"source", d.Sources}} {
		for _, a := range list.addresses {
			if !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" {
				errs = append(errs, fmt.Errorf("%s %s is not the address of a host that others can reach", list.name, a))
			}
			if list.name != "VIP" && slices.Contains(d.VIPs, a) {
				errs = append(errs, fmt.Errorf("%s %s is a VIP: the outer header has the hosts' own addresses", list.name, a))
			}
		}
	}
	if d.MTU != 0 && (d.MTU < 576 || d.MTU > 65535) {
		errs = append(errs, fmt.Errorf("mtu %d is not between 576 and 65535 bytes", d.MTU))
	}
	return errors.Join(errs...)
}

// kind is a sort of tunnel device.
type kind string

const (
	kindIPIP kind = "ipip" // IPv4 in IPv4
	kindSIT  kind = "sit"  // IPv6 in IPv4
	kindTNL6 kind = "tnl6" // both in IPv6
	kindGRE  kind = "gre"  // both in GRE in IPv4
	kindGRE6 kind = "gre6" // both in GRE in IPv6
)

// kinds has, for each, what the kernel calls the devices, and the module that
// makes them.
var kinds = map[kind]struct{ link, module string }{
	kindIPIP: {"ipip", "ipip"},
	kindSIT:  {"sit", "sit"},
	kindTNL6: {"ip6tnl", "ip6_tunnel"},
	kindGRE:  {"gre", "ip_gre"},
	kindGRE6: {"ip6gre", "ip6_gre"},
}

// endpoint is one device: what it decapsulates. Either address may be
// unspecified, which is any, but not both: the kernel has one such device of
// each kind already (tunl0 and the like).
type endpoint struct {
	kind          kind
	local, remote netip.Addr
}

// devicePrefix begins the names of all devices that are made here.
const devicePrefix = "lb-"

// name is lb-ipip-abcdefg: the kind and a digest of the addresses, since a
// device's name holds 15 characters.
func (e endpoint) name() string {
	sum := sha256.Sum256([]byte(e.local.String() + " " + e.remote.String()))
	return devicePrefix + string(e.kind) + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:7]
}

// String is "lb-ipip-abcdefg (ipip, local 192.0.2.139, remote any)".
func (e endpoint) String() string {
	word := func(a netip.Addr) string {
		if a.IsUnspecified() {
			return "any"
		}
		return a.String()
	}
	return fmt.Sprintf("%s (%s, local %s, remote %s)", e.name(), kinds[e.kind].link, word(e.local), word(e.remote))
}

// ours tells whether a name is one that name gives.
func ours(device string) bool {
	for k := range kinds {
		if digest, ok := strings.CutPrefix(device, devicePrefix+string(k)+"-"); ok && len(digest) == 7 {
			return true
		}
	}
	return false
}

// gueListener is a port on which UDP packets are taken for GUE.
type gueListener struct {
	IPv6 bool
	Port uint16
}

// String is "GUE port 6080 (IPv4)".
func (g gueListener) String() string {
	family := "IPv4"
	if g.IPv6 {
		family = "IPv6"
	}
	return fmt.Sprintf("GUE port %d (%s)", g.Port, family)
}

// desired is the state that a Decapsulation means on a given host.
type desired struct {
	vips      []netip.Addr
	endpoints []endpoint
	// anchor is an IPv4 address that each device gets which IPv4 packets come
	// out of; invalid where there is no IPv4 VIP. See Decapsulator.anchor.
	anchor    netip.Addr
	listeners []gueListener
	// mss4 and mss6 are the largest segments that users may send to a VIP; 0
	// where there is no VIP of the family.
	mss4, mss6 int
}

// The room that each encapsulation takes, in bytes: the outer header and what
// follows it. IPVS adds no option to any of them (ip_vs_xmit.c).
const (
	overIPv4, overIPv6 = 20, 40
	overGUE, overGRE   = 8 + 4, 4
	// A TCP segment with its headers, without options (RFC 9293, section
	// 3.7.1).
	overTCP4, overTCP6 = 40, 60
)

// want works the state out, given the host's addresses and the MTU of its
// underlay. The error joins what cannot be had; the rest of the state is good.
func (d Decapsulation) want(local []netip.Addr, mtu int) (desired, error) {
	w := desired{vips: slices.Clone(d.VIPs)}
	slices.SortFunc(w.vips, netip.Addr.Compare)
	w.vips = slices.Compact(w.vips)
	vip4 := slices.ContainsFunc(w.vips, netip.Addr.Is4)
	vip6 := slices.ContainsFunc(w.vips, netip.Addr.Is6)
	if len(w.vips) == 0 {
		return w, nil
	}
	if vip4 {
		w.anchor = w.vips[0] // IPv4 comes first
	}
	var errs []error
	port := d.GUEPort
	if port == 0 {
		port = DefaultGUEPort
	}
	overhead := 0
	outer4, outer6 := d.pairs(local, false), d.pairs(local, true)
	for _, m := range d.Modes {
		if m != IP6IP6 && len(outer4) > 0 {
			extra := 0
			switch {
			case m == GRE:
				w.add(outer4, kindGRE)
				extra = overGRE
			default:
				if vip4 {
					w.add(outer4, kindIPIP)
				}
				if vip6 {
					w.add(outer4, kindSIT)
				}
			}
			if m == GUE {
				w.listeners = append(w.listeners, gueListener{Port: port})
				extra = overGUE
			}
			overhead = max(overhead, overIPv4+extra)
		}
		if m != IPIP && len(outer6) > 0 {
			extra := 0
			switch m {
			case GRE:
				w.add(outer6, kindGRE6)
				extra = overGRE
			case GUE:
				w.listeners = append(w.listeners, gueListener{IPv6: true, Port: port})
				extra = overGUE
			}
			if m != GRE {
				w.add(outer6, kindTNL6)
			}
			overhead = max(overhead, overIPv6+extra)
		}
		if m == IPIP && len(outer4) == 0 || m == IP6IP6 && len(outer6) == 0 || len(outer4)+len(outer6) == 0 {
			errs = append(errs, fmt.Errorf("mode %s: this host and the sources have no address in common of the family that it is sent to; give the host one, name it in local, or take the mode out", m))
		}
	}
	if len(w.endpoints) > maxTunnels {
		errs = append(errs, fmt.Errorf("it takes %d tunnel devices, and at most %d are made: name fewer addresses in local, or leave sources out and filter before this host", len(w.endpoints), maxTunnels))
		w.endpoints = w.endpoints[:maxTunnels]
	}
	if vip4 && overhead > 0 {
		w.mss4 = mtu - overhead - overTCP4
	}
	if vip6 && overhead > 0 {
		w.mss6 = mtu - overhead - overTCP6
	}
	// RFC 9293, section 3.7.1, and RFC 8200, section 5. Less is no network.
	const least4, least6 = 536, 1220
	if vip4 && overhead > 0 && w.mss4 < least4 || vip6 && overhead > 0 && w.mss6 < least6 {
		errs = append(errs, fmt.Errorf("an underlay of %d bytes leaves %d to a tunnel, and %s needs more; raise the underlay's MTU", mtu, mtu-overhead,
			map[bool]string{true: "IPv6", false: "IPv4"}[vip6]))
		w.mss4, w.mss6 = 0, 0
	}
	return w, errors.Join(errs...)
}

// pairs are the addresses of the outer headers of a family.
func (d Decapsulation) pairs(local []netip.Addr, ipv6 bool) [][2]netip.Addr {
	anyone := netip.IPv4Unspecified()
	if ipv6 {
		anyone = netip.IPv6Unspecified()
	}
	of := func(list []netip.Addr) []netip.Addr {
		list = slices.Clone(list)
		list = slices.DeleteFunc(list, func(a netip.Addr) bool { return a.Is6() != ipv6 || slices.Contains(d.VIPs, a) })
		slices.SortFunc(list, netip.Addr.Compare)
		return slices.Compact(list)
	}
	locals, remotes := of(local), of(d.Sources)
	if len(d.Local) > 0 {
		locals = of(d.Local)
	}
	if len(locals) == 0 || len(d.Sources) > 0 && len(remotes) == 0 {
		return nil
	}
	if len(d.Sources) == 0 {
		remotes = []netip.Addr{anyone}
	} else if len(d.Local) == 0 {
		// The source says it all, and one device for it serves every address.
		locals = []netip.Addr{anyone}
	}
	var all [][2]netip.Addr
	for _, l := range locals {
		for _, r := range remotes {
			all = append(all, [2]netip.Addr{l, r})
		}
	}
	return all
}

func (w *desired) add(pairs [][2]netip.Addr, k kind) {
	for _, p := range pairs {
		e := endpoint{kind: k, local: p[0], remote: p[1]}
		if !slices.Contains(w.endpoints, e) {
			w.endpoints = append(w.endpoints, e)
		}
	}
}

// foundTunnel is a device that has a name of ours.
type foundTunnel struct {
	name string
	// endpoint is what it decapsulates; the zero value where it is of another
	// sort than its name says, or has parameters that are not ours.
	endpoint endpoint
	up       bool
}

// tunnelOp is one change to the tunnel devices.
type tunnelOp struct {
	do       tunnelVerb
	name     string
	endpoint endpoint // of add
}

type tunnelVerb string

const (
	removeTunnel tunnelVerb = "remove"
	addTunnel    tunnelVerb = "add"
	raiseTunnel  tunnelVerb = "set up"
)

// String is "add device lb-ipip-abcdefg (ipip, local 192.0.2.139, remote any)".
func (o tunnelOp) String() string {
	if o.do == addTunnel {
		return fmt.Sprintf("add device %s", o.endpoint)
	}
	return fmt.Sprintf("%s device %s", o.do, o.name)
}

// diffTunnels returns the operations that turn the listed devices into the
// wanted ones: removals first, since no two devices may decapsulate the same;
// and those that set a device up last, after its sysctls.
func diffTunnels(listed []foundTunnel, wanted []endpoint) []tunnelOp {
	var remove, add, raise []tunnelOp
	have := make(map[endpoint]bool)
	for _, f := range listed {
		if !slices.Contains(wanted, f.endpoint) || f.name != f.endpoint.name() {
			remove = append(remove, tunnelOp{do: removeTunnel, name: f.name})
			continue
		}
		have[f.endpoint] = true
		if !f.up {
			raise = append(raise, tunnelOp{do: raiseTunnel, name: f.name})
		}
	}
	for _, e := range wanted {
		if !have[e] {
			add = append(add, tunnelOp{do: addTunnel, name: e.name(), endpoint: e})
			raise = append(raise, tunnelOp{do: raiseTunnel, name: e.name()})
		}
	}
	return slices.Concat(remove, add, raise)
}
