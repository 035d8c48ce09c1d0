package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// way is how the probes of a check connect.
func way(check Check) dialFunc {
	if check.Through == nil {
		return direct
	}
	return check.Through.dial
}

// dial connects to the VIP through the tunnel. The port of this host is a new
// one each time.
func (t *Through) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if t.Fault != "" {
		return nil, localError(t.Fault)
	}
	if !t.Source.IsValid() {
		return nil, localError(fmt.Sprintf("this host has no address to probe %s from", t.VIP))
	}
	from := netip.AddrPortFrom(t.Source, 0)
	d := net.Dialer{KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(from), Control: t.prepare}
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(from)
	}
	conn, err := d.DialContext(ctx, network, address)
	var call *os.SyscallError
	if errors.As(err, &call) && call.Syscall == "bind" {
		return nil, localError(fmt.Sprintf("probing from %s: %v", t.Source, call.Err))
	}
	return conn, err
}

// prepare sets a socket's options before it connects.
func (t *Through) prepare(network, _ string, raw syscall.RawConn) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) { err = t.setOptions(network, int(fd)) }); cerr != nil {
		return cerr
	}
	if errors.Is(err, os.ErrPermission) {
		return localError(`marking the probe: not permitted; run as root, or with CAP_NET_ADMIN, or set via = "direct"`)
	}
	return err
}

// localError is a probe that never left this host, in words.
type localError string

func (e localError) Error() string { return string(e) }

// aside asks whether the target answers at its own address, beside a probe
// through the tunnel that finds no connection: that tells a host that is gone
// from one that lacks a part of the tunnel.
type aside struct {
	timer *time.Timer
	ask   func()
	heard chan error
}

// besides begins to ask when half of the timeout has passed or when the probe
// has failed, whichever comes first, so that no verdict comes later for it.
func besides(ctx context.Context, target Target, check Check) *aside {
	a := &aside{heard: make(chan error, 1)}
	a.ask = func() {
		ctx, cancel := context.WithTimeout(ctx, check.Timeout/2)
		defer cancel()
		conn, err := direct(ctx, "tcp", netip.AddrPortFrom(target.Addr.Unmap(), check.Port).String())
		if err == nil {
			reset(conn)
		}
		a.heard <- err
	}
	a.timer = time.AfterFunc(check.Timeout/2, a.ask)
	return a
}

// needless is for a probe that has its connection.
func (a *aside) needless() { a.timer.Stop() }

// words follow those of the error that the probe through the tunnel met.
func (a *aside) words(tunnel error) string {
	var local localError
	if errors.As(tunnel, &local) {
		a.timer.Stop()
		return ""
	}
	if a.timer.Stop() {
		a.ask()
	}
	return hintWords(tunnel, <-a.heard)
}

// hintWords compares what a probe met through the tunnel with what one met
// directly.
//
// A refusal through the tunnel has two causes that look alike from here: nothing
// listens on the VIP, or the target has no tunnel device, which the kernel also
// answers with "port unreachable" (tunnel4.c, tunnel4_rcv).
func hintWords(tunnel, straight error) string {
	refused := errors.Is(tunnel, syscall.ECONNREFUSED)
	switch {
	case straight == nil && refused:
		return "; the member itself answers: has it the tunnel device, and a server on the VIP?"
	case straight == nil:
		return "; the member itself answers: has it the tunnel device, the VIP and a route back?"
	case errors.Is(straight, syscall.ECONNREFUSED) && refused:
		return "; refused by the member itself, too"
	case errors.Is(straight, syscall.ECONNREFUSED):
		return "; the member's host is alive: has it the tunnel device, the VIP and a route back?"
	case timedOut(straight):
		return "; the member itself does not answer either"
	}
	return "; directly: " + errorWords(straight)
}
