package health

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// fillTunnel finds out whether full-size packets get through the tunnel to a
// target that announces mss. It takes at most check.Timeout.
//
// TCP cannot ask by itself. With each packet of a connection of this host, IPVS
// tells the route to the VIP what the tunnel carries (ip_vs_xmit.c,
// maybe_update_pmtu), whereupon TCP sends smaller segments, to this target and,
// for ten minutes, to all others behind the VIP. No socket option prevents that.
// A datagram can be sent whatever the route has learnt (IP_PMTUDISC_PROBE), and
// the service of a firewall mark takes every protocol and port.
//
// So a full-size datagram goes out, with "don't fragment", to a port where
// nobody listens, and the kernel of the target answers "port unreachable", as
// traceroute has it. One that does not fit is answered at once as well, by IPVS
// or by a router on the way, with "fragmentation needed" and the size that would
// fit.
//
// A target may keep silent, because its firewall drops what is not for a
// service. Then an HTTP check asks again with a request of one full-size segment:
// as nobody has called the datagram too large, TCP has learnt nothing. A TCP
// check has nothing to send; a small datagram that is answered tells that the
// full-size one was lost.
func fillTunnel(ctx context.Context, target Target, check Check, mss int) mtuAnswer {
	if mss == 0 {
		return mtuUntold("the kernel does not tell the MSS that the LB7 announces")
	}
	ctx, cancel := context.WithTimeout(ctx, check.Timeout)
	defer cancel()
	through := check.Through
	full := through.full(mss)

	switch echo := through.datagram(ctx, full, check.Timeout/2); {
	case echo.local != nil:
		return mtuUntold("sending a datagram: %s", connectWords(echo.local, check))
	case echo.arrived:
		return mtuFits(full)
	case echo.tooBig:
		return mtuTooBig(full, echo.room, target, through)
	}
	if check.HTTP != "" {
		switch arrived, told := fillSegment(ctx, full, target, check); {
		case told && arrived:
			return mtuFits(full)
		case told:
			return mtuLost(full, target, through)
		}
	}
	if through.datagram(ctx, full/2, check.Timeout/2).arrived {
		return mtuLost(full, target, through)
	}
	return mtuUntold("no telling, as the LB7 answers no UDP")
}

// echo is what came back for a datagram; the zero value is silence.
type echo struct {
	arrived bool
	tooBig  bool
	room    int // with tooBig: what would fit; 0: that was not said
	local   error
}

// Datagrams go to the ports of traceroute, a port for each mark. The port of
// this host is taken from a small range at random, and IPVS remembers a flow of
// UDP for five minutes, whatever its mark: targets that shared a port would get
// each other's datagrams.
const (
	firstDatagramPort = 33434
	datagramPorts     = 16384
)

// datagram sends one of size bytes, headers included, and waits for what comes
// back.
func (t *Through) datagram(ctx context.Context, size int, wait time.Duration) echo {
	port := strconv.Itoa(firstDatagramPort + int(t.Mark%datagramPorts))
	conn, err := t.dial(ctx, "udp", net.JoinHostPort(t.VIP.String(), port))
	if err != nil {
		return echo{local: err}
	}
	defer conn.Close()
	deadline := time.Now().Add(wait)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	// An error of a datagram is told by whichever call comes next.
	if _, err = conn.Write(make([]byte, size-t.ipHeader()-8)); err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	switch {
	case err == nil, errors.Is(err, syscall.ECONNREFUSED):
		return echo{arrived: true}
	case errors.Is(err, syscall.EMSGSIZE):
		return echo{tooBig: true, room: roomLeft(conn)}
	}
	return echo{}
}

// fillSegment sends a request that fills one segment, for a packet of full
// bytes, and tells whether it arrived: it was answered or at least acknowledged,
// as a slow answer is no fault of the tunnel. There is no telling where the
// packet would have been smaller, or where there was no connection.
func fillSegment(ctx context.Context, full int, target Target, check Check) (arrived, told bool) {
	at := netip.AddrPortFrom(check.Through.VIP, check.Port)
	conn, err := check.Through.dial(ctx, "tcp", at.String())
	if err != nil {
		return false, false
	}
	defer reset(conn)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	options, err := optionsSize(conn)
	text, fits := padded(request(target, check), full-check.Through.headers()-options)
	if err != nil || !fits || !pathHolds(conn, full) {
		return false, false
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return false, false
	}
	_, err = conn.Read(make([]byte, 1))
	switch {
	case !pathHolds(conn, full):
		return false, false // it was cut in two meanwhile
	case err == nil, errors.Is(err, io.EOF), acknowledged(conn):
		return true, true
	}
	return false, timedOut(err)
}
