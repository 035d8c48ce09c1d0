package agent

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"lb4d/internal/haproxytest"
)

// haproxy is Debian's HAProxy with one server, whose agent is asked every 50 ms.
type haproxy struct {
	t      *testing.T
	socket string
	front  string // address of the frontend
}

// startHAProxy runs one that asks the agent at that port.
func startHAProxy(t *testing.T, agentPort int) *haproxy {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "served") }))
	t.Cleanup(server.Close)
	front := fmt.Sprint("127.0.0.1:", haproxytest.FreePort(t))
	p := haproxytest.Start(t, fmt.Sprintf(`
defaults
	mode http
	timeout connect 2s
	timeout client 10s
	timeout server 10s
	timeout queue 1s
frontend front
	bind %s
	default_backend servers
backend servers
	server one %s weight 100 maxconn 50 agent-check agent-addr 127.0.0.1 agent-port %d agent-inter 50ms agent-send "hello\n"
`, front, server.Listener.Addr(), agentPort))
	return &haproxy{t: t, socket: p.Socket, front: front}
}

func (h *haproxy) await(what string, cond func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("waiting for %s: %v", what, h.stat())
		}
	}
}

// ask sends one command to the Runtime API.
func (h *haproxy) ask(command string) string {
	h.t.Helper()
	c, err := net.Dial("unix", h.socket)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintln(c, command)
	b, err := io.ReadAll(c)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// stat is the server's line of "show stat", by column.
func (h *haproxy) stat() map[string]string {
	h.t.Helper()
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(h.ask("show stat"), "# "))).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil
	}
	for _, row := range rows[1:] {
		if row[1] == "one" {
			s := make(map[string]string)
			for i, name := range rows[0] {
				if i < len(row) {
					s[name] = row[i]
				}
			}
			return s
		}
	}
	return nil
}

// state is "UP 100", the status and the weight.
func (h *haproxy) state() string {
	s := h.stat()
	// A server without health checks that is up has this status.
	return strings.Replace(s["status"], "no check", "UP", 1) + " " + s["weight"]
}

// served tells whether a request is.
func (h *haproxy) served() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.front, nil)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// TestHAProxyObeys: what the real HAProxy makes of each content, from whatever
// was before it, and that taking the file away brings the server back.
func TestHAProxyObeys(t *testing.T) {
	s := serve(t)
	h := startHAProxy(t, int(s.Status().Listen[0].Port()))
	is := func(want string) {
		t.Helper()
		h.await(want, func() bool { return h.state() == want })
	}
	is("UP 100")
	for _, tt := range []struct {
		content, want string
		serves        bool
	}{
		{"drain # new disk\n", "DRAIN (agent) 100", false},
		{"down # broken\n", "DOWN (agent) 100", false},
		{"MAINT\n", "MAINT 100", false},
		{"stopped", "DOWN (agent) 100", false},
		{"drain, up\n", "DRAIN (agent) 100", false},
		{"fail\n", "DOWN (agent) 100", false},
		{"ready\n", "UP 100", true},
		{"# by hand\n\n  25%\n", "UP 25", true},
		{"up ready 100%", "UP 100", true},
	} {
		s.put(t, tt.content)
		h.await(fmt.Sprintf("%q to make it %s", tt.content, tt.want), func() bool {
			return h.state() == tt.want
		})
		if h.served() != tt.serves {
			t.Errorf("%q: a request is served: %t, want %t; HAProxy says %v", tt.content, !tt.serves, tt.serves, h.stat())
		}
		if _, err := Remove(s.file); err != nil {
			t.Fatal(err)
		}
		weight := "100"
		if strings.Contains(tt.content, "25%") {
			weight = "25" // HAProxy keeps it until it is told another
		}
		is("UP " + weight)
		if !h.served() {
			t.Errorf("after %q the server is not back", tt.content)
		}
	}
	// The reason is shown where HAProxy shows one.
	if err := Write(s.file, "down", "disk of köln is broken"); err != nil {
		t.Fatal(err)
	}
	is("DOWN (agent) 100")
	h.await("the reason", func() bool { return strings.Contains(h.stat()["last_agt"], "disk of") })
	t.Logf("HAProxy shows %q", h.stat()["last_agt"])
	if err := Write(s.file, "up maxconn:7", ""); err != nil {
		t.Fatal(err)
	}
	h.await("maxconn 7", func() bool { return h.stat()["slim"] == "7" })
}

// TestHAProxyKeepsWhatItHas: where the agent has nothing good to say, HAProxy
// changes nothing.
func TestHAProxyKeepsWhatItHas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent-check")
	if err := os.WriteFile(file, []byte("drain\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serve(t, func(o *Options) { o.File = file })
	h := startHAProxy(t, int(s.Status().Listen[0].Port()))
	drained := func() bool { return strings.HasPrefix(h.state(), "DRAIN") }
	h.await("the drain", drained)
	checks := func(n uint64) {
		t.Helper()
		from := s.Status().Questions
		h.await("more checks", func() bool { return s.Status().Questions > from+n })
	}
	s.put(t, "drian\n")
	checks(10)
	if !drained() {
		t.Errorf("after a typing error: %v", h.stat())
	}
	// A new agent has nothing that was ever good.
	port := s.Status().Listen[0]
	s.Close()
	s = serve(t, func(o *Options) { o.File, o.Listen[0] = file, port })
	if st := s.Status(); st.Source != FromNothing || st.Answer != "" {
		t.Errorf("status %+v", st)
	}
	checks(10)
	if !drained() {
		t.Errorf("after a restart of the agent: %v", h.stat())
	}
	s.put(t, "up ready\n")
	h.await("the end of the drain", func() bool { return h.state() == "UP 100" })
}

// TestWhatBringsAServerBack is why DefaultAnswer is "up ready": neither word does
// alone.
func TestWhatBringsAServerBack(t *testing.T) {
	for _, tt := range []struct {
		put, back string
		serves    bool
	}{
		{"drain", "up", false},
		{"drain", "ready", true},
		{"maint", "up", false},
		{"maint", "ready", true},
		{"down", "ready", false},
		{"down", "up", true},
	} {
		t.Run(tt.put+" then "+tt.back, func(t *testing.T) {
			// A listener that says just that.
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			say := make(chan string, 1)
			asked := make(chan struct{}, 1000)
			say <- tt.put
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					word := <-say
					say <- word
					fmt.Fprintln(c, word)
					c.(*net.TCPConn).CloseWrite()
					io.Copy(io.Discard, c)
					c.Close()
					select {
					case asked <- struct{}{}:
					default:
					}
				}
			}()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			n, _ := strconv.Atoi(port)
			h := startHAProxy(t, n)
			h.await(tt.put, func() bool { return !strings.HasPrefix(h.state(), "UP") })
			<-say
			say <- tt.back
			for range len(asked) {
				<-asked
			}
			for range 10 {
				<-asked
			}
			if up := strings.HasPrefix(h.state(), "UP"); up != tt.serves {
				t.Errorf("state %q, want served %t", h.state(), tt.serves)
			}
		})
	}
}

// TestRuntimeDrain: "ready" undoes a drain that was set through the Runtime API,
// and with another default that drain stands.
func TestRuntimeDrain(t *testing.T) {
	for _, tt := range []struct {
		fallback string
		stands   bool
	}{{"up ready", false}, {"up", true}} {
		s := serve(t, func(o *Options) { o.Default = tt.fallback })
		h := startHAProxy(t, int(s.Status().Listen[0].Port()))
		h.await("the server", func() bool { return s.Status().Questions > 0 && h.state() == "UP 100" })
		if said := strings.TrimSpace(h.ask("set server servers/one state drain")); said != "" {
			t.Fatal(said)
		}
		from := s.Status().Questions
		h.await("more checks", func() bool { return s.Status().Questions > from+5 })
		if stands := strings.HasPrefix(h.state(), "DRAIN"); stands != tt.stands {
			t.Errorf("with the default %q: %s, want the drain to stand: %t", tt.fallback, h.state(), tt.stands)
		}
	}
}
