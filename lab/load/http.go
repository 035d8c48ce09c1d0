package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxPending bounds the requests that have come and not been answered.
	maxPending = 2 * maxHead
	// Defaults and bounds of /slow.
	defaultSlowTime  = 8 * time.Second
	maxSlowTime      = time.Hour
	defaultSlowBytes = 64 << 10
)

// visit is one connection to a Server.
type visit struct {
	fd     int
	client string // as the peer, or the proxy, has it
	proxy  bool   // the first line has been looked at
	in     []byte // what has come of the next request
	out    []byte // what the peer has not taken yet
	drip   *drip  // the body that is being sent, nil where none is
	ending bool   // close when all is sent
	last   time.Time
}

// read takes what has come, to the end where the peer has ended. It returns
// false where the connection is over.
func (v *visit) read(buf []byte, ended bool, now time.Time) bool {
	for {
		n, err := unix.Read(v.fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return true
		case err != nil, n == 0:
			return false
		}
		v.last = now
		if v.in = append(v.in, buf[:n]...); len(v.in) > maxPending {
			return false
		}
		if n < len(buf) && !ended {
			return true
		}
	}
}

// answer answers the requests that have come whole, one after the other. It
// returns false where the connection is over.
func (v *visit) answer(s *Server, now time.Time) bool {
	for v.drip == nil && len(v.out) == 0 && !v.ending {
		if !v.proxy {
			if done, err := v.takeProxy(); err != nil {
				return false
			} else if !done {
				return true
			}
		}
		m, length, err := splitHead(v.in)
		if err != nil {
			return false
		}
		if length < 0 {
			return true
		}
		v.in = append(v.in[:0], v.in[length:]...)
		v.respond(s, m, now)
		if !v.flush() {
			return false
		}
	}
	return true
}

// takeProxy takes the PROXY header off, where the connection begins with one.
func (v *visit) takeProxy() (done bool, err error) {
	switch n := min(len(v.in), len(proxyPrefix)); {
	case n == 0:
		return false, nil
	case string(v.in[:n]) != proxyPrefix[:n]:
		v.proxy = true
		return true, nil
	}
	end := bytes.IndexByte(v.in, '\n')
	if end < 0 {
		if len(v.in) > maxProxyLine {
			return false, errProxy(v.in)
		}
		return false, nil
	}
	client, err := parseProxy(v.in[:end+1])
	if err != nil {
		return false, err
	}
	if client.IsValid() {
		v.client = client.String()
	}
	v.in = append(v.in[:0], v.in[end+1:]...)
	v.proxy = true
	return true, nil
}

// respond puts the answer to a request into v.out and v.drip.
func (v *visit) respond(s *Server, m message, now time.Time) {
	method, target, _ := strings.Cut(m.line, " ")
	target, version, _ := strings.Cut(target, " ")
	// What this server does not read would be taken for the next request.
	hasBody := m.get("Transfer-Encoding") != "" || m.get("Content-Length") != "" && m.get("Content-Length") != "0"
	v.ending = version != "HTTP/1.1" || strings.EqualFold(m.get("Connection"), "close") || hasBody

	status, text := "200 OK", ""
	u, err := url.ParseRequestURI(target)
	switch {
	case err != nil || !strings.HasPrefix(version, "HTTP/1."):
		status, text, v.ending = "400 Bad Request", "not understood\n", true
	case hasBody || method != "GET" && method != "HEAD" && method != "OPTIONS":
		status, text = "405 Method Not Allowed", "only GET, HEAD and OPTIONS are answered\n"
	case u.Path == "/":
		text = fmt.Sprintf("%s answers %s\n", s.Name, v.client)
	case u.Path == "/healthcheck":
		text = "OK\n"
	case u.Path == "/slow":
		d, err := slowQuery(u.Query())
		if err != nil {
			status, text = "400 Bad Request", err.Error()+"\n"
			break
		}
		v.head(s, status, d.size, true)
		if method == "GET" && d.size > 0 {
			d.start, v.drip = now, d
		}
		return
	default:
		status, text = "404 Not Found", "there is /, /slow and /healthcheck\n"
	}
	v.head(s, status, int64(len(text)), false)
	if method != "HEAD" {
		v.out = append(v.out, text...)
	}
}

// head writes an answer's headers.
func (v *visit) head(s *Server, status string, length int64, pattern bool) {
	v.out = append(v.out, "HTTP/1.1 "+status+"\r\nContent-Length: "+strconv.FormatInt(length, 10)+"\r\n"+headerServer+": "+s.Name+"\r\n"...)
	if pattern {
		v.out = append(v.out, headerPattern+": 1\r\nContent-Type: application/octet-stream\r\n"...)
	} else {
		v.out = append(v.out, "Content-Type: text/plain\r\n"...)
	}
	if v.ending {
		v.out = append(v.out, "Connection: close\r\n"...)
	}
	v.out = append(v.out, "\r\n"...)
}

// flush sends what the peer will take. It returns false where the connection
// is over.
func (v *visit) flush() bool {
	for len(v.out) > 0 {
		n, err := unix.Write(v.fd, v.out)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return true
		case err != nil:
			return false
		}
		v.out = v.out[n:]
	}
	v.out = nil
	return v.drip != nil || !v.ending
}

// slowQuery reads what /slow is asked for.
func slowQuery(q url.Values) (*drip, error) {
	d := &drip{takes: defaultSlowTime, every: dripEvery, size: defaultSlowBytes}
	for _, key := range []struct {
		name        string
		value       *time.Duration
		least, most time.Duration
	}{
		{"seconds", &d.takes, 0, maxSlowTime},
		{"every", &d.every, dripGrid, maxDripEvery},
	} {
		s := q.Get(key.name)
		if s == "" {
			continue
		}
		f, err := strconv.ParseFloat(s, 64)
		// Written so that NaN is refused as well.
		if err != nil || !(f >= key.least.Seconds() && f <= key.most.Seconds()) {
			return nil, fmt.Errorf("%s: %q is not between %g and %g", key.name, s, key.least.Seconds(), key.most.Seconds())
		}
		*key.value = time.Duration(f * float64(time.Second))
	}
	if s := q.Get("bytes"); s != "" {
		var err error
		if d.size, err = strconv.ParseInt(s, 10, 64); err != nil || d.size < 0 || d.size > maxBody {
			return nil, fmt.Errorf("bytes: %q is not between 0 and %d", s, maxBody)
		}
	}
	return d, nil
}

// drip is a body that is sent evenly over a time.
type drip struct {
	start time.Time
	takes time.Duration
	every time.Duration // between pieces
	size  int64
	sent  int64
	at    time.Time // of the last piece
}

// due is when the next piece should go: every so often, and the last at the end.
func (d *drip) due() time.Time {
	at := d.at
	if at.IsZero() {
		at = d.start
	}
	at = at.Add(d.every)
	if end := d.start.Add(d.takes); end.Before(at) {
		return end
	}
	return at
}

// next fills buf with what is to be sent now, and returns how much that is.
func (d *drip) next(buf []byte, now time.Time) int {
	d.at = now
	until := d.size
	if spent := now.Sub(d.start); spent < d.takes {
		until = int64(float64(d.size) * float64(spent) / float64(d.takes))
	}
	n := int(min(until-d.sent, int64(len(buf))))
	fill(buf[:n], d.sent)
	d.sent += int64(n)
	return n
}

// pour sends what is due of the body, until that is all or the peer takes no
// more. It returns false where the connection is over.
func (v *visit) pour(now time.Time) bool {
	var buf [4096]byte
	for v.drip != nil && len(v.out) == 0 {
		n := v.drip.next(buf[:], now)
		v.out, v.last = append(v.out, buf[:n]...), now
		if v.drip.sent == v.drip.size {
			v.drip = nil
		}
		if !v.flush() {
			return false
		}
		if n < len(buf) {
			break
		}
	}
	return true
}

// peerName is an accepted connection's other end.
func peerName(sa syscall.Sockaddr) string {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)).String()
	}
	return "unknown"
}
