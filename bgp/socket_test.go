package bgp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenError(t *testing.T) {
	for _, test := range []struct {
		errno syscall.Errno
		want  string
	}{
		{syscall.EADDRINUSE, "listening on BGP port 179: address already in use; stop the other BGP daemon or set listen_port = 0"},
		{syscall.EACCES, "listening on BGP port 179: permission denied; grant CAP_NET_BIND_SERVICE or set listen_port = 0"},
		{syscall.EMFILE, "listening on BGP port 179: too many open files"},
	} {
		err := &net.OpError{Op: "listen", Net: "tcp4", Err: os.NewSyscallError("bind", test.errno)}
		if got := listenError(179, err); got.Error() != test.want || !errors.Is(got, test.errno) {
			t.Errorf("got %v, want %s", got, test.want)
		}
	}
}

func TestDialError(t *testing.T) {
	for _, test := range []struct {
		err      error
		password bool
		want     string
	}{
		{os.NewSyscallError("connect", syscall.ECONNREFUSED), true, "connection refused"},
		{os.NewSyscallError("connect", syscall.EHOSTUNREACH), false, "no route to host"},
		{os.ErrDeadlineExceeded, false, "no answer within 2s"},
		{os.ErrDeadlineExceeded, true, "no answer within 2s (a wrong password looks the same)"},
		{os.NewSyscallError("connect", syscall.ETIMEDOUT), false, "no answer within 2s"},
		{&optionError{"setting the TCP MD5 key", syscall.ENOPROTOOPT}, true, "setting the TCP MD5 key: protocol not available"},
	} {
		err := &net.OpError{Op: "dial", Net: "tcp4", Err: test.err}
		if got := dialError(err, test.password); got.Error() != test.want {
			t.Errorf("got %v, want %s", got, test.want)
		}
	}
}

// How far packets go is right from the first one on, and each is marked as
// control traffic.
func TestDialOptions(t *testing.T) {
	listeners, err := listen(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		defer l.Close()
	}
	for _, test := range []struct {
		name       string
		peer       Peer
		external   bool
		ttl, least int
	}{
		{"external", Peer{}, true, 1, 0},
		{"external, 3 hops", Peer{Multihop: 3}, true, 3, 0},
		{"internal", Peer{}, false, 64, 0},
		{"internal, 3 hops", Peer{Multihop: 3}, false, 64, 0},
		{"TTL security", Peer{TTLSecurity: true}, false, 255, 255},
		{"TTL security, 3 hops", Peer{TTLSecurity: true, Multihop: 3}, true, 255, 253},
	} {
		for i, address := range []string{"127.0.0.2", "::1"} {
			p := test.peer
			p.Address = netip.MustParseAddr(address)
			p.Port = listeners[i].Addr().(*net.TCPAddr).Port
			tcp, err := dial(context.Background(), p, test.external)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tcp.Close() }()
			if ttl, least, class := options(t, tcp); ttl != test.ttl || least != test.least || class != classControl {
				t.Errorf("%s, %s: TTL %d, least %d, class %#x", test.name, address, ttl, least, class)
			}
		}
	}
}

// options are the TTL, the least TTL and the class of a connection.
func options(t *testing.T, tcp *net.TCPConn) (ttl, least, class int) {
	t.Helper()
	level, names := unix.IPPROTO_IP, []int{unix.IP_TTL, unix.IP_MINTTL, unix.IP_TOS}
	if tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Is6() {
		level, names = unix.IPPROTO_IPV6, []int{unix.IPV6_UNICAST_HOPS, unix.IPV6_MINHOPCOUNT, unix.IPV6_TCLASS}
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var values [3]int
	if err := control(raw, func(fd int) error {
		for i, name := range names {
			if values[i], err = unix.GetsockoptInt(fd, level, name); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return values[0], values[1], values[2]
}
