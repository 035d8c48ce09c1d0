package load

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errStalled, errTimeout and errConnect are the generator's own clock speaking.
var (
	errStalled = errors.New("no byte came in time")
	errTimeout = errors.New("the whole took too long")
	errConnect = errors.New("the handshake was not answered in time")
)

// maxProbes is the largest number of keep-alives that may stay unanswered
// (tcp(7), MAX_TCP_KEEPCNT in the kernel's tcp.h).
const maxProbes = 127

// flight is one request under way.
type flight struct {
	fd     int
	kind   *lane
	source netip.Addr
	target netip.AddrPort
	start  time.Time
	last   time.Time // when something came, or the handshake was done

	connected bool
	head      []byte // what has come of the headers
	inBody    bool
	body      body
	readable  bool // a paced reader has left something
	bodyStart time.Time

	status      int
	lb7, server string
}

// launch opens a connection and sends the request, if the handshake is done by
// then: on the way to a service in the same kernel it is.
func (f *flight) launch(p *poller, request []byte) error {
	family, to := sockaddr(f.target)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	f.fd = fd
	if f.source.IsValid() {
		// The port is chosen when the target is known, so that a source is
		// good for 28,000 connections to each target and not in all. Without
		// it all works, with fewer ports.
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		_, from := sockaddr(netip.AddrPortFrom(f.source, 0))
		if err := unix.Bind(fd, from); err != nil {
			return fmt.Errorf("binding to %s: %w", f.source, err)
		}
	}
	if every := int(f.kind.Probe / time.Second); every > 0 {
		err := errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
			unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_KEEPIDLE, every),
			unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_KEEPINTVL, every),
			// Not the kernel but the generator's clock decides that it stalls.
			unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_KEEPCNT, maxProbes))
		if err != nil {
			return fmt.Errorf("setting keep-alives: %w", err)
		}
	}
	if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connecting: %w", err)
	}
	if err := p.add(fd); err != nil {
		return err
	}
	return f.send(request)
}

// send writes the request as soon as the handshake allows it.
func (f *flight) send(request []byte) error {
	_, err := unix.Write(f.fd, request) // It fits any new socket's buffer.
	switch {
	case err == nil:
		f.connected = true
		return nil
	case errors.Is(err, unix.EAGAIN):
		return nil
	case errors.Is(err, unix.EPIPE):
		// The reason was told before, or waits to be fetched.
		if n, soErr := unix.GetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_ERROR); soErr == nil && n != 0 {
			err = syscall.Errno(n)
		} else {
			err = unix.ECONNREFUSED
		}
	}
	return fmt.Errorf("connecting: %w", err)
}

// receive reads what has come, at most limit bytes of it where that is not 0,
// or all to the end where the other side has ended, and tells whether the
// answer is whole.
func (f *flight) receive(buf []byte, limit int, ended bool, now time.Time) (whole bool, err error) {
	f.readable = false
	for {
		b := buf
		if limit > 0 {
			b = b[:min(limit, len(b))]
		}
		n, err := unix.Read(f.fd, b)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("reading the answer: %w", err)
		case n == 0:
			return true, f.end()
		}
		f.last = now
		if whole, err := f.take(b[:n], now); whole || err != nil {
			return whole, err
		}
		if limit > 0 {
			f.readable = true
			return false, nil
		}
		if n < len(b) && !ended {
			return false, nil // That was all; more will be told of.
		}
	}
}

// take follows the answer through one piece.
func (f *flight) take(p []byte, now time.Time) (whole bool, err error) {
	if f.inBody {
		return f.body.feed(p)
	}
	f.head = append(f.head, p...)
	m, length, err := splitHead(f.head)
	if err != nil || length < 0 {
		return false, err
	}
	if err := f.begin(m); err != nil {
		return false, err
	}
	rest := f.head[length:]
	f.inBody, f.head, f.bodyStart = true, nil, now
	return f.body.feed(rest)
}

// begin looks at the answer's headers.
func (f *flight) begin(m message) error {
	version, rest, _ := strings.Cut(m.line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(version, "HTTP/1.") {
		return wrongf("%.80q is no HTTP", m.line)
	}
	f.status, f.lb7, f.server = status, m.get(headerLB7), m.get(headerServer)
	if f.lb7 != "" {
		countName(&f.kind.tally.carried, f.lb7)
		if _, counted := f.kind.tally.carried[f.lb7]; !counted {
			f.lb7 = "" // One name too many.
		}
	}
	if status != 200 {
		return wrongf("the status is %d", status)
	}
	f.body, err = newBody(m)
	return err
}

// end is the connection's end, from the other side.
func (f *flight) end() error {
	if !f.inBody {
		return wrongf("closed after %d bytes of the headers", len(f.head))
	}
	return f.body.end()
}

// allowance is how much a paced reader may read now.
func (f *flight) allowance(now time.Time) int {
	if !f.inBody {
		return maxHead
	}
	return int(now.Sub(f.bodyStart).Seconds()*float64(f.kind.Pace)) - int(f.body.got)
}

// overdue is the error of a flight for which the time is up.
func (f *flight) overdue(o *Options, now time.Time) error {
	switch {
	case !f.connected && now.Sub(f.start) >= o.ConnectTimeout:
		return errConnect
	case now.Sub(f.start) >= o.Timeout:
		return errTimeout
	case f.connected && !f.readable && now.Sub(f.last) >= o.StallTimeout:
		return errStalled
	}
	return nil
}

func sockaddr(a netip.AddrPort) (family int, sa unix.Sockaddr) {
	if addr := a.Addr().Unmap(); addr.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: addr.As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
