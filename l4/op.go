package l4

import (
	"fmt"
	"net/netip"
	"strings"
)

// Op is one change of the IPVS table. It is one of AddService, EditService,
// DeleteService, AddDestination, EditDestination and DeleteDestination, each
// of which is one message to the kernel.
type Op interface {
	// String tells what the operation does, in the words of ipvsadm.
	String() string
	// service is the virtual service that the operation belongs to.
	service() Key
}

// AddService creates a virtual service without destinations.
type AddService struct {
	Key
	Scheduler string
	Flags     Flags
}

// EditService sets scheduler and flags of a service that exists. Its
// destinations and their flows stay.
type EditService struct {
	Key
	Scheduler string
	Flags     Flags
	// Was is what the kernel had; only Scheduler and Flags are of interest.
	Was Service
}

// DeleteService removes a service with all its destinations. Flows in
// progress lose their destination.
type DeleteService struct {
	Key
}

// AddDestination adds a destination to a service that exists. The kernel puts
// it at the head of the service's list.
type AddDestination struct {
	Key
	Destination Destination
}

// EditDestination sets weight and forwarding method of a destination that
// exists. It keeps its place in the list, and its flows.
type EditDestination struct {
	Key
	Destination Destination
	// Was is what the kernel had.
	Was Destination
}

// DeleteDestination removes a destination from a service.
type DeleteDestination struct {
	Key
	Destination netip.AddrPort
}

func (o AddService) service() Key        { return o.Key }
func (o EditService) service() Key       { return o.Key }
func (o DeleteService) service() Key     { return o.Key }
func (o AddDestination) service() Key    { return o.Key }
func (o EditDestination) service() Key   { return o.Key }
func (o DeleteDestination) service() Key { return o.Key }

// String is like
// "add service 198.51.100.1:80/tcp scheduler mh flags mh-fallback,mh-port".
func (o AddService) String() string {
	return fmt.Sprintf("add service %s %s", o.Key, scheduling(o.Scheduler, o.Flags))
}

// String is like
// "edit service 198.51.100.1:80/tcp scheduler mh flags mh-port (was scheduler wlc)".
func (o EditService) String() string {
	return fmt.Sprintf("edit service %s %s (was %s)",
		o.Key, scheduling(o.Scheduler, o.Flags), scheduling(o.Was.Scheduler, o.Was.Flags))
}

// String is like "delete service 198.51.100.1:80/tcp".
func (o DeleteService) String() string {
	return fmt.Sprintf("delete service %s", o.Key)
}

// String is like
// "add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 tunnel".
func (o AddDestination) String() string {
	return fmt.Sprintf("add destination %s -> %s %s",
		o.Key, o.Destination.AddrPort(), o.Destination.settings())
}

// String is like
// "edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 tunnel (was weight 1 tunnel)".
func (o EditDestination) String() string {
	return fmt.Sprintf("edit destination %s -> %s %s (was %s)",
		o.Key, o.Destination.AddrPort(), o.Destination.settings(), o.Was.settings())
}

// String is like
// "delete destination 198.51.100.1:80/tcp -> 192.0.2.139:80".
func (o DeleteDestination) String() string {
	return fmt.Sprintf("delete destination %s -> %s", o.Key, o.Destination)
}

// scheduling is what an edit of a service can change, in words.
func scheduling(scheduler string, flags Flags) string {
	words := "scheduler " + scheduler
	if flags &^= hashed; flags != 0 {
		words += " flags " + flags.String()
	}
	return words
}

// settings are what an edit can change, in words.
func (d Destination) settings() string {
	words := []string{fmt.Sprintf("weight %d", d.Weight)}
	if d.Tunnel {
		words = append(words, "tunnel")
	} else {
		words = append(words, "no ipip tunnel")
	}
	if d.Limited {
		words = append(words, "limited")
	}
	return strings.Join(words, " ")
}
