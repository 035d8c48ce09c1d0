package l4

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Commands and attributes of the kernel's generic netlink family IPVS
// (include/uapi/linux/ip_vs.h).
const (
	cmdNewService = 1
	cmdSetService = 2
	cmdDelService = 3
	cmdNewDest    = 5
	cmdSetDest    = 6
	cmdDelDest    = 7

	attrService = 1
	attrDest    = 2

	serviceAF        = 1
	serviceProtocol  = 2
	serviceAddr      = 3
	servicePort      = 4
	serviceFWMark    = 5
	serviceScheduler = 6
	serviceFlags     = 7
	serviceTimeout   = 8
	serviceNetmask   = 9

	destAddr           = 1
	destPort           = 2
	destForward        = 3
	destWeight         = 4
	destUpperThreshold = 5
	destLowerThreshold = 6
	destFamily         = 11
	destTunnelType     = 13
	destTunnelPort     = 14
	destTunnelFlags    = 15

	forwardTunnel = 2 // IP_VS_CONN_F_TUNNEL
)

// tunnelTypes are the kernel's numbers for the encapsulations
// (IP_VS_CONN_F_TUNNEL_TYPE_*).
var tunnelTypes = map[Encapsulation]uint8{IPIP: 0, GUE: 1, GRE: 2}

// genlVersion is IPVS_GENL_VERSION.
const genlVersion = 1

// messages are what has to be sent to carry out an operation.
func messages(op Op) ([]netlink.Message, error) {
	var e encoder
	switch op := op.(type) {
	case AddService:
		e.service(cmdNewService, op.Key, op.Scheduler, op.Flags)
	case EditService:
		e.service(cmdSetService, op.Key, op.Scheduler, op.Flags)
	case DeleteService:
		e.message(cmdDelService, op.Key, nil)
	case AddDestination:
		e.addition(op.Key, op.Destination)
	case EditDestination:
		d := op.Destination
		switch {
		case d.Weight != 0:
		case d.FullWeight <= 0:
			// It keeps the slots that it has: an edit takes none away.
			d.FullWeight = op.Was.slotWeight()
		case !sameSlots(op.Was, d):
			e.destination(cmdSetDest, op.Key, d, d.FullWeight)
		}
		e.destination(cmdSetDest, op.Key, d, d.Weight)
	case MoveDestination:
		d := op.Destination
		if d.FullWeight == UnknownWeight {
			d.FullWeight = max(0, op.Was.slotWeight())
		}
		e.deletion(op.Key, d.AddrPort())
		e.addition(op.Key, d)
	case DeleteDestination:
		e.deletion(op.Key, op.Destination)
	default:
		return nil, fmt.Errorf("unknown operation %T", op)
	}
	return e.messages, e.err
}

// encoder collects the messages of an operation, and the first error.
type encoder struct {
	messages []netlink.Message
	err      error
}

func (e *encoder) addition(key Key, d Destination) {
	if d.Weight == 0 && d.FullWeight > 0 {
		e.destination(cmdNewDest, key, d, d.FullWeight)
		e.destination(cmdSetDest, key, d, 0)
		return
	}
	if d.Weight == 0 {
		d.FullWeight = 0
	}
	e.destination(cmdNewDest, key, d, d.Weight)
}

func (e *encoder) deletion(key Key, d netip.AddrPort) {
	e.message(cmdDelDest, key, func(ae *netlink.AttributeEncoder) error {
		name(ae, d)
		return nil
	})
}

// destination encodes an addition or an edit of a destination, with the given
// weight instead of its own.
func (e *encoder) destination(cmd byte, key Key, d Destination, weight int) {
	if d.Encapsulation == None {
		e.err = fmt.Errorf("destination %s has no encapsulation", d.AddrPort())
		return
	}
	var upper, lower uint32
	if weight == 0 {
		upper, lower = note(d.FullWeight)
	}
	e.message(cmd, key, func(ae *netlink.AttributeEncoder) error {
		name(ae, d.AddrPort())
		ae.Uint32(destForward, forwardTunnel)
		ae.Uint32(destWeight, uint32(weight))
		ae.Uint32(destUpperThreshold, upper)
		ae.Uint32(destLowerThreshold, lower)
		ae.Uint8(destTunnelType, tunnelTypes[d.Encapsulation])
		ae.Bytes(destTunnelPort, binary.BigEndian.AppendUint16(nil, d.GUEPort))
		ae.Uint16(destTunnelFlags, 0)
		return nil
	})
}

// name encodes what a destination is known by. Its family is its own: it may
// differ from the VIP's.
func name(ae *netlink.AttributeEncoder, d netip.AddrPort) {
	ae.Uint16(destFamily, addressFamily(d.Addr()))
	ae.Bytes(destAddr, d.Addr().AsSlice())
	ae.Bytes(destPort, binary.BigEndian.AppendUint16(nil, d.Port()))
}

// service encodes an addition or an edit of a service.
func (e *encoder) service(cmd byte, key Key, scheduler string, flags Flags) {
	e.encode(cmd, func(ae *netlink.AttributeEncoder) error {
		identify(ae, key)
		ae.String(serviceScheduler, scheduler)
		// The flags and a mask of those that are meant.
		b := binary.NativeEndian.AppendUint32(nil, uint32(flags&^hashed))
		ae.Bytes(serviceFlags, binary.NativeEndian.AppendUint32(b, ^uint32(0)))
		ae.Uint32(serviceTimeout, 0)
		// Where a service is not persistent the mask is of no use, but
		// without one the kernel refuses an IPv6 service, and ipvsadm shows
		// an odd IPv4 one.
		if key.VIP.Is6() {
			ae.Uint32(serviceNetmask, 128)
		} else {
			ae.Uint32(serviceNetmask, ^uint32(0))
		}
		return nil
	}, nil)
}

// message encodes a message on a service that exists, or on one of its
// destinations.
func (e *encoder) message(cmd byte, key Key, dest func(*netlink.AttributeEncoder) error) {
	e.encode(cmd, func(ae *netlink.AttributeEncoder) error {
		identify(ae, key)
		return nil
	}, dest)
}

func (e *encoder) encode(cmd byte, service, dest func(*netlink.AttributeEncoder) error) {
	ae := netlink.NewAttributeEncoder()
	ae.Nested(attrService, service)
	if dest != nil {
		ae.Nested(attrDest, dest)
	}
	b, err := ae.Encode()
	if err != nil {
		if e.err == nil {
			e.err = fmt.Errorf("encoding attributes: %w", err)
		}
		return
	}
	e.messages = append(e.messages, netlink.Message{Data: append([]byte{cmd, genlVersion, 0, 0}, b...)})
}

// identify encodes what a service is known by.
func identify(ae *netlink.AttributeEncoder, key Key) {
	ae.Uint16(serviceAF, addressFamily(key.VIP))
	if key.FWMark != 0 {
		ae.Uint32(serviceFWMark, key.FWMark)
		return
	}
	ae.Uint16(serviceProtocol, uint16(key.Protocol))
	ae.Bytes(serviceAddr, key.VIP.AsSlice())
	ae.Bytes(servicePort, binary.BigEndian.AppendUint16(nil, key.Port))
}

func addressFamily(addr netip.Addr) uint16 {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
