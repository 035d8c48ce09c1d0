package control

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// start serves on a socket in a directory of its own.
func start(t *testing.T) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	s, err := Listen(Options{Socket: path, Version: "1.2.3", Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, path
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// at is a fixed time; JSON keeps no monotonic clock, so it survives the wire.
var at = time.Date(2024, 5, 17, 3, 12, 45, 0, time.UTC)

func TestStatusIsWhatWasPublished(t *testing.T) {
	s, path := start(t)
	c := NewClient(path)
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.State != "starting" || got.Version != "1.2.3" || got.PID == 0 || got.Updated.IsZero() {
		t.Errorf("before the first Publish: got %+v, want starting, 1.2.3, a pid and a time", got)
	}
	want := fixture()
	s.Publish(want)
	if got, err = c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestStatusHasNoNull(t *testing.T) {
	s, path := start(t)
	st := &Status{State: "running", VIPs: []VIP{{}}, Services: []Service{{}}}
	s.Publish(st)
	body, err := NewClient(path).RawStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(body, []byte("null")) {
		t.Errorf("got null in %s", body)
	}
	if st.VIPs[0].Services != nil || st.Members != nil {
		t.Error("Publish changed what it was given")
	}
}

func TestClientsAtOnce(t *testing.T) {
	s, path := start(t)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			c := NewClient(path)
			for range 50 {
				if _, err := c.Status(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 200 {
		s.Publish(&Status{State: "running", Counters: Counters{Passes: uint64(i)}})
	}
	wg.Wait()
}

func TestRoutes(t *testing.T) {
	s, path := start(t)
	s.Publish(&Status{State: "running", Updated: time.Now(), Summary: "all is well"})
	for _, tt := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET /v1/status", 200, `"state":"running"`},
		{"HEAD /v1/status", 200, ""},
		{"POST /v1/status", 405, ""},
		{"DELETE /metrics", 405, ""},
		{"GET /metrics", 200, `lb4d_state{state="running"} 1`},
		{"GET /healthz", 200, "ok: all is well\n"},
		{"HEAD /healthz", 200, ""},
		{"GET /", 404, ""},
		{"GET /v2/status", 404, ""},
	} {
		status, body := roundTrip(t, "unix", path, tt.request+" HTTP/1.1\r\nHost: x\r\n\r\n")
		if status != tt.status || !strings.Contains(body, tt.body) || strings.HasPrefix(tt.request, "HEAD") && body != "" {
			t.Errorf("%s: got %d %q, want %d with %q", tt.request, status, body, tt.status, tt.body)
		}
	}
}

// roundTrip sends raw bytes and reads one answer, status 0 being none.
func roundTrip(t *testing.T, network, addr, request string) (int, string) {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(conn, request) // the answer may come before its end
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	// A server that hangs up on a request in the middle cuts its answer's
	// body off as well.
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func TestHugeRequestIsRefused(t *testing.T) {
	_, path := start(t)
	big := strings.Repeat("a", 1<<20)
	for name, tt := range map[string]struct {
		request string
		want    int
	}{
		"header": {"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Big: " + big + "\r\n\r\n", 431},
		"path":   {"GET /" + big + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
		"body":   {"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n" + big, 405},
	} {
		if got, body := roundTrip(t, "unix", path, tt.request); got != tt.want {
			t.Errorf("1 MB of %s: got %d %q, want %d", name, got, body, tt.want)
		}
	}
}

// TestSlowClientsMakeRoom takes every connection there is and sends a byte
// now and then, as slow-loris does. The bound on the header's time gives them
// back.
func TestSlowClientsMakeRoom(t *testing.T) {
	t.Parallel()
	s, path := start(t)
	if err := s.SetListen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	for _, l := range []struct{ network, addr string }{{"unix", path}, {"tcp", s.HTTPAddr().String()}} {
		var slow []net.Conn
		for range maxConns {
			conn, err := net.Dial(l.network, l.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nX-Slow: ")
			slow = append(slow, conn)
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				for _, conn := range slow {
					io.WriteString(conn, "a") // fails once it is cut off
				}
			}
		})
		begin := time.Now()
		status, body := roundTrip(t, l.network, l.addr, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
		if status != 200 {
			t.Errorf("%s: behind %d slow clients got %d %q, want 200", l.network, maxConns, status, body)
		}
		t.Logf("%s: answered after %s", l.network, time.Since(begin).Round(time.Millisecond))
		close(stop)
		wg.Wait()
	}
}

func TestCloseIsBounded(t *testing.T) {
	s, path := start(t)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1/status HTTP/1.1\r\n")
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 5*stopTimeout {
		t.Errorf("Close took %s with a slow client", took)
	}
	if err := s.SetListen("127.0.0.1:0"); err == nil {
		t.Error("SetListen after Close: got no error")
	}
	if _, err := NewClient(path).Status(t.Context()); err == nil {
		t.Error("Status after Close: got no error")
	}
}

func TestHealthzFollowsTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer("1.2.3", slog.New(slog.DiscardHandler))
		ask := func() string {
			rec := httptest.NewRecorder()
			s.routes().ServeHTTP(rec, httptest.NewRequest("GET", "/healthz", nil))
			return fmt.Sprint(rec.Code, " ", rec.Body.String())
		}
		publish := func(state, summary string) {
			s.Publish(&Status{State: state, Summary: summary, Updated: time.Now()})
		}
		for _, step := range []struct {
			name string
			do   func()
			want string
		}{
			{"no pass yet", func() {}, "503 starting: the first pass has not ended\n"},
			{"starting", func() { publish("starting", "starting: waiting for 2 checks") }, "503 starting: waiting for 2 checks\n"},
			{"running", func() { publish("running", "2 of 2 VIPs\nannounced") }, "200 ok: 2 of 2 VIPs announced\n"},
			{"as old as may be", func() { time.Sleep(StaleAfter) }, "200 ok: 2 of 2 VIPs announced\n"},
			{"stuck", func() { time.Sleep(12 * time.Second) }, "503 stuck: no pass has ended for 42s; the last said: 2 of 2 VIPs announced\n"},
			{"alive again", func() { publish("running", "1 of 2 VIPs announced") }, "200 ok: 1 of 2 VIPs announced\n"},
			{"stopping", func() { publish("stopping", "draining") }, "503 stopping: draining\n"},
		} {
			step.do()
			if got := ask(); got != step.want {
				t.Errorf("%s: got %q, want %q", step.name, got, step.want)
			}
		}
	})
}

func TestClientIsBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   string
	}{
		"no json":  {func(w http.ResponseWriter) { io.WriteString(w, "hello") }, "it is no JSON: is it lb4d that listens there?"},
		"other":    {func(w http.ResponseWriter) { io.WriteString(w, `{"pid":"one"}`) }, "are lbctl and lb4d of the same version?"},
		"fault":    {func(w http.ResponseWriter) { http.Error(w, "no such thing\nor two", 404) }, "answered 404 Not Found: no such thing"},
		"redirect": {func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(302) }, "answered 302 Found"},
		"endless": {func(w http.ResponseWriter) {
			for block := bytes.Repeat([]byte(" "), 1<<20); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, "it has more than 32 MiB"},
		"cut off": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, ": EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tt.answer(w) })}
			go srv.Serve(l)
			defer srv.Close()
			_, err = NewClient(path).Status(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got error %q, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestClientGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path) // which nobody accepts from
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = NewClient(path).Status(ctx)
	if want := "it may be stuck"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one with %q", err, want)
	}
}
