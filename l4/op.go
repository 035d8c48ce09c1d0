package l4

import (
	"fmt"
	"net/netip"
	"strings"
)

// Op is one change of the IPVS table. It is one of AddService, EditService,
// DeleteService, AddDestination, EditDestination, MoveDestination and
// DeleteDestination.
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
//
// One that is wanted at weight 0 is added at its FullWeight, if it has one,
// and set to 0 in the same breath: added at weight 0 it would have no slots in
// the Maglev table (ip_vs_mh.c, last_weight), and everybody else's would
// differ from those on a host that saw it up before.
type AddDestination struct {
	Key
	Destination Destination
}

// EditDestination sets weight and encapsulation of a destination that exists.
// It keeps its place in the list, and its flows.
//
// One that is wanted at weight 0 with other slots than it has is set to its
// FullWeight first. New flows that arrive between the two messages may go to
// it.
type EditDestination struct {
	Key
	Destination Destination
	// Was is what the kernel had.
	Was Destination
}

// MoveDestination moves a destination that exists to the head of its service's
// list, or takes its slots away: there is no other way than to delete it and
// to add it again, and the kernel then revives its flows. See Kernel.Apply on
// what that takes.
type MoveDestination struct {
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
func (o MoveDestination) service() Key   { return o.Key }
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
// "add destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 1 ipip".
func (o AddDestination) String() string {
	return fmt.Sprintf("add destination %s -> %s %s",
		o.Key, o.Destination.AddrPort(), o.Destination.settings())
}

// String is like
// "edit destination 198.51.100.1:80/tcp -> 192.0.2.139:80 weight 0 of 1 ipip (was weight 1 ipip)".
func (o EditDestination) String() string {
	return fmt.Sprintf("edit destination %s -> %s %s (was %s)",
		o.Key, o.Destination.AddrPort(), o.Destination.settings(), o.Was.settings())
}

// String is like
// "move destination 198.51.100.1:80/tcp -> 192.0.2.139:80 to the head, weight 1 ipip".
func (o MoveDestination) String() string {
	was := ""
	if settings := o.Was.settings(); settings != o.Destination.settings() {
		was = " (was " + settings + ")"
	}
	return fmt.Sprintf("move destination %s -> %s to the head, %s%s",
		o.Key, o.Destination.AddrPort(), o.Destination.settings(), was)
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

// settings are what an edit can change, in words: weight 1 ipip; weight 0 of 1
// ipip where it has slots for weight 1.
func (d Destination) settings() string {
	words := []string{fmt.Sprintf("weight %d", d.Weight)}
	switch {
	case d.Weight != 0:
	case d.FullWeight == UnknownWeight:
		words = append(words, "of ?")
	default:
		words = append(words, fmt.Sprintf("of %d", d.FullWeight))
	}
	if d.Encapsulation == None {
		words = append(words, "no tunnel")
	} else {
		words = append(words, d.Encapsulation.String())
	}
	if d.GUEPort != 0 {
		words = append(words, fmt.Sprintf("port %d", d.GUEPort))
	}
	if d.Checksummed {
		words = append(words, "checksummed")
	}
	if d.Limited {
		words = append(words, "limited")
	}
	return strings.Join(words, " ")
}
