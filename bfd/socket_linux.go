package bfd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	portOneHop   = 3784 // RFC 5881 section 4
	portMultihop = 4784 // RFC 5883 section 5
	// The source ports of RFC 5881 section 4.
	firstSource = 49152
	sourceTries = 16
	// classControl is DSCP CS6, network control, as a TOS byte: on an uplink
	// full of users' traffic the session must live.
	classControl = 0xc0
	ttl          = 255
	// readPause passes after an error of a socket that packets arrive at. It is
	// as long as the shortest interval between packets.
	readPause = 10 * time.Millisecond
)

// listening is where packets of peers of one kind arrive.
type listening struct {
	port int
	is6  bool
}

func (p Peer) listening() listening {
	if p.Multihop {
		return listening{portMultihop, p.Address.Is6()}
	}
	return listening{portOneHop, p.Address.Is6()}
}

// listen opens a port where it is not open yet. It is called with mu held.
func (m *Monitor) listen(on listening) error {
	if m.listeners[on] != nil {
		return nil
	}
	network, level, option := "udp4", unix.IPPROTO_IP, unix.IP_RECVTTL
	if on.is6 {
		network, level, option = "udp6", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error { return unix.SetsockoptInt(fd, level, option, 1) })
	}}
	conn, err := config.ListenPacket(context.Background(), network, fmt.Sprintf(":%d", on.port))
	if err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("listening on UDP port %d: %w; another BFD daemon has it", on.port, unix.EADDRINUSE)
		}
		return fmt.Errorf("listening on UDP port %d: %w", on.port, socketError(err))
	}
	m.listeners[on] = conn.(*net.UDPConn)
	go m.read(on, m.listeners[on])
	return nil
}

// read hands on what arrives at a port, until it is closed.
func (m *Monitor) read(on listening, conn *net.UDPConn) {
	body, oob := make([]byte, 256), make([]byte, 128)
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(body, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Of one packet, most likely; one that lasts must not take the
			// processor.
			time.Sleep(readPause)
			continue
		}
		hops, ok := hopLimit(oob[:oobn])
		if !ok {
			continue
		}
		if p, err := parse(body[:n]); err == nil {
			m.dispatch(on, from.Addr().Unmap(), hops, p)
		}
	}
}

// hopLimit is the TTL that a packet arrived with.
func hopLimit(oob []byte) (hops int, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, msg := range messages {
		h := msg.Header
		if (h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL || h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT) && len(msg.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(msg.Data)), true
		}
	}
	return 0, false
}

// dial opens the socket that the packets to a peer leave from: with a source
// port of its own, and a TTL that lets the peer tell how far they have come.
func dial(p Peer) (*net.UDPConn, error) {
	network, level, hops, class := "udp4", unix.IPPROTO_IP, unix.IP_TTL, unix.IP_TOS
	if p.Address.Is6() {
		network, level, hops, class = "udp6", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS
	}
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd int) error {
			return errors.Join(unix.SetsockoptInt(fd, level, hops, ttl), unix.SetsockoptInt(fd, level, class, classControl))
		})
	}}
	source := p.Source
	if !source.IsValid() {
		source = netip.IPv4Unspecified()
		if p.Address.Is6() {
			source = netip.IPv6Unspecified()
		}
	}
	var err error
	for range sourceTries {
		port := firstSource + rand.IntN(65536-firstSource)
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, uint16(port)))
		var conn net.Conn
		if conn, err = d.Dial(network, netip.AddrPortFrom(p.Address, uint16(p.listening().port)).String()); err == nil {
			return conn.(*net.UDPConn), nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return nil, err
}

// refused tells the answer of a peer whose BFD is not there, which comes with
// the packet after the one that met it.
func refused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// socketError is an error of the network without the addresses that package net
// puts before it: the peer is named next to it.
func socketError(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// control runs f on a socket.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
