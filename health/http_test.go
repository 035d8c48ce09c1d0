package health

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// replying answers a complete request with fixed bytes, and closes.
func replying(answer string) func(net.Conn) {
	return func(conn net.Conn) {
		if readRequest(conn) != "" {
			io.WriteString(conn, answer)
		}
	}
}

// readRequest reads until the empty line.
func readRequest(r io.Reader) string {
	var request []byte
	buf := make([]byte, 1024)
	for !bytes.HasSuffix(request, []byte("\r\n\r\n")) {
		n, err := r.Read(buf)
		if err != nil {
			return ""
		}
		request = append(request, buf[:n]...)
	}
	return string(request)
}

func httpCheck(port uint16, timeout time.Duration) Check {
	return Check{
		HTTP: "/healthcheck", Port: port, ExpectStatus: []int{200}, DrainStatus: []int{503},
		Interval: time.Second, Timeout: timeout, Rise: 2, Fall: 3,
	}
}

// masked replaces the part of an answer that differs from run to run.
func masked(words string) string {
	before, _, found := strings.Cut(words, " in ")
	if !found {
		return words
	}
	return before + " in <latency>"
}

// TestHTTPAnswers shows what each answer of a target means, and how it reads in
// the status.
func TestHTTPAnswers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answer  string
		verdict Verdict
		words   string
	}{
		{"ok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Pass, "200 OK in <latency>"},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", Pass, "200 OK in <latency>"},
		{"no phrase", "HTTP/1.1 200 \r\n\r\n", Pass, "200 in <latency>"},
		{"no phrase and no space", "HTTP/1.1 200\r\n\r\n", Pass, "200 in <latency>"},
		{"bare line feeds", "HTTP/1.1 200 OK\nServer: x\n\n", Pass, "200 OK in <latency>"},
		{"interim responses", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Pass, "200 OK in <latency>"},
		{"drain", "HTTP/1.1 503 Service Unavailable\r\n\r\n", Drain, "503 Service Unavailable (drain)"},
		{"another status", "HTTP/1.1 404 Not Found\r\n\r\n", Fail, "status 404, want 200"},
		{"a redirect is not followed", "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n", Fail, "status 302, want 200"},
		{"protocol switch", "HTTP/1.1 101 Switching Protocols\r\n\r\n", Fail, "status 101, want 200"},
		{"a phrase that paints the terminal", "HTTP/1.1 503 \x1b[31mred\xff\r\n\r\n", Drain, `503 \x1b[31mred\xff (drain)`},
		{"a long phrase", "HTTP/1.1 200 " + strings.Repeat("x", 1000) + "\r\n\r\n", Pass, "200 " + strings.Repeat("x", 64) + "... in <latency>"},

		{"another protocol", "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", Fail, `answer is not HTTP: "SSH-2.0-OpenSSH_9.2p1 Debian-2+d..."`},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x16", Fail, `answer is not HTTP: "\x15\x03\x01\x00\x02\x02\x16"`},
		{"another version", "HTTP/2 200\r\n\r\n", Fail, `answer is not HTTP: "HTTP/2 200\r\n\r\n"`},
		{"status of letters", "HTTP/1.1 abc\r\n\r\n", Fail, `bad status line: "HTTP/1.1 abc"`},
		{"status with a sign", "HTTP/1.1 +20 OK\r\n\r\n", Fail, `bad status line: "HTTP/1.1 +20 OK"`},
		{"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", Fail, `bad status line: "HTTP/1.1 2000 OK"`},
		{"status below 100", "HTTP/1.1 099 No\r\n\r\n", Fail, `bad status line: "HTTP/1.1 099 No"`},
		{"two spaces", "HTTP/1.1  200 OK\r\n\r\n", Fail, `bad status line: "HTTP/1.1  200 OK"`},
		{"empty version", "HTTP/1.\r\n\r\n", Fail, `bad status line: "HTTP/1."`},
		{"empty line", "\r\n\r\n", Fail, `answer is not HTTP: "\r\n\r\n"`},

		{"nothing", "", Fail, "connection closed without an answer"},
		{"half a status line", "HTTP/1.1 20", Fail, "connection closed after 11 bytes of an answer"},
		{"half a header", "HTTP/1.1 200 OK\r\nServer: x\r\n", Fail, "connection closed after 28 bytes of an answer"},
		{"interim response alone", "HTTP/1.1 100 Continue\r\n\r\n", Fail, "connection closed after 25 bytes of an answer"},
		{"a header just too long", "HTTP/1.1 200 OK\r\n" + strings.Repeat("a: b\r\n", 2000) + "\r\n", Fail, "header is longer than 8192 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := serve(t, "127.0.0.1:0", replying(tt.answer))
			got := probe(t.Context(), direct, Target{Addr: at.Addr()}, httpCheck(at.Port(), slow))
			if got.Verdict != tt.verdict || masked(got.Words) != tt.words {
				t.Errorf("got %v %q, want %v %q", got.Verdict, got.Words, tt.verdict, tt.words)
			}
			if got.Latency <= 0 || got.Latency > slow {
				t.Errorf("latency %v", got.Latency)
			}
		})
	}
}

// TestAnswerInPieces cuts one answer at every byte: where the pieces end has no
// meaning in TCP.
func TestAnswerInPieces(t *testing.T) {
	const answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\n\r\nbody"
	for cut := range len(answer) {
		r := io.MultiReader(strings.NewReader(answer[:cut]), strings.NewReader(answer[cut:]))
		status, _, err := readStatus(r)
		if err != nil || status.code != 200 {
			t.Errorf("cut at %d: got %v, %v", cut, status, err)
		}
	}
}

// TestRequest holds the bytes that are sent, which the targets log.
func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		name   string
		target string
		host   string
		port   uint16
		want   string // the Host header
	}{
		{"IPv4", "192.0.2.1", "", 80, "192.0.2.1"},
		{"IPv4 on another port", "192.0.2.1", "", 8080, "192.0.2.1:8080"},
		{"IPv6", "2001:db8::1", "", 80, "[2001:db8::1]"},
		{"IPv6 on another port", "2001:db8::1", "", 8080, "[2001:db8::1]:8080"},
		{"IPv6 with a zone", "fe80::1%eth0", "", 80, "[fe80::1]"},
		{"IPv4 within IPv6", "::ffff:192.0.2.1", "", 80, "192.0.2.1"},
		{"a host given", "192.0.2.1", "www.example.net", 8080, "www.example.net"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := request(Target{Addr: netip.MustParseAddr(tt.target)}, Check{HTTP: "/healthcheck?a=b", Host: tt.host, Port: tt.port})
			want := "GET /healthcheck?a=b HTTP/1.1\r\nHost: " + tt.want + "\r\nUser-Agent: lb4d\r\nConnection: close\r\n\r\n"
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 on this host: %v", err)
	} else {
		l.Close()
	}
	requests := make(chan string, 1)
	at := serve(t, "[::1]:0", func(conn net.Conn) {
		requests <- readRequest(conn)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	})
	got := probe(t.Context(), direct, Target{Addr: at.Addr()}, httpCheck(at.Port(), slow))
	if got.Verdict != Pass {
		t.Errorf("got %+v, want a pass", got)
	}
	if request, host := <-requests, fmt.Sprintf("\r\nHost: [::1]:%d\r\n", at.Port()); !strings.Contains(request, host) {
		t.Errorf("got request %q, want %q in it", request, host)
	}
}

// TestProxyIsNotAsked: the environment of a service often names a proxy.
func TestProxyIsNotAsked(t *testing.T) {
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	at := serve(t, "127.0.0.1:0", replying("HTTP/1.1 200 OK\r\n\r\n"))
	if got := probe(t.Context(), direct, Target{Addr: at.Addr()}, httpCheck(at.Port(), slow)); got.Verdict != Pass {
		t.Errorf("got %+v, want a pass", got)
	}
}

// counting counts what a probe reads from its connections.
type counting struct {
	*net.TCPConn
	read *atomic.Int64
}

func (c counting) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

// TestHostileAnswersAreBounded lets targets answer as badly as they can. Each
// costs at most the timeout, maxHeader bytes read and little memory, and its
// connection is gone afterwards.
func TestHostileAnswersAreBounded(t *testing.T) {
	pour := func(conn net.Conn, text string) {
		flood := bytes.Repeat([]byte(text), 4096)
		for {
			if _, err := conn.Write(flood); err != nil {
				return
			}
		}
	}
	drip := func(text string) func(net.Conn) {
		return func(conn net.Conn) {
			for i := 0; ; i++ {
				if _, err := conn.Write([]byte{text[i%len(text)]}); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		handle  func(net.Conn)
		verdict Verdict
		words   string // a prefix
	}{
		{"endless header", slow, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n"); pour(c, "x-flood: y\r\n") }, Fail, "header is longer than 8192 bytes"},
		{"endless body", slow, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); pour(c, "x-flood: y\r\n") }, Pass, "200 OK in "},
		{"endless status line", slow, func(c net.Conn) { pour(c, "HTTP/1.1 200 ") }, Fail, "header is longer than 8192 bytes"},
		{"endless garbage", slow, func(c net.Conn) { pour(c, "x-flood: ") }, Fail, `answer is not HTTP: "x-flood: `},
		{"endless interim responses", slow, func(c net.Conn) { pour(c, "HTTP/1.1 100 Continue\r\n\r\n") }, Fail, "header is longer than 8192 bytes"},
		{"dripping header", quick, drip("HTTP/1.1 200 OK\r\nx: y" + strings.Repeat("z", 8000)), Fail, "timeout after 150ms: "},
		{"silence", quick, func(c net.Conn) { io.Copy(io.Discard, c) }, Fail, "timeout after 150ms: connected, no answer"},
		{"half an answer, then silence", quick, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n"); io.Copy(io.Discard, c) }, Fail, "timeout after 150ms: 17 bytes of an answer"},
		{"reset", slow, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, Fail, "connection reset by peer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gone := make(chan struct{}, 1)
			at := serve(t, "127.0.0.1:0", func(conn net.Conn) {
				tt.handle(conn)
				gone <- struct{}{}
			})
			var read atomic.Int64
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			got := probe(t.Context(), countingDial(&read), Target{Addr: at.Addr()}, httpCheck(at.Port(), tt.timeout))
			took := time.Since(start)
			<-gone
			runtime.ReadMemStats(&after)

			if got.Verdict != tt.verdict || !strings.HasPrefix(got.Words, tt.words) {
				t.Errorf("got %v %q, want %v %q", got.Verdict, got.Words, tt.verdict, tt.words)
			}
			if limit := tt.timeout + 5*time.Second; took > limit {
				t.Errorf("took %v with a timeout of %v", took, tt.timeout)
			}
			if n := read.Load(); n > maxHeader {
				t.Errorf("read %d bytes, want at most %d", n, maxHeader)
			}
			// Generous: the server of the test is in it too.
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("allocated %d bytes", n)
			}
		})
	}
}

// FuzzReadStatus: no answer makes the reader fail in another way than by an
// error, or hold more than it may.
func FuzzReadStatus(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 x\n\n"))
	f.Add([]byte("HTTP/1. 200\n\n"))
	f.Add([]byte("HTTP/1.1 \r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		status, n, err := readStatus(bytes.NewReader(answer))
		if n > maxHeader || n > len(answer) {
			t.Errorf("read %d of %d bytes", n, len(answer))
		}
		if err == nil && (status.code < 100 || status.code > 999) {
			t.Errorf("status %d accepted", status.code)
		}
		for _, r := range status.String() {
			if r < ' ' || r > '~' {
				t.Errorf("status %q is not plain", status)
			}
		}
	})
}
