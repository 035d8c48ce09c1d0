package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
)

// dialFunc is net.Dialer's DialContext. A probe that must take another way than
// the routing table's brings its own.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// direct connects as any program of the host does. Keep-alives are off: the
// connection never outlives a probe.
var direct dialFunc = (&net.Dialer{KeepAlive: -1}).DialContext

// probe asks one target once. It takes at most check.Timeout and, for HTTP,
// maxHeader bytes, whatever the target does. A cancelled ctx breaks it off; the
// answer then means nothing.
//
// A failure of this host itself, such as no free port, counts as the target's:
// a host that cannot ask does not know either, and the wait for a first answer
// has to end.
func probe(ctx context.Context, dial dialFunc, target Target, check Check) Answer {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, check.Timeout)
	defer cancel()

	conn, words := connect(ctx, dial, target, check)
	if conn == nil {
		return failed(start, words)
	}
	defer reset(conn)
	mss := 0
	if check.Through != nil {
		mss = peerMSS(conn)
	}
	if check.HTTP == "" {
		latency := time.Since(start)
		return Answer{Verdict: Pass, Words: "connected in " + short(latency), Latency: latency, mss: mss}
	}

	// One deadline ends both a slow answer and a probe that is broken off,
	// however many bytes dripped in before.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer := get(conn, start, target, check)
	answer.mss = mss
	return answer
}

// connect returns a connection, or nil and why there is none.
func connect(ctx context.Context, dial dialFunc, target Target, check Check) (net.Conn, string) {
	at := netip.AddrPortFrom(check.address(target), check.Port).String()
	if check.Through == nil {
		conn, err := dial(ctx, "tcp", at)
		if err != nil {
			return nil, connectWords(err, check)
		}
		return conn, ""
	}
	a := besides(ctx, target, check)
	conn, err := dial(ctx, "tcp", at)
	if err != nil {
		return nil, connectWords(err, check) + a.words(err)
	}
	a.needless()
	return conn, ""
}

// address is what the probe of a target connects to.
func (c Check) address(target Target) netip.Addr {
	if c.Through != nil {
		return c.Through.VIP
	}
	return target.Addr.Unmap()
}

// reset closes a connection with RST instead of FIN, in every case. FIN would
// leave this host a socket in TIME-WAIT for a minute: at 2,000 targets and one
// probe a second more than the kernel keeps. The answer has been read by then,
// so the target loses nothing, and one that streams without end stops at once.
func reset(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		c.SetLinger(0)
	}
	conn.Close()
}

// failed is the answer of a probe that failed.
func failed(start time.Time, words string) Answer {
	return Answer{Verdict: Fail, Words: words, Latency: time.Since(start)}
}

// connectWords tells why there is no connection.
func connectWords(err error, check Check) string {
	var local localError
	switch {
	case errors.As(err, &local):
		return string(local)
	case timedOut(err):
		return timeoutWords(check) + ": no connection"
	case check.Through != nil:
		return errorWords(err) + " through the tunnel"
	}
	return errorWords(err)
}

// timeoutWords names the timeout that has passed, and the way where it is not
// the plain one.
func timeoutWords(check Check) string {
	if check.Through != nil {
		return fmt.Sprintf("timeout after %v through the tunnel", check.Timeout)
	}
	return fmt.Sprintf("timeout after %v", check.Timeout)
}

// answerWords tells why a connection gave no complete answer but n bytes.
func answerWords(err error, n int, check Check) string {
	switch {
	case timedOut(err) && n == 0:
		return timeoutWords(check) + ": connected, no answer"
	case timedOut(err):
		return fmt.Sprintf("%s: %d bytes of an answer", timeoutWords(check), n)
	case errors.Is(err, io.EOF) && n == 0:
		return "connection closed without an answer"
	case errors.Is(err, io.EOF):
		return fmt.Sprintf("connection closed after %d bytes of an answer", n)
	}
	return errorWords(err)
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// errorWords is the kernel's own word for a failure, without the addresses that
// package net adds: the target's is shown beside it anyway, and the local port
// would make each failure differ from the last.
func errorWords(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return escaped(err.Error(), 128)
}

// short is a duration in as many digits as somebody on call reads.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < 10*time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// escaped is what a target sent, cut to limit bytes and made harmless to a
// terminal, a log and a page.
func escaped(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	quoted := strconv.QuoteToASCII(s)
	return quoted[1 : len(quoted)-1]
}
