package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// changeable serves on a socket of its own what drain and undrain answer.
func changeable(t *testing.T, drain, undrain func(context.Context, DrainRequest) (*DrainAnswer, error)) (*Server, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	s, err := Listen(Options{Socket: path, Version: "1.2.3", Drain: drain, Undrain: undrain, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

// TestDrainRoundTrip: what lbctl asks arrives, and what the daemon answers
// comes back.
func TestDrainRoundTrip(t *testing.T) {
	want := &DrainAnswer{
		Host: "lb4-1", Pool: "lb7", Member: "lb7-1", Changed: true, InEffect: true,
		Drained:  &Drain{Reason: "new disk", Since: at},
		Members:  []Member{{Pool: "lb7", Name: "lb7-1", State: "draining", Drained: &Drain{Reason: "new disk", Since: at}, ActiveFlows: 12}},
		Warnings: []string{"www has 0 of 1 members up, quorum 1"},
		Errors:   []string{"editing destination: no buffer space available"},
	}
	var got []DrainRequest
	_, path := changeable(t,
		func(_ context.Context, r DrainRequest) (*DrainAnswer, error) {
			got = append(got, r)
			return want, nil
		},
		func(_ context.Context, r DrainRequest) (*DrainAnswer, error) {
			got = append(got, r)
			return &DrainAnswer{Was: want.Drained}, nil
		})
	c := NewClient(path)
	answer, err := c.Drain(t.Context(), DrainRequest{Member: "lb7/lb7-1", Reason: "new disk", Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, answer); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	answer, err = c.Undrain(t.Context(), DrainRequest{Member: "lb7-1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&DrainAnswer{Was: want.Drained, Members: []Member{}}, answer); diff != "" {
		t.Errorf("answer to undrain (-want +got):\n%s", diff)
	}
	asked := []DrainRequest{{Member: "lb7/lb7-1", Reason: "new disk", Force: true}, {Member: "lb7-1"}}
	if diff := cmp.Diff(asked, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestChangesOnTheSocketOnly: whoever reaches the TCP listener may read, and no
// more.
func TestChangesOnTheSocketOnly(t *testing.T) {
	asked := 0
	do := func(context.Context, DrainRequest) (*DrainAnswer, error) {
		asked++
		return &DrainAnswer{}, nil
	}
	s, path := changeable(t, do, do)
	tcp := mustListen(t, s, "127.0.0.1:0")
	const body = `{"member":"lb7-1","force":true}`
	for _, verb := range []string{"drain", "undrain"} {
		for _, tt := range []struct {
			network, addr, method string
			status, asked         int
		}{
			{"tcp", tcp, "POST", 404, 0},
			{"tcp", tcp, "PUT", 404, 0},
			{"tcp", tcp, "GET", 404, 0},
			{"unix", path, "GET", 405, 0},
			{"unix", path, "PUT", 405, 0},
			{"unix", path, "POST", 200, 1},
		} {
			asked = 0
			status, answer := roundTrip(t, tt.network, tt.addr, fmt.Sprintf(
				"%s /v1/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", tt.method, verb, len(body), body))
			if status != tt.status || asked != tt.asked {
				t.Errorf("%s /v1/%s over %s: got %d %q and asked the daemon %d times, want %d and %d",
					tt.method, verb, tt.network, status, answer, asked, tt.status, tt.asked)
			}
		}
	}
	// With a path that is spelled otherwise, no way leads there either.
	for _, target := range []string{"//v1/drain", "/v1/../v1/drain", "/v1/drain/", "/V1/DRAIN", "/v1/drain?force=true", "*"} {
		status, _ := roundTrip(t, "tcp", tcp, "POST "+target+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
		if status == 200 || asked != 1 {
			t.Errorf("POST %s over TCP: got %d", target, status)
		}
	}
}

// TestDrainRefused: the daemon's words reach the one who asked, with a status
// for programs.
func TestDrainRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		status int
		want   string
	}{
		{"a refusal", &Refusal{404, `there is no member "x"; there is lb7-1`}, 404, `there is no member "x"; there is lb7-1`},
		{"a wrapped refusal", fmt.Errorf("draining: %w", &Refusal{409, "needs --force"}), 409, "needs --force"},
		{"the daemon's own fault", errors.New("writing state: read-only file system"), 500, "writing state: read-only file system"},
		{"no time", context.DeadlineExceeded, 503, "lb4d has not carried it out within 8s and may still do so: see lbctl status"},
		{"many lines", &Refusal{400, "one\ntwo\r\nthree"}, 400, "one two three"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, path := changeable(t, func(context.Context, DrainRequest) (*DrainAnswer, error) { return nil, tt.err }, nil)
			_, err := NewClient(path).Drain(t.Context(), DrainRequest{Member: "x"})
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Status != tt.status || refusal.Error() != tt.want {
				t.Errorf("got %#v, want %d %q", err, tt.status, tt.want)
			}
		})
	}
}

// TestDrainBody: what is not understood in full is not carried out at all.
func TestDrainBody(t *testing.T) {
	asked := 0
	handler := serveDrain(func(context.Context, DrainRequest) (*DrainAnswer, error) {
		asked++
		return &DrainAnswer{}, nil
	})
	for _, tt := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"nothing", "", 400, "reading the request: EOF"},
		{"no JSON", "member=lb7-1", 400, "reading the request: invalid character"},
		{"cut off", `{"member":"lb7-1"`, 400, "reading the request: unexpected EOF"},
		{"a list", `["lb7-1"]`, 400, "reading the request: json: cannot unmarshal array"},
		{"an unknown field", `{"member":"lb7-1","for":"30m"}`, 400, `unknown field \"for\"`},
		{"a number for a name", `{"member":1}`, 400, "cannot unmarshal number"},
		{"two at once", `{"member":"lb7-1"}{"member":"lb7-2"}`, 400, "something follows the JSON object"},
		{"much too long", `{"member":"` + strings.Repeat("x", maxBodyBytes) + `"}`, 413, "it has more than 65536 bytes"},
		{"right, with space around it", " {\"member\":\"lb7-1\"}\n", 200, `"members":[]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked = 0
			rec := httptest.NewRecorder()
			http.MaxBytesHandler(handler, maxBodyBytes).ServeHTTP(rec, httptest.NewRequest("POST", "/v1/drain", strings.NewReader(tt.body)))
			if rec.Code != tt.status || !strings.Contains(rec.Body.String(), tt.want) {
				t.Errorf("got %d %s, want %d with %s", rec.Code, rec.Body, tt.status, tt.want)
			}
			if (asked == 1) != (tt.status == 200) {
				t.Errorf("asked the daemon %d times", asked)
			}
		})
	}
}

// TestDrainDeadline: a daemon that does not get to it is not waited for
// forever, and the answer still comes within the server's own bound.
func TestDrainDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := serveDrain(func(ctx context.Context, _ DrainRequest) (*DrainAnswer, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		begin := time.Now()
		rec := httptest.NewRecorder()
		handler(rec, httptest.NewRequest("POST", "/v1/drain", strings.NewReader(`{}`)))
		if took := time.Since(begin); took != changeTimeout || took >= writeTimeout {
			t.Errorf("took %s, want %s, which is less than %s", took, changeTimeout, writeTimeout)
		}
		if rec.Code != 503 || !strings.Contains(rec.Body.String(), "may still do so") {
			t.Errorf("got %d %s", rec.Code, rec.Body)
		}
	})
}

// TestDrainAsksAnOlderDaemon: one that has no such request, and something that
// is no lb4d.
func TestDrainAsksAnOlderDaemon(t *testing.T) {
	_, path := start(t)
	_, err := NewClient(path).Drain(t.Context(), DrainRequest{Member: "x"})
	if want := "answered 404 Not Found: 404 page not found"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}

	other := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })}
	go srv.Serve(l)
	defer srv.Close()
	_, err = NewClient(other).Undrain(t.Context(), DrainRequest{Member: "x"})
	if want := "are lbctl and lb4d of the same version?"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
