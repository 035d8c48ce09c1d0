package health

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// quick and slow are the timeouts of the tests: slow where an answer must
// arrive on a busy machine, quick where waiting for the end is the point.
const (
	quick = 150 * time.Millisecond
	slow  = 10 * time.Second
)

// serve answers every connection to a local address with handle, until the
// test ends.
func serve(t *testing.T, address string, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func countingDial(read *atomic.Int64) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := direct(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return counting{conn.(*net.TCPConn), read}, nil
	}
}

func TestConnect(t *testing.T) {
	t.Run("accepted", func(t *testing.T) {
		at := serve(t, "127.0.0.1:0", func(c net.Conn) { io.Copy(io.Discard, c) })
		got := probe(t.Context(), direct, Target{Addr: at.Addr()}, Check{Port: at.Port(), Timeout: slow})
		if got.Verdict != Pass || masked(got.Words) != "connected in <latency>" {
			t.Errorf("got %+v, want a pass", got)
		}
	})
	t.Run("refused", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(l.Addr().String())
		l.Close()
		got := probe(t.Context(), direct, Target{Addr: at.Addr()}, Check{Port: at.Port(), Timeout: slow})
		if got.Verdict != Fail || got.Words != "connection refused" {
			t.Errorf("got %+v, want a refusal", got)
		}
	})
	t.Run("silent", func(t *testing.T) {
		at := blackhole(t)
		start := time.Now()
		got := probe(t.Context(), direct, Target{Addr: at.Addr()}, Check{Port: at.Port(), Timeout: quick})
		if got.Verdict != Fail || got.Words != "timeout after 150ms: no connection" {
			t.Errorf("got %+v, want a timeout", got)
		}
		if took := time.Since(start); took < quick || took > quick+5*time.Second {
			t.Errorf("took %v, want %v", took, quick)
		}
	})
	t.Run("no route", func(t *testing.T) {
		// A multicast address cannot be connected to, on any host.
		got := probe(t.Context(), direct, Target{Addr: netip.MustParseAddr("224.0.0.1")}, Check{Port: 80, Timeout: slow})
		if got.Verdict != Fail || got.Words != "network is unreachable" {
			t.Errorf("got %+v, want the kernel's word", got)
		}
	})
}

// blackhole is an address that answers no SYN: a listener whose queue is full.
func blackhole(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	for range 16 {
		conn, err := net.DialTimeout("tcp", at.String(), quick)
		if err != nil {
			return at
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("a listener that accepts nothing still answers")
	return at
}

// TestConnectionsEndWithReset: see reset.
func TestConnectionsEndWithReset(t *testing.T) {
	for _, tt := range []struct {
		name   string
		http   string
		answer string
	}{
		{"connect", "", ""},
		{"complete answer", "/", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ended := make(chan error, 1)
			at := serve(t, "127.0.0.1:0", func(conn net.Conn) {
				if tt.answer != "" { // an empty write would take the reset
					io.WriteString(conn, tt.answer)
				}
				_, err := io.Copy(io.Discard, conn)
				ended <- err
			})
			check := httpCheck(at.Port(), slow)
			check.HTTP = tt.http
			if got := probe(t.Context(), direct, Target{Addr: at.Addr()}, check); got.Verdict != Pass {
				t.Fatalf("got %+v, want a pass", got)
			}
			if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the target saw %v, want a reset", err)
			}
		})
	}
}

// TestCancelBreaksOff: a reload that removes a target must not wait for it.
func TestCancelBreaksOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	at := serve(t, "127.0.0.1:0", func(conn net.Conn) {
		readRequest(conn)
		cancel()
		io.Copy(io.Discard, conn)
	})
	start := time.Now()
	probe(ctx, direct, Target{Addr: at.Addr()}, httpCheck(at.Port(), time.Hour))
	if took := time.Since(start); took > slow {
		t.Errorf("took %v", took)
	}
}
