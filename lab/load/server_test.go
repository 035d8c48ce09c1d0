package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// listenBacklog opens a port whose queue holds backlog + 1 connections, or
// takes one on which nobody listens where backlog is negative.
func listenBacklog(t *testing.T, backlog int) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if backlog >= 0 {
		if err := syscall.Listen(fd, backlog); err != nil {
			t.Fatal(err)
		}
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(sa.(*syscall.SockaddrInet4).Addr), uint16(sa.(*syscall.SockaddrInet4).Port))
}

func TestServerAnswers(t *testing.T) {
	at := origin(t)
	for _, tt := range []struct {
		name, before, path string
		status             int
		body               string
	}{
		{"plain", "", "/", 200, "s1 answers 127.0.0.1:"},
		{"through a proxy", "PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n", "/", 200, "s1 answers 198.51.100.7:4711\n"},
		{"through a proxy, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n", "/", 200, "s1 answers [2001:db8::7]:4711\n"},
		{"a proxy that does not know", "PROXY UNKNOWN ffff::1 what ever\r\n", "/", 200, "s1 answers 127.0.0.1:"},
		{"health", "", "/healthcheck", 200, "OK\n"},
		{"no such path", "", "/other", 404, ""},
		{"slow for ever", "", "/slow?seconds=Inf", 400, "seconds"},
		{"slow for no number", "", "/slow?seconds=NaN", 400, "seconds"},
		{"too much", "", "/slow?bytes=99999999999", 400, "bytes"},
	} {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "%sGET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", tt.before, tt.path)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != tt.status || !strings.HasPrefix(string(body), tt.body) || r.Header.Get("X-Server") != "s1" {
			t.Errorf("%s: got %d, X-Server %q and %q, want %d and %q", tt.name, r.StatusCode, r.Header.Get("X-Server"), body, tt.status, tt.body)
		}
		c.Close()
	}
}

func TestParseProxyRefuses(t *testing.T) {
	for _, line := range []string{
		"PROXY\r\n",
		"PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\n",
		"PROXY TCP4 198.51.100.7 192.0.2.1 4711\r\n",
		"PROXY TCP4 198.51.100.7 192.0.2.1 4711 80 \r\n",
		"PROXY TCP4 2001:db8::7 192.0.2.1 4711 80\r\n",
		"PROXY TCP6 fe80::1%eth0 2001:db8::7 4711 80\r\n",
		"PROXY TCP4 198.51.100.7 192.0.2.1 70000 80\r\n",
		"PROXY UDP4 198.51.100.7 192.0.2.1 4711 80\r\n",
		"PROXY UNKNOWN " + strings.Repeat("a", 100) + "\r\n",
	} {
		if a, err := parseProxy([]byte(line)); err == nil {
			t.Errorf("%q: got %v, want an error", line, a)
		}
	}
}

// TestCloseCutsOff: a scenario that kills a server wants its users to see it.
func TestCloseCutsOff(t *testing.T) {
	l := listen(t)
	s := &Server{Name: "s1"}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /slow?seconds=60&bytes=10000 HTTP/1.1\r\nHost: x\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := <-served; err != nil {
		t.Errorf("Serve returned %v after Close", err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, r.Body); err == nil || n >= 10000 {
		t.Errorf("the download went on to %d bytes and %v", n, err)
	}
}

// TestDrip looks at a body's pace as if it were asked every so often.
func TestDrip(t *testing.T) {
	start := time.Now()
	d := &drip{start: start, takes: 8 * time.Second, every: dripEvery, size: 8001}
	var got []byte
	var buf [100]byte
	for now := start; len(got) < 8001; now = now.Add(dripGrid) {
		if now.Sub(start) > 8*time.Second {
			t.Fatalf("%d bytes after %v", len(got), now.Sub(start))
		}
		if now.Before(d.due()) {
			continue
		}
		for n := len(buf); n == len(buf); {
			n = d.next(buf[:], now)
			got = append(got, buf[:n]...)
		}
		if want := 1000 * now.Sub(start).Seconds(); float64(len(got)) < want-1 || float64(len(got)) > want+1 {
			t.Errorf("%d bytes after %v, want %.0f", len(got), now.Sub(start), want)
		}
	}
	if !matches(got, 0) || !d.due().Equal(start.Add(8*time.Second)) {
		t.Errorf("the body is the pattern: %v; it ended at %v", matches(got, 0), d.due().Sub(start))
	}
}

// TestKeepAlive sends two requests at once on one connection, the first of
// which takes a while, as a proxy may.
func TestKeepAlive(t *testing.T) {
	c, err := net.Dial("tcp", origin(t).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(c, "PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n"+
		"GET /slow?seconds=0.2&bytes=100000 HTTP/1.1\r\n\r\nHEAD /slow HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n")
	r := bufio.NewReader(c)
	for i, want := range []struct {
		method string
		length int
	}{{"GET", 100000}, {"HEAD", 0}, {"GET", len("s1 answers 198.51.100.7:4711\n")}} {
		answer, err := http.ReadResponse(r, &http.Request{Method: want.method})
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		b, err := io.ReadAll(answer.Body)
		if err != nil || len(b) != want.length || answer.StatusCode != 200 {
			t.Errorf("answer %d: got %d bytes, %d, %v, want %d bytes", i, len(b), answer.StatusCode, err, want.length)
		}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after an HTTP/1.0 request: got %v, want the end", err)
	}
}

// TestServerRefuses sends what is no request; the connection must end, and the
// server go on.
func TestServerRefuses(t *testing.T) {
	at := origin(t)
	for _, in := range []string{
		"nonsense\r\n\r\n",
		"PROXY nonsense\r\nGET / HTTP/1.1\r\n\r\n",
		"PROXY " + strings.Repeat("a", 200),
		strings.Repeat("a", 1<<20),
		"GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 1<<16),
		"GET /\x00 HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
	} {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		go io.WriteString(c, in)
		b, err := io.ReadAll(c)
		if strings.Contains(string(b), " 200 ") || err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%.20q: got %q and %v", in, b, err)
		}
		c.Close()
	}
	if got := one(t, t.Context(), Options{Targets: []netip.AddrPort{at}, Kinds: []Kind{Quick(1)}}); got.Outcomes[Completed] != 1 {
		t.Errorf("afterwards: %v", got.Outcomes)
	}
}

// TestLargeBody goes past every buffer on the way, to a client that reads
// slowly.
func TestLargeBody(t *testing.T) {
	k := Kind{Name: "large", Path: "/slow?seconds=0&bytes=8000000", Pace: 8_000_000}
	got := one(t, t.Context(), Options{Targets: []netip.AddrPort{origin(t)}, Kinds: []Kind{k}})
	if got.Outcomes[Completed] != 1 || got.Bytes != 8_000_000 || got.Latency.Max < 900 {
		t.Errorf("got %v, %d bytes in %v ms, want all in a second", got.Outcomes, got.Bytes, got.Latency.Max)
	}
}
