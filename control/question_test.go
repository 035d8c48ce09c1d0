package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExplainRoundTrip: what lbctl asks arrives, and the answer or the refusal
// comes back. Over TCP there is no such request.
func TestExplainRoundTrip(t *testing.T) {
	want := &ExplainAnswer{
		Host: "lb4-1", Client: "203.0.113.7:40000", Service: "198.51.100.1:80/tcp", Slot: 7, Slots: 4093,
		Owner: &Destination{Member: "lb7-1", Address: "192.0.2.139:80", State: "down", Reason: "down: connection refused"},
	}
	var got ExplainRequest
	var failed error
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	s, err := Listen(Options{Socket: path, Log: slog.New(slog.DiscardHandler), Explain: func(_ context.Context, r ExplainRequest) (*ExplainAnswer, error) {
		got = r
		return want, failed
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, asked := NewClient(path), ExplainRequest{Client: "203.0.113.7:40000", Service: "198.51.100.1:80"}
	answer, err := c.Explain(t.Context(), asked)
	if err != nil || got != asked {
		t.Errorf("asked %+v: %v", got, err)
	}
	if diff := cmp.Diff(want, answer); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}

	for _, tt := range []struct {
		err    error
		status int
		want   string
	}{
		{&Refusal{404, "there is no such service"}, 404, "there is no such service"},
		{context.DeadlineExceeded, 503, "the answer was not found within 8s: try again"},
	} {
		failed = tt.err
		_, err := c.Explain(t.Context(), asked)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Status != tt.status || refusal.Reason != tt.want {
			t.Errorf("got %v, want %d %s", err, tt.status, tt.want)
		}
	}

	tcp := mustListen(t, s, "127.0.0.1:0")
	if status, _ := roundTrip(t, "unix", path, "GET /v1/explain HTTP/1.1\r\nHost: x\r\n\r\n"); status != 405 {
		t.Errorf("with GET: got %d, want 405", status)
	}
	const body = `{"client":"a","service":"b"}`
	if status, _ := roundTrip(t, "tcp", tcp, fmt.Sprintf("POST /v1/explain HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)); status != 404 {
		t.Errorf("over TCP: got %d, want 404", status)
	}
}

// TestPlanRoundTrip: a whole configuration fits into this request, whatever
// JSON makes of its bytes, and into no other one.
func TestPlanRoundTrip(t *testing.T) {
	share := 0.25
	want := &PlanAnswer{Host: "lb4-1", Services: []ServiceChange{{Service: "198.51.100.1:80/tcp", Change: "changed", Moved: &share}}}
	var got PlanRequest
	path := filepath.Join(t.TempDir(), "lb4d.sock")
	s, err := Listen(Options{
		Socket: path, Log: slog.New(slog.DiscardHandler),
		Plan: func(_ context.Context, r PlanRequest) (*PlanAnswer, error) {
			got = r
			return want, nil
		},
		Explain: func(context.Context, ExplainRequest) (*ExplainAnswer, error) { return &ExplainAnswer{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := NewClient(path)
	asked := PlanRequest{Name: "lb4d.toml", Config: strings.Repeat("\x01", MaxConfig)}
	answer, err := c.Plan(t.Context(), asked)
	if err != nil || got != asked {
		t.Errorf("%d bytes of %q arrived: %v", len(got.Config), got.Name, err)
	}
	if diff := cmp.Diff(want, answer); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}

	var refusal *Refusal
	if _, err := c.Plan(t.Context(), PlanRequest{Config: strings.Repeat("\x01", MaxConfig+maxBodyBytes)}); !errors.As(err, &refusal) || refusal.Status != 413 {
		t.Errorf("a larger one: got %v, want 413", err)
	}
	if _, err := c.Explain(t.Context(), ExplainRequest{Client: strings.Repeat("1", 2*maxBodyBytes)}); !errors.As(err, &refusal) || refusal.Status != 413 {
		t.Errorf("another request: got %v, want 413", err)
	}
	tcp := mustListen(t, s, "127.0.0.1:0")
	for _, method := range []string{"GET", "POST"} {
		if status, _ := roundTrip(t, "tcp", tcp, method+" /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"); status != 404 {
			t.Errorf("%s over TCP: got %d, want 404", method, status)
		}
	}
}
