package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// listenBacklog opens a port whose queue holds backlog + 1 connections.
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
	if err := syscall.Listen(fd, backlog); err != nil {
		t.Fatal(err)
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

// TestDrip looks at the pace in a bubble of its own time.
func TestDrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w := &timed{ResponseRecorder: httptest.NewRecorder(), start: start}
		drip(t.Context(), w, 8*time.Second, 8000)
		if took := time.Since(start); took != 8*time.Second {
			t.Errorf("took %v, want 8s", took)
		}
		if n := w.Body.Len(); n != 8000 || !matches(w.Body.Bytes(), 0) {
			t.Errorf("%d bytes, the pattern: %v", n, matches(w.Body.Bytes(), 0))
		}
		for i, at := range w.at[1:] {
			if d := at - w.at[i]; d > dripEvery {
				t.Errorf("nothing for %v after %v", d, w.at[i])
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		drip(ctx, httptest.NewRecorder(), time.Hour, 1<<20)
		if took := time.Since(start); took != time.Second {
			t.Errorf("the client left after a second, the drip after %v", took)
		}
	})
}

// timed notes when something was flushed.
type timed struct {
	*httptest.ResponseRecorder
	start time.Time
	at    []time.Duration
}

func (w *timed) Flush() { w.at = append(w.at, time.Since(w.start)) }

func TestAgentServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent-check")
	s := &AgentServer{File: file}
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	ask := func() string {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := ask(); got != "" {
		t.Errorf("without a file: got %q", got)
	}
	for _, want := range []string{"drain\n", "up ready 100%\n"} {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := ask(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := ask(); len(got) != maxAgentAnswer {
		t.Errorf("a large file: got %d bytes, want %d", len(got), maxAgentAnswer)
	}
	s.Close()
	if err := <-served; err != nil {
		t.Errorf("Serve returned %v after Close", err)
	}
}
