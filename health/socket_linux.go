package health

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// setOptions prepares a socket that goes through the tunnel.
func (t *Through) setOptions(network string, fd int) error {
	type option struct {
		name              string
		level, opt, value int
	}
	options := []option{{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(t.Mark)}}
	datagram, four := network == "udp4" || network == "udp6", t.VIP.Is4()
	if !datagram {
		// The port is chosen by connect, which takes them in ascending
		// order, not by bind, which takes any. IPVS remembers a probe that
		// was not answered for a minute, whatever its mark, and must not
		// take another one for it.
		options = append(options, option{"IP_BIND_ADDRESS_NO_PORT", unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1})
	}
	switch {
	case datagram && four:
		options = append(options,
			option{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
			option{"IP_RECVERR", unix.IPPROTO_IP, unix.IP_RECVERR, 1})
	case datagram:
		options = append(options,
			option{"IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
			option{"IPV6_DONTFRAG", unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1},
			option{"IPV6_RECVERR", unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1})
	case four:
		// IPv6 has no other way.
		options = append(options, option{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return fmt.Errorf("setting %s to %d: %w", o.name, o.value, err)
		}
	}
	return nil
}

// withSocket calls f with the socket of a connection.
func withSocket(conn net.Conn, f func(fd int) error) error {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("connection of type %T has no socket", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// peerMSS is the MSS that the other side announced in its SYN, or 0. The kernel
// tells it only of a connection under repair, which takes CAP_NET_ADMIN (tcp(7),
// TCP_REPAIR); what it tells otherwise is limited by what it knows of the path.
func peerMSS(conn net.Conn) (mss int) {
	err := withSocket(conn, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON); err != nil {
			return err
		}
		told, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG)
		// Without a window probe, and whatever happened: a connection that
		// is closed under repair sends no reset.
		off := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
		mss = told
		return cmp.Or(err, off)
	})
	if err != nil {
		return 0
	}
	return mss
}

// optionsSize is what the options of TCP take of every segment with data: time
// stamps, where both sides have them (RFC 7323).
func optionsSize(conn net.Conn) (size int, err error) {
	const timestamps = 1 // TCPI_OPT_TIMESTAMPS
	return size, withSocket(conn, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil && info.Options&timestamps != 0 {
			size = 12
		}
		return err
	})
}

// pathHolds tells whether the kernel would send a packet of that size on this
// connection.
func pathHolds(conn net.Conn, size int) bool {
	level, opt := unix.IPPROTO_IP, unix.IP_MTU
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok && a.IP.To4() == nil {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	mtu := 0
	err := withSocket(conn, func(fd int) (err error) {
		mtu, err = unix.GetsockoptInt(fd, level, opt)
		return err
	})
	return err == nil && mtu >= size
}

// acknowledged tells whether all that was sent has been.
func acknowledged(conn net.Conn) bool {
	left := -1
	err := withSocket(conn, func(fd int) (err error) {
		left, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return err
	})
	return err == nil && left == 0
}

// roomLeft is the size that would have fit, as told by whoever called a datagram
// too large; 0 where there is no such word. It takes it from the error queue of
// the socket (ip(7), IP_RECVERR), since what the route knows may come from
// another target.
func roomLeft(conn net.Conn) (room int) {
	err := withSocket(conn, func(fd int) error {
		data, control := make([]byte, 1), make([]byte, 512)
		_, n, _, _, err := unix.Recvmsg(fd, data, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			four := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
			six := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
			// struct sock_extended_err: errno, origin, type, code, a
			// byte of nothing, info.
			if (four || six) && len(m.Data) >= 12 {
				room = int(binary.NativeEndian.Uint32(m.Data[8:]))
			}
		}
		return nil
	})
	if err != nil {
		return 0
	}
	return room
}
