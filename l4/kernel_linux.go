package l4

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cloudflare/ipvs"
	"github.com/cloudflare/ipvs/netmask"
	"golang.org/x/sys/unix"
)

// Kernel is the IPVS table of one network namespace: the one that the calling
// thread was in when Open made it. It is meant for one goroutine.
type Kernel struct {
	client ipvs.Client
	close  func() error
}

// Open connects to IPVS. The kernel loads its module by itself where it has
// one (the generic netlink family has a module alias), and likewise the module
// of a scheduler when a service first names it; so the caller needs
// CAP_NET_ADMIN, and no right to load modules.
//
// The sysctls under net.ipv4.vs exist once Open has succeeded.
func Open() (*Kernel, error) {
	client, err := ipvs.New()
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf(`opening IPVS: this kernel has no IPVS; load it with "modprobe ip_vs", or boot a kernel that has it: %w`, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening IPVS: %w", explain(err))
	}
	k := &Kernel{client: client}
	// The library's Client does not have Close, its implementation does.
	if c, ok := client.(interface{ Close() error }); ok {
		k.close = c.Close
	}
	// Looking up the family is allowed to everybody. This is not.
	if _, err := client.Info(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening IPVS: %w", explain(err)), k.Close())
	}
	return k, nil
}

// Close closes the netlink socket. The table stays as it is, and goes on
// forwarding.
func (k *Kernel) Close() error {
	if k.close == nil {
		return nil
	}
	if err := k.close(); err != nil {
		return fmt.Errorf("closing IPVS: %w", err)
	}
	return nil
}

// List returns every TCP and UDP service of the network namespace, whoever made
// it, with its destinations in the kernel's list order. Services of a firewall
// mark and of other protocols are left out, so that nobody takes them for
// something to delete.
func (k *Kernel) List() (Table, error) {
	table, err := list(k.client)
	if err != nil {
		return nil, fmt.Errorf("listing IPVS: %w", err)
	}
	return table, nil
}

// Apply applies the operations in order and returns how many were. One that
// fails does not keep the others from being tried, except that nothing can be
// done to a service that could not be added, and that nothing at all can be
// done without permission. The error joins one line for each of the first
// failures, and counts the others.
//
// Deleting what is gone is no failure, because then things are as wanted.
func (k *Kernel) Apply(ops []Op) (applied int, err error) {
	var errs []error
	failed := 0
	missing := make(map[Key]bool)
	for _, op := range ops {
		if missing[op.service()] {
			continue
		}
		err := k.apply(op)
		if err == nil {
			applied++
			continue
		}
		if failed++; failed <= maxErrors {
			errs = append(errs, fmt.Errorf("applying %q: %w", op, explainOp(op, err)))
		}
		if errors.Is(err, os.ErrPermission) {
			break
		}
		if _, ok := op.(AddService); ok && !errors.Is(err, unix.EEXIST) {
			missing[op.service()] = true
		}
	}
	if failed > maxErrors {
		errs = append(errs, fmt.Errorf("and %d operations more that failed", failed-maxErrors))
	}
	return applied, errors.Join(errs...)
}

// maxErrors bounds how many failures Apply tells apart.
const maxErrors = 20

func (k *Kernel) apply(op Op) error {
	switch op := op.(type) {
	case AddService:
		return k.client.CreateService(service(op.Key, op.Scheduler, op.Flags))
	case EditService:
		return k.client.UpdateService(service(op.Key, op.Scheduler, op.Flags))
	case DeleteService:
		return unlessGone(k.client.RemoveService(service(op.Key, "", 0)))
	case AddDestination:
		return k.client.CreateDestination(service(op.Key, "", 0), destination(op.Destination))
	case EditDestination:
		return k.client.UpdateDestination(service(op.Key, "", 0), destination(op.Destination))
	case DeleteDestination:
		return unlessGone(k.client.RemoveDestination(service(op.Key, "", 0), destination(
			Destination{Addr: op.Destination.Addr(), Port: op.Destination.Port()})))
	}
	return fmt.Errorf("unknown operation %T", op)
}

// unlessGone takes the errors with which the kernel says that there is no such
// service (ESRCH) or destination (ENOENT) for a success.
func unlessGone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// explainOp adds to an errno what it means for the operation (ip_vs_ctl.c,
// ip_vs_genl_set_cmd and what it calls).
func explainOp(op Op, err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("it is there already; does another program write to IPVS? %w", err)
	case errors.Is(err, unix.ESRCH):
		return fmt.Errorf("the service is gone; does another program write to IPVS? %w", err)
	case errors.Is(err, unix.ENOENT):
		scheduler := ""
		switch op := op.(type) {
		case AddService:
			scheduler = op.Scheduler
		case EditService:
			scheduler = op.Scheduler
		default:
			return fmt.Errorf("the destination is gone; does another program write to IPVS? %w", err)
		}
		return fmt.Errorf(`this kernel has no scheduler %s; load it with "modprobe ip_vs_%s": %w`, scheduler, scheduler, err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("this kernel has no IPv6, or none in IPVS: %w", err)
	case errors.Is(err, unix.EINVAL):
		if _, ok := op.(AddDestination); ok {
			return fmt.Errorf("the kernel wants a unicast address, and no sync daemon where it is of another family than the VIP: %w", err)
		}
	}
	return explain(err)
}

// explain adds to EPERM what is missing.
func explain(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("not permitted; run as root, or with CAP_NET_ADMIN of the host (that of a container's user namespace does not count): %w", err)
	}
	return err
}

// service is a service as the library wants it. Scheduler and flags only
// matter to an addition and an edit.
func service(key Key, scheduler string, flags Flags) ipvs.Service {
	// Where a service is not persistent the mask is of no use, but without
	// one the kernel refuses an IPv6 service, and ipvsadm shows an odd
	// IPv4 one.
	bits := key.VIP.BitLen()
	return ipvs.Service{
		Address:   key.VIP,
		Port:      key.Port,
		Protocol:  ipvs.Protocol(key.Protocol),
		Family:    family(key.VIP.Is4()),
		Netmask:   netmask.MaskFrom(bits, bits),
		Scheduler: scheduler,
		Flags:     ipvs.Flags(flags &^ hashed),
	}
}

// destination is a destination as the library wants it. Its family is its own:
// it may differ from the VIP's where it is reached through a tunnel.
func destination(d Destination) ipvs.Destination {
	method := ipvs.Masquerade
	if d.Tunnel {
		method = ipvs.Tunnel
	}
	return ipvs.Destination{
		Address:    d.Addr,
		Port:       d.Port,
		Family:     family(d.Addr.Is4()),
		FwdMethod:  method,
		TunnelType: ipvs.IPIP,
		Weight:     uint32(d.Weight),
	}
}

func family(is4 bool) ipvs.AddressFamily {
	if is4 {
		return ipvs.INET
	}
	return ipvs.INET6
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
func list(l lister) (Table, error) {
	for range listAttempts {
		table, err := listOnce(l)
		if !errors.Is(err, errChanging) {
			return table, err
		}
	}
	return nil, fmt.Errorf("%w, %d times; does another program write to IPVS?", errChanging, listAttempts)
}

func listOnce(l lister) (Table, error) {
	before, err := listServices(l)
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
	after, err := listServices(l)
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

// listServices lists the TCP and UDP services, without destinations.
func listServices(l lister) (Table, error) {
	services, err := l.Services()
	// The library says so when there are none. It does not wrap anything, and
	// errors.Is would match an ENOENT of the kernel too.
	if err != nil && err != os.ErrNotExist {
		return nil, explain(err)
	}
	var table Table
	seen := make(map[Key]bool, len(services))
	for _, s := range services {
		protocol := Protocol(s.Protocol)
		if s.FWMark != 0 || (s.Protocol != ipvs.TCP && s.Protocol != ipvs.UDP) {
			continue
		}
		key := Key{VIP: s.Address, Port: s.Port, Protocol: protocol}
		if seen[key] {
			return nil, errChanging
		}
		seen[key] = true
		table = append(table, Service{Key: key, Scheduler: s.Scheduler, Flags: Flags(s.Flags) &^ hashed})
	}
	return table, nil
}

// listDestinations lists the destinations of one service in list order. Of a
// service that is gone the kernel lists none.
func listDestinations(l lister, key Key) ([]Destination, error) {
	listed, err := l.Destinations(service(key, "", 0))
	if err != nil && err != os.ErrNotExist {
		return nil, explain(err)
	}
	var destinations []Destination
	for _, d := range listed {
		destination := Destination{
			Addr:          d.Address,
			Port:          d.Port,
			Weight:        int(d.Weight),
			Tunnel:        d.FwdMethod == ipvs.Tunnel && d.TunnelType == ipvs.IPIP,
			Limited:       d.UpperThreshold != 0 || d.LowerThreshold != 0,
			ActiveConns:   int(d.ActiveConnections),
			InactiveConns: int(d.InactiveConnections),
		}
		if slices.ContainsFunc(destinations, func(o Destination) bool { return o.AddrPort() == destination.AddrPort() }) {
			return nil, errChanging
		}
		destinations = append(destinations, destination)
	}
	return destinations, nil
}
