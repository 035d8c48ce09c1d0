package directory

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// stream answers each line of the body when it comes, and has a trailer.
func stream(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	w.Header().Set("Trailer", "X-Sum")
	w.WriteHeader(http.StatusOK)
	_ = rc.Flush()
	n := 0
	for lines := bufio.NewScanner(r.Body); lines.Scan(); n++ {
		fmt.Fprintf(w, "got %s\n", lines.Text())
		_ = rc.Flush()
	}
	w.Header().Set("X-Sum", fmt.Sprintf("%d %s", n, r.Trailer.Get("X-Last")))
}

// upgrade becomes a connection that echoes lines.
func upgrade(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "echo" {
		http.Error(w, "want an upgrade", http.StatusBadRequest)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprint(conn, line)
	}
}

// bare is an answer with next to nothing in its head.
func bare(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 203 \r\nContent-Length: 6\r\nX-Bare: 1\r\nConnection: close\r\n\r\n<html>")
}

// sortedHead is an answer with its head's lines in order, and its reason left
// out.
func sortedHead(answer string) string {
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	lines[0] = lines[0][:min(len(lines[0]), len("HTTP/1.1 203"))]
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n\n" + body
}

// talk is a connection on which the test speaks HTTP by hand.
type talk struct {
	net.Conn
	*bufio.Reader
	t *testing.T
}

func dialTo(t *testing.T, at string) *talk {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &talk{conn, bufio.NewReader(conn), t}
}

func (c *talk) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// until reads lines up to one that has text in it, and returns all.
func (c *talk) until(text string) string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			c.t.Fatalf("waiting for %q: %v after %q", text, err, all.String())
		}
		if strings.Contains(line, text) {
			return all.String()
		}
	}
}

// A request that misses is treated as one that hits: whatever is in it and in
// its answer passes, both ways, as it comes.
func TestMissIsLikeAHit(t *testing.T) {
	s := newSite(t, "hit.example.org pod0\n", nil)
	s.run()
	n := 0
	// Each part of the test needs a host that misses.
	fresh := func() string {
		n++
		host := fmt.Sprintf("new%d.example.org", n)
		s.book.set(host, "pod0")
		return host
	}
	for _, kind := range []struct {
		name string
		host func() string
	}{{"hit", func() string { return "hit.example.org" }}, {"miss", fresh}} {
		t.Run(kind.name, func(t *testing.T) {
			t.Run("both ways at once, with trailers", func(t *testing.T) {
				c := dialTo(t, s.http)
				c.send("POST /stream HTTP/1.1\r\nHost: " + kind.host() + "\r\nTransfer-Encoding: chunked\r\nTrailer: X-Last\r\nTE: trailers\r\n\r\n")
				c.until("200 OK")
				for i := range 3 {
					c.send(fmt.Sprintf("6\r\nline%d\n\r\n", i))
					c.until(fmt.Sprintf("got line%d", i))
				}
				c.send("0\r\nX-Last: bye\r\n\r\n")
				if sum := c.until("x-sum:"); !strings.Contains(sum, "3 bye") {
					t.Errorf("trailer: %q", sum)
				}
			})
			t.Run("a large body", func(t *testing.T) {
				c := dialTo(t, s.http)
				const size = 8 << 20
				c.send(fmt.Sprintf("PUT /big HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", kind.host(), size))
				c.send(strings.Repeat("x", size))
				text, _ := io.ReadAll(c.Reader)
				if want := fmt.Sprintf("pod0 PUT /big %d", size); !strings.HasSuffix(string(text), want) {
					t.Errorf("got %q, want it to end in %q", text, want)
				}
			})
			t.Run("expectation met", func(t *testing.T) {
				c := dialTo(t, s.http)
				c.send("PUT /x HTTP/1.1\r\nHost: " + kind.host() + "\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
				c.until("HTTP/1.1 100")
				c.send("hello")
				c.until("HTTP/1.1 200")
				c.until("content-length:")
			})
			t.Run("expectation refused", func(t *testing.T) {
				c := dialTo(t, s.http)
				c.send("PUT /refuse HTTP/1.1\r\nHost: " + kind.host() + "\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
				if text := c.until("HTTP/1.1 "); !strings.Contains(text, "417") {
					t.Errorf("answer %q, want 417 and no 100 before it", text)
				}
			})
			t.Run("upgrade", func(t *testing.T) {
				c := dialTo(t, s.http)
				c.send("GET /upgrade HTTP/1.1\r\nHost: " + kind.host() + "\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
				c.until("HTTP/1.1 101")
				c.until("\r\n")
				for i := range 3 {
					c.send(fmt.Sprintf("ping %d\n", i))
					c.until(fmt.Sprintf("ping %d", i))
				}
			})
			t.Run("the target as it came", func(t *testing.T) {
				for _, target := range []string{"/a%2Fb//c/./../d;x=1?q=%2f&&y", "//x//", "/%7Euser?", "/a?b?c#", "*"} {
					method := "PATCH"
					if target == "*" {
						method = "OPTIONS"
					}
					c := dialTo(t, s.http)
					c.send(method + " " + strings.TrimSuffix(target, "#") + " HTTP/1.1\r\nHost: " + kind.host() + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					text, _ := io.ReadAll(c.Reader)
					if want := "pod0 " + method + " " + strings.TrimSuffix(target, "#") + " 0"; !strings.HasSuffix(string(text), want) {
						t.Errorf("got %q, want it to end in %q", text, want)
					}
				}
			})
			t.Run("what the pod leaves out", func(t *testing.T) {
				c := dialTo(t, s.http)
				c.send("GET /bare HTTP/1.1\r\nHost: " + kind.host() + "\r\nConnection: close\r\n\r\n")
				text, _ := io.ReadAll(c.Reader)
				if want := "HTTP/1.1 203 \r\ncontent-length: 6\r\nx-bare: 1\r\nconnection: close\r\n\r\n<html>"; sortedHead(string(text)) != sortedHead(want) {
					t.Errorf("got %q, want %q", text, want)
				}
			})
			t.Run("what the pod sees", func(t *testing.T) {
				host := kind.host()
				c := dialTo(t, s.http)
				forged := ""
				if kind.name == "miss" {
					forged = "X-Lb7d-Backend: pod1\r\nX-Lb7d-Source: 192.0.2.9\r\n"
				}
				c.send("GET /headers HTTP/1.1\r\nHost: " + host + "\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Forwarded-For: 192.0.2.7\r\nX-Odd_Name: v\r\n" + forged + "\r\n")
				text, _ := io.ReadAll(c.Reader)
				got := strings.ToLower(string(text))
				for _, want := range []string{"get /headers http/1.1", "host: " + host, "x-forwarded-for: 192.0.2.7", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http\r", "x-odd_name: v"} {
					if !strings.Contains(got, want) {
						t.Errorf("no %q in:\n%s", want, got)
					}
				}
				for _, none := range []string{"x-lb7d", "192.0.2.9", "user-agent: go", "via:", "accept-encoding"} {
					if strings.Contains(got, none) {
						t.Errorf("%q in:\n%s", none, got)
					}
				}
				if n := strings.Count(got, "x-forwarded-for: 127.0.0.1"); n != 1 {
					t.Errorf("our own address is in it %d times:\n%s", n, got)
				}
			})
		})
	}
	if s.dir.Status().Counters.Misses != uint64(n) {
		t.Errorf("%d misses, want %d", s.dir.Status().Counters.Misses, n)
	}
	// A client that goes away takes its request along.
	c := dialTo(t, s.http)
	c.send("POST /stream HTTP/1.1\r\nHost: " + fresh() + "\r\nTransfer-Encoding: chunked\r\n\r\n")
	c.until("200 OK")
	if open := s.dir.Status().Open; open != 1 {
		t.Errorf("%d requests pass through, want 1", open)
	}
	c.Close()
	s.wait("the request has ended", func() bool { return s.dir.Status().Open == 0 })
}
