package l4

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/cloudflare/ipvs"
)

// List returns every TCP and UDP service of the network namespace, whoever made
// it, with its destinations in the kernel's list order. Services of a firewall
// mark and of other protocols are left out, so that nobody takes them for
// something to delete.
func (k *Kernel) List() (Table, error) {
	table, err := list(k.lister, func(key Key) bool { return key.FWMark == 0 })
	if err != nil {
		return nil, fmt.Errorf("listing IPVS: %w", err)
	}
	return table, nil
}

// ListVIPs returns the TCP and UDP services on the VIPs that are ours. Other
// tools' services cost a line of the dump and nothing more, however many they
// are and however often they change.
func (k *Kernel) ListVIPs(ours func(netip.Addr) bool) (Table, error) {
	table, err := list(k.lister, func(key Key) bool { return key.FWMark == 0 && ours(key.VIP) })
	if err != nil {
		return nil, fmt.Errorf("listing IPVS: %w", err)
	}
	return table, nil
}

// ListMarks returns the services of the firewall marks from first to last,
// which the caller has for its own, in both address families.
func (k *Kernel) ListMarks(first, last uint32) (Table, error) {
	table, err := list(k.lister, func(key Key) bool {
		return key.FWMark != 0 && first <= key.FWMark && key.FWMark <= last
	})
	if err != nil {
		return nil, fmt.Errorf("listing IPVS services of firewall marks: %w", err)
	}
	return table, nil
}

// lister is the part of ipvs.Client that list needs; a test replaces it with
// one whose table changes while it is listed.
type lister interface {
	Services() ([]ipvs.ServiceExtended, error)
	Destinations(ipvs.Service) ([]ipvs.DestinationExtended, error)
}

// listAttempts bounds how often list starts again.
const listAttempts = 5

var errChanging = errors.New("the table changed while it was read")

// list reads the whole table. The kernel answers a dump in pieces and resumes
// each by counting entries (ip_vs_genl_dump_services), without the mark
// NLM_F_DUMP_INTR that would tell of a change in between. So a dump that another
// program's writes run into may lack an entry or have one twice. list reads the
// services once more after the destinations and begins anew where they differ.
func list(l lister, wanted func(Key) bool) (Table, error) {
	for range listAttempts {
		table, err := listOnce(l, wanted)
		if !errors.Is(err, errChanging) {
			return table, err
		}
	}
	return nil, fmt.Errorf("%w, %d times; does another program write to IPVS?", errChanging, listAttempts)
}

func listOnce(l lister, wanted func(Key) bool) (Table, error) {
	before, err := listServices(l, wanted)
	if err != nil {
		return nil, err
	}
	table := make(Table, len(before))
	for i, s := range before {
		table[i] = s
		if table[i].Destinations, err = listDestinations(l, s.Key); err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Key, err)
		}
	}
	after, err := listServices(l, wanted)
	if err != nil {
		return nil, err
	}
	same := slices.EqualFunc(before, after, func(a, b Service) bool {
		return a.Key == b.Key && a.Scheduler == b.Scheduler && a.Flags == b.Flags
	})
	if !same {
		return nil, errChanging
	}
	return table, nil
}

// listServices lists the wanted ones of all services that have a Key, without
// destinations.
func listServices(l lister, wanted func(Key) bool) (Table, error) {
	services, err := l.Services()
	// The library says so when there are none. It does not wrap anything, and
	// errors.Is would match an ENOENT of the kernel too.
	if err != nil && err != os.ErrNotExist { //nolint:errorlint // see listServices
		return nil, explain(err)
	}
	var table Table
	seen := make(map[Key]bool, len(services))
	for _, s := range services {
		var key Key
		switch {
		case s.FWMark != 0:
			key = MarkKey(s.FWMark, s.Family == ipvs.INET6)
		case s.Protocol == ipvs.TCP, s.Protocol == ipvs.UDP:
			key = Key{VIP: s.Address, Port: s.Port, Protocol: Protocol(s.Protocol)}
		default:
			continue
		}
		if !wanted(key) {
			continue
		}
		if seen[key] {
			return nil, errChanging
		}
		seen[key] = true
		table = append(table, Service{Key: key, Scheduler: s.Scheduler, Flags: Flags(s.Flags) &^ hashed, Received: received(s)})
	}
	return table, nil
}

// listDestinations lists the destinations of one service in list order. Of a
// service that is gone the kernel lists none.
func listDestinations(l lister, key Key) ([]Destination, error) {
	listed, err := l.Destinations(service(key))
	if err != nil && err != os.ErrNotExist { //nolint:errorlint // see listServices
		return nil, explain(err)
	}
	var destinations []Destination
	seen := make(map[netip.AddrPort]bool, len(listed))
	for _, l := range listed {
		d := destination(l)
		if seen[d.AddrPort()] {
			return nil, errChanging
		}
		seen[d.AddrPort()] = true
		destinations = append(destinations, d)
	}
	return destinations, nil
}

// destination is a listed destination in our words.
func destination(l ipvs.DestinationExtended) Destination {
	d := Destination{
		Addr:          l.Address,
		Port:          l.Port,
		Weight:        int(l.Weight),
		FullWeight:    int(l.Weight),
		ActiveConns:   int(l.ActiveConnections),
		InactiveConns: int(l.InactiveConnections),
	}
	noted := false
	if d.Weight == 0 {
		d.FullWeight, noted = readNote(l.UpperThreshold, l.LowerThreshold)
	}
	d.Limited = !noted && (l.UpperThreshold != 0 || l.LowerThreshold != 0)
	if l.FwdMethod != ipvs.Tunnel {
		return d
	}
	switch l.TunnelType {
	case ipvs.IPIP:
		d.Encapsulation = IPIP
	case ipvs.GUE:
		d.Encapsulation, d.GUEPort = GUE, l.TunnelPort
	case ipvs.GRE:
		d.Encapsulation = GRE
	}
	d.Checksummed = d.Encapsulation != IPIP && l.TunnelFlags != ipvs.TunnelEncapNoChecksum
	return d
}

// service names a service in the library's words.
func service(key Key) ipvs.Service {
	s := ipvs.Service{Family: family(key.VIP.Is4()), FWMark: key.FWMark}
	if key.FWMark == 0 {
		s.Address, s.Port, s.Protocol = key.VIP, key.Port, ipvs.Protocol(key.Protocol)
	}
	return s
}

func family(is4 bool) ipvs.AddressFamily {
	if is4 {
		return ipvs.INET
	}
	return ipvs.INET6
}
