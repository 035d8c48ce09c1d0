package bgp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
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

// An external session must not leave the connected network, and each is marked
// as control traffic.
func TestDialOptions(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct {
		external bool
		ttl      int
	}{{true, 1}, {false, 64}} {
		p := Peer{Address: netip.MustParseAddr("127.0.0.2"), Port: l.Addr().(*net.TCPAddr).Port}
		tcp, err := dial(context.Background(), p, test.external)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tcp.Close() }()
		raw, err := tcp.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := control(raw, func(fd int) error {
			ttl, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_IP, syscall.IP_TTL)
			if err != nil {
				return err
			}
			tos, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_IP, syscall.IP_TOS)
			if ttl != test.ttl || tos != classControl {
				t.Errorf("external %v: TTL %d, TOS %#x", test.external, ttl, tos)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}
