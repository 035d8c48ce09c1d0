package bgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialTimeout bounds one call. A SYN that is lost is sent again after 1 s,
	// and that second one must be able to succeed.
	dialTimeout = 2 * time.Second
	// defaultPort is BGP's, RFC 4271 section 4.2.
	defaultPort = 179
	// classControl is DSCP CS6, network control (RFC 4594 section 3.1), as a
	// TOS byte: on an uplink full of users' traffic the session must live.
	classControl = 0xc0
)

// dial calls a peer. The TTL is right from the first packet on.
func dial(ctx context.Context, p Peer, external bool) (*net.TCPConn, error) {
	port := p.Port
	if port == 0 {
		port = defaultPort
	}
	d := net.Dialer{
		Timeout:   dialTimeout,
		KeepAlive: -1, // BGP has its own
		Control: func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error {
				if err := setClass(fd, p.Address); err != nil {
					return err
				}
				if err := setHops(fd, p, external); err != nil {
					return err
				}
				if p.Password == "" {
					return nil
				}
				return setPassword(fd, p.Address, p.Password)
			})
		},
	}
	// The MD5 option is unknown to MPTCP sockets.
	d.SetMultipathTCP(false)
	if p.Source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.Source, 0))
	}
	conn, err := d.DialContext(ctx, network(p.Address), netip.AddrPortFrom(p.Address, uint16(port)).String())
	if err != nil {
		return nil, dialError(err, p.Password != "")
	}
	return conn.(*net.TCPConn), nil
}

// dialError says why a call failed, in words that need no knowledge of
// sockets. The kernel drops what is signed with another key, or not at all, so
// a wrong password cannot be told from a peer that is gone.
func dialError(err error, password bool) error {
	var timeout net.Error
	var option *optionError
	if errors.As(err, &option) {
		return option // not of the call: of what this kernel can do
	}
	if errors.As(err, &timeout) && timeout.Timeout() {
		if password {
			return fmt.Errorf("no answer within %s (a wrong password looks the same)", dialTimeout)
		}
		return fmt.Errorf("no answer within %s", dialTimeout)
	}
	return errors.New(socketError(err))
}

// listen opens a port on every local address, one socket for each family,
// because MD5 keys of IPv4 peers have no effect on a socket for both. A host
// without IPv6 has one socket.
func listen(port int) ([]*net.TCPListener, error) {
	var listeners []*net.TCPListener
	for _, local := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		config := net.ListenConfig{
			KeepAlive: -1,
			Control: func(_, _ string, raw syscall.RawConn) error {
				// What it accepts inherits the class, and another TTL when it
				// is known whose it is. Until then a peer with TTL security
				// must be able to take the answer to its call.
				return control(raw, func(fd int) error {
					if err := setClass(fd, local); err != nil {
						return err
					}
					return setHops(fd, Peer{Address: local, TTLSecurity: true, Multihop: 255}, false)
				})
			},
		}
		config.SetMultipathTCP(false)
		l, err := config.Listen(context.Background(), network(local), fmt.Sprintf(":%d", port))
		if err == nil {
			listeners = append(listeners, l.(*net.TCPListener))
			continue
		}
		if local.Is6() && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			continue
		}
		for _, l := range listeners {
			_ = l.Close()
		}
		return nil, listenError(port, err)
	}
	return listeners, nil
}

// listenError says what to do about a port that cannot be opened.
func listenError(port int, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("listening on BGP port %d: %w", port, err)
	}
	switch errno {
	case unix.EADDRINUSE:
		return fmt.Errorf("listening on BGP port %d: %w; stop the other BGP daemon or set listen_port = 0", port, errno)
	case unix.EACCES:
		return fmt.Errorf("listening on BGP port %d: %w; grant CAP_NET_BIND_SERVICE or set listen_port = 0", port, errno)
	}
	return fmt.Errorf("listening on BGP port %d: %w", port, errno)
}

// setListenPassword sets the key that connections from a peer must be signed
// with. An empty one removes it.
func setListenPassword(l *net.TCPListener, peer netip.Addr, password string) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error { return setPassword(fd, peer, password) })
}

// setPassword sets the TCP MD5 key for packets from and to a peer.
func setPassword(fd int, peer netip.Addr, password string) error {
	sig := unix.TCPMD5Sig{Keylen: uint16(len(password))}
	copy(sig.Key[:], password)
	if peer.Is4() {
		sig.Addr.Family = unix.AF_INET
		address := peer.As4()
		copy(sig.Addr.Data[2:], address[:]) // after the port
	} else {
		sig.Addr.Family = unix.AF_INET6
		address := peer.As16()
		copy(sig.Addr.Data[6:], address[:]) // after the port and the flow label
	}
	err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig)
	if err != nil && (password != "" || !errors.Is(err, unix.ENOENT)) {
		return &optionError{"setting the TCP MD5 key", err}
	}
	return nil
}

// setClass sets the class of packets to a peer.
func setClass(fd int, peer netip.Addr) error {
	level, class := unix.IPPROTO_IP, unix.IP_TOS
	if peer.Is6() {
		level, class = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	if err := unix.SetsockoptInt(fd, level, class, classControl); err != nil {
		return &optionError{"setting the traffic class", err}
	}
	return nil
}

// setHops sets how far packets to a peer go, and from how far those from it may
// come.
func setHops(fd int, p Peer, external bool) error {
	level, to, from := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_MINTTL
	if p.Address.Is6() {
		level, to, from = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_MINHOPCOUNT
	}
	ttl, least := p.hops(external)
	if err := unix.SetsockoptInt(fd, level, to, ttl); err != nil {
		return &optionError{"setting the TTL", err}
	}
	if err := unix.SetsockoptInt(fd, level, from, least); err != nil {
		return &optionError{"setting the least TTL", err}
	}
	return nil
}

// optionError is a socket option that the kernel refused.
type optionError struct {
	doing string
	err   error
}

func (e *optionError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *optionError) Unwrap() error { return e.err }

// network is package net's name for TCP over an address's family alone.
func network(a netip.Addr) string {
	if a.Is4() {
		return "tcp4"
	}
	return "tcp6"
}

// control runs f on a socket.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
