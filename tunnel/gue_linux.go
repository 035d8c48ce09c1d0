package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The generic netlink family of UDP encapsulations (include/uapi/linux/fou.h).
// Its number is asked for at each use, since it changes when the module is
// loaded again.
const (
	fouFamily               = "fou"
	fouVersion              = 1
	fouAdd, fouDel, fouGet  = 1, 2, 3
	fouPort, fouAF, fouType = 1, 2, 4
	fouEncapGUE             = 2
)

// errNoFOU tells that the kernel has no UDP encapsulations.
var errNoFOU = errors.New(`this kernel has no GUE; load it with "modprobe fou"`)

// openPort is a port of any UDP encapsulation.
type openPort struct {
	gueListener
	gue bool
}

// fouCall sends one request and returns the answers.
func fouCall(command uint8, flags netlink.HeaderFlags, encode func(*netlink.AttributeEncoder)) ([]genetlink.Message, error) {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("opening generic netlink: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(netlinkTimeout)); err != nil {
		return nil, err
	}
	family, err := c.GetFamily(fouFamily)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("%w: %w", errNoFOU, err)
	}
	if err != nil {
		return nil, err
	}
	attributes := netlink.NewAttributeEncoder()
	attributes.ByteOrder = binary.BigEndian // ports are
	if encode != nil {
		encode(attributes)
	}
	data, err := attributes.Encode()
	if err != nil {
		return nil, err
	}
	message := genetlink.Message{Header: genetlink.Header{Command: command, Version: fouVersion}, Data: data}
	return c.Execute(message, family.ID, netlink.Request|flags)
}

// listPorts lists the ports of all UDP encapsulations.
func listPorts() ([]openPort, error) {
	messages, err := fouCall(fouGet, netlink.Dump, nil)
	if err != nil {
		return nil, err
	}
	var ports []openPort
	for _, m := range messages {
		d, err := netlink.NewAttributeDecoder(m.Data)
		if err != nil {
			return nil, err
		}
		d.ByteOrder = binary.BigEndian
		var p openPort
		for d.Next() {
			switch d.Type() {
			case fouPort:
				p.Port = d.Uint16()
			case fouAF:
				p.IPv6 = d.Uint8() == unix.AF_INET6
			case fouType:
				p.gue = d.Uint8() == fouEncapGUE
			}
		}
		if err := d.Err(); err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func (g gueListener) encode(a *netlink.AttributeEncoder) {
	a.Uint16(fouPort, g.Port)
	family := uint8(unix.AF_INET)
	if g.IPv6 {
		family = unix.AF_INET6
	}
	a.Uint8(fouAF, family)
}

// open has the kernel take UDP packets to the port for GUE.
func (g gueListener) open() error {
	_, err := fouCall(fouAdd, netlink.Acknowledge, func(a *netlink.AttributeEncoder) {
		g.encode(a)
		a.Uint8(fouType, fouEncapGUE)
	})
	return err
}

// close undoes open.
func (g gueListener) close() error {
	_, err := fouCall(fouDel, netlink.Acknowledge, g.encode)
	return err
}
