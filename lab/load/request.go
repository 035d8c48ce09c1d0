package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxHead bounds an answer's status line and headers.
	maxHead = 32 << 10
	// maxBody bounds a body.
	maxBody = 1 << 30
)

// answer is what is known of a request's answer when it ends, however it ends.
type answer struct {
	status int
	lb7    string // X-LB7
	server string // X-Server
	bytes  int64  // of the body
}

// readers are reused: one for each request in flight is what lets a thousand
// of them be small.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}

// request makes one request and counts it.
func (g *Generator) request(ctx context.Context, k Kind, t *tally) Outcome {
	target, source := g.next()
	start := time.Now()
	g.mu.Lock()
	t.started++
	g.mu.Unlock()
	a, connected, err := g.exchange(ctx, k, target, source, start)
	outcome := classify(ctx, err, connected)
	end := time.Now()

	g.mu.Lock()
	defer g.mu.Unlock()
	t.count(outcome, a, end.Sub(start), end.Sub(g.started))
	if outcome.Broken() || outcome == Local {
		g.fault(Fault{
			At: end, After: millis(end.Sub(start)), Kind: k.Name, Outcome: outcome,
			Source: source, Target: target, LB7: a.lb7, Server: a.server, Bytes: a.bytes, Error: err.Error(),
		})
	}
	return outcome
}

// exchange connects, asks and reads the whole answer.
func (g *Generator) exchange(ctx context.Context, k Kind, target netip.AddrPort, source netip.Addr, start time.Time) (a answer, connected bool, err error) {
	d := net.Dialer{
		Timeout:       g.o.ConnectTimeout,
		KeepAlive:     -1,
		FallbackDelay: -1,
		Control:       bindLate,
	}
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	conn, err := d.DialContext(ctx, "tcp", target.String())
	if err != nil {
		return a, false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r := &bodyReader{ctx: ctx, conn: conn, stall: g.o.StallTimeout, end: start.Add(g.o.Timeout)}
	err = converse(r, k, host(g.o.Host, target), &a)
	return a, true, err
}

// host is the Host header.
func host(name string, target netip.AddrPort) string {
	if name != "" {
		return name
	}
	return target.String()
}

// bindLate lets the kernel choose a port when it knows the target, so that a
// source address is good for 28,000 connections to each target and not in all.
func bindLate(network, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// Without it all works, with fewer ports.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}

// converse sends the request and reads the answer into a.
func converse(conn *bodyReader, k Kind, host string, a *answer) error {
	request := "GET " + k.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: lab\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn.conn, request); err != nil {
		return err
	}
	r := readers.Get().(*bufio.Reader)
	defer readers.Put(r)
	r.Reset(conn)

	head, err := readHead(r)
	if err != nil {
		return err
	}
	a.status, a.lb7, a.server = head.status, head.get(headerLB7), head.get(headerServer)
	if a.status != 200 {
		return wrongError(fmt.Sprintf("the status is %d", a.status))
	}
	conn.pace = k.Pace
	var body io.Reader
	length := int64(-1)
	switch s := head.get("Content-Length"); {
	case strings.EqualFold(head.get("Transfer-Encoding"), "chunked"):
		body = httputil.NewChunkedReader(r)
	case s != "":
		if length, err = strconv.ParseInt(s, 10, 64); err != nil || length < 0 || length > maxBody {
			return wrongError(fmt.Sprintf("the length is %q", s))
		}
		body = io.LimitReader(r, length)
	default:
		body = io.LimitReader(r, maxBody)
	}
	return readBody(body, length, head.get(headerPattern) != "", a)
}

// readBody reads a body to its end and compares it with the pattern.
func readBody(body io.Reader, length int64, pattern bool, a *answer) error {
	var buf [4096]byte
	for {
		n, err := body.Read(buf[:])
		if pattern && !matches(buf[:n], a.bytes) {
			return wrongError(fmt.Sprintf("the body differs from what was sent, between bytes %d and %d", a.bytes, a.bytes+int64(n)))
		}
		a.bytes += int64(n)
		switch {
		case errors.Is(err, io.EOF) && a.bytes < length:
			return wrongError(fmt.Sprintf("the body ends after %d bytes of %d", a.bytes, length))
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// head is an answer's status and headers.
type head struct {
	status int
	fields []string // "Name: value"
}

// readHead reads to the empty line, bounded.
func readHead(r *bufio.Reader) (head, error) {
	var h head
	line, err := readLine(r)
	if err != nil {
		return h, err
	}
	_, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	if h.status, err = strconv.Atoi(code); err != nil || !strings.HasPrefix(line, "HTTP/1.") {
		return h, wrongError(fmt.Sprintf("%.80q is no HTTP", line))
	}
	for size := len(line); ; {
		if line, err = readLine(r); err != nil {
			return h, err
		}
		if line == "" {
			return h, nil
		}
		if size += len(line); size > maxHead {
			return h, wrongError("the headers are too long")
		}
		h.fields = append(h.fields, line)
	}
}

// readLine reads one line. An end without an answer is told as such.
func readLine(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", wrongError("a header is too long")
	case errors.Is(err, io.EOF):
		return "", wrongError("closed before the end of the headers")
	case err != nil:
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// get returns a header's value, "" where there is none.
func (h head) get(name string) string {
	for _, f := range h.fields {
		if k, v, ok := strings.Cut(f, ":"); ok && strings.EqualFold(k, name) {
			return textproto.TrimString(v)
		}
	}
	return ""
}

// bodyReader reads from a connection, expecting some byte every so often.
type bodyReader struct {
	ctx   context.Context
	conn  net.Conn
	stall time.Duration
	end   time.Time
	pace  int // bytes a second, 0 for all
}

func (r *bodyReader) Read(b []byte) (int, error) {
	deadline := time.Now().Add(r.stall)
	if r.end.Before(deadline) {
		deadline = r.end
	}
	r.conn.SetReadDeadline(deadline)
	// The deadline that the end of ctx set may have been overwritten.
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.pace > 0 {
		// Small pieces: a pace is not one gulp and a long sleep.
		b = b[:min(len(b), max(1, r.pace/10))]
	}
	n, err := r.conn.Read(b)
	if r.pace > 0 && n > 0 {
		sleep(r.ctx, time.Duration(n)*time.Second/time.Duration(r.pace))
	}
	return n, err
}
