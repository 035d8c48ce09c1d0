package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, kind, body string
		status           int
		want             string
		err              error
	}{
		{"text", "text/plain", "pod1\r\n", 200, "pod1", nil},
		{"no kind", "", "pod1", 200, "pod1", nil},
		{"JSON string", "application/json; charset=utf-8", `"pod1"`, 200, "pod1", nil},
		{"JSON object", "application/json", `{"host":"x","backend":"pod1"}`, 200, "pod1", nil},
		{"JSON without it", "application/json", `{"host":"x"}`, 200, "", ErrWrong},
		{"broken JSON", "application/json", `{"backend":`, 200, "", ErrWrong},
		{"empty", "text/plain", "", 200, "", ErrWrong},
		{"two words", "text/plain", "pod1 pod2", 200, "", ErrWrong},
		{"a command", "text/plain", "pod1;show", 200, "", ErrWrong},
		{"a page", "text/html", "<html>login</html>", 200, "", ErrWrong},
		{"too long", "text/plain", strings.Repeat("a", maxAnswer+1), 200, "", ErrWrong},
		{"not found", "text/plain", "x", 404, "", ErrUnknown},
		{"gone", "text/plain", "x", 410, "", ErrUnknown},
		{"no content", "", "", 204, "", ErrUnknown},
		{"moved", "text/plain", "x", 302, "", ErrAway},
		{"error", "text/plain", "x", 500, "", ErrAway},
		{"forbidden", "text/plain", "x", 403, "", ErrAway},
	} {
		t.Run(c.name, func(t *testing.T) {
			var path string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				path = r.URL.Path
				w.Header()["Content-Type"] = []string{c.kind}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer s.Close()
			got, err := newClient(s.URL+"/at/{host}", "", 1).one(t.Context(), "www.example.org")
			if got != c.want || !errors.Is(err, c.err) || path != "/at/www.example.org" {
				t.Errorf("asked %s: %q, %v; want %q, %v", path, got, err, c.want, c.err)
			}
		})
	}
	// The deadline is told as such, and an address that may hold a password is not.
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Nanosecond, errors.New("no answer within 1ns"))
	defer cancel()
	if _, err := newClient("http://user:secret@192.0.2.1/{host}", "", 1).one(ctx, "a"); !errors.Is(err, ErrAway) || err.Error() != "the directory does not answer: no answer within 1ns" {
		t.Errorf("deadline: %v", err)
	}
	if _, err := newClient("http://user:secret@127.0.0.1:1/{host}", "", 1).one(t.Context(), "a"); !errors.Is(err, ErrAway) || strings.Contains(err.Error(), "secret") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestLists(t *testing.T) {
	for _, c := range []struct {
		name, kind, body string
		want             []string
		bad              int
		err              error
	}{
		{"text", "text/plain", "# all\na.example pod0\n\nB.example  pod1\r\n", []string{"a.example pod0", "b.example pod1"}, 0, nil},
		{"JSON", "application/json", `{"a.example":"pod0","b.example":"pod1"}`, []string{"a.example pod0", "b.example pod1"}, 0, nil},
		{"some wrong", "text/plain", "a.example pod0\n192.0.2.1 pod0\nb.example pod 1\nc.example\nd.example. pod0\n", []string{"a.example pod0"}, 4, nil},
		{"JSON cut short", "application/json", `{"a.example":"pod0","b.ex`, []string{"a.example pod0"}, 0, ErrWrong},
		{"JSON of another kind", "application/json", `["a.example"]`, nil, 0, ErrWrong},
		{"JSON with a number", "application/json", `{"a.example":1}`, nil, 0, ErrWrong},
		{"an endless line", "text/plain", strings.Repeat("a", 1<<17), nil, 0, ErrWrong},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.kind)
				_, _ = io.WriteString(w, c.body)
			}))
			defer s.Close()
			var got []string
			bad, err := newClient("", s.URL, 1).all(t.Context(), func(host, backend string) bool {
				got = append(got, host+" "+backend)
				return true
			})
			if diff := cmp.Diff(c.want, got); diff != "" || bad != c.bad || !errors.Is(err, c.err) {
				t.Errorf("%d bad, %v (-want +got):\n%s", bad, err, diff)
			}
		})
	}
	if _, err := (&counted{r: strings.NewReader("x")}).Read(make([]byte, 1)); !errors.Is(err, ErrWrong) {
		t.Errorf("beyond the bound: %v", err)
	}
}

// Every fault of a configuration is told with its field.
func TestCheckConfig(t *testing.T) {
	good := Config{
		Name: "pods", URL: "http://127.0.0.1/{host}", Map: "/m", Socket: "/s", Listen: "127.0.0.1:1", Forward: "/f",
		Timeout: 1, TTL: 1, NegativeTTL: 1, MaxEntries: 1, MaxCalls: 1, CallRate: 1, MaxRequests: 1,
	}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	err := Config{URL: "http://127.0.0.1/", BulkURL: "x", Map: "m", Listen: "here", Forward: "here", Backends: []string{"a b"}, DefaultBackend: "c d"}.Check()
	for _, want := range []string{"url:", "bulk_url:", "bulk_interval:", "map:", "listen:", "forward:", "timeout:", "ttl:", "negative_ttl:", "max_entries:", "max_calls:", "call_rate:", "max_requests:", "backends:", "default_backend:"} {
		if !strings.Contains(fmt.Sprint("\n", err), "\n"+want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}
