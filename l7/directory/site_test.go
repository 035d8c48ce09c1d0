package directory

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lb4d/internal/haproxytest"
)

// The shipped configuration has no fault and no warning.
func TestExampleIsValid(t *testing.T) {
	dir := t.TempDir()
	config := strings.ReplaceAll(example(t, "127.0.0.1:6281", [3]uint16{8080, 8443, 8081}), "DIR", dir)
	for name, text := range map[string]string{"haproxy.cfg": config, "pods.map": "", "hand.map": "", "certs/a.pem": certificate(t, "*.example.org"), "certs/b.pem": certificate(t, "www.example.net")} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(haproxytest.Program(t), "-c", "-dW", "-f", filepath.Join(dir, "haproxy.cfg")).CombinedOutput()
	if err != nil {
		t.Errorf("haproxy -c: %v\n%s", err, out)
	}
}

// A new host is asked for once and is in the map from then on; what is no
// answer is not.
func TestHosts(t *testing.T) {
	s := newSite(t, "", nil)
	s.book.set("a.example.org", "pod0")
	s.book.set("b.example.org", "pod1")
	s.book.set("wrong.example.org", "nowhere")
	s.book.set("circle.example.org", "misses")
	s.book.set("evil.example.org", "pod0\nset server pod0/pod0 state maint")
	s.run()
	want := map[string]string{}
	for _, c := range []struct {
		host   string
		status int
		text   string
		calls  int // of this host, after both requests
		line   string
	}{
		{"a.example.org", 200, "pod0 GET /x?a=%zz;b 0", 1, "pod0"},
		{"B.example.ORG:8080", 200, "pod1 GET /x?a=%zz;b 0", 1, "pod1"},
		{"a.example.org.", 200, "pod0 GET /x?a=%zz;b 0", 1, ""},
		{"none.example.org", 404, "no such host\n", 1, ""},
		{"wrong.example.org", 503, "the host's place is not known at the moment\n", 2, ""},
		{"circle.example.org", 503, "the host's place is not known at the moment\n", 2, ""},
		{"evil.example.org", 503, "the host's place is not known at the moment\n", 2, ""},
		{"192.0.2.1", 400, "the Host header is no host's name\n", 0, ""},
		{"[2001:db8::1]:80", 400, "the Host header is no host's name\n", 0, ""},
		{"-a.example.org", 400, "the Host header is no host's name\n", 0, ""},
	} {
		for range 2 {
			if status, text := s.get(c.host); status != c.status || text != c.text {
				t.Errorf("%s: %d %q, want %d %q", c.host, status, text, c.status, c.text)
			}
		}
		host, _, _ := hostOf(c.host)
		if n := s.book.askedFor(host); n != c.calls {
			t.Errorf("%s: asked for %d times, want %d", c.host, n, c.calls)
		}
		if c.line != "" {
			want[host] = c.line
		}
	}
	s.wait("both hosts are in the map", func() bool { return len(s.lines()) >= 2 })
	if diff := cmp.Diff(want, s.lines()); diff != "" {
		t.Errorf("the map (-want +got):\n%s", diff)
	}
	if n := s.dir.Status().Counters.Wrong; n != 6 {
		t.Errorf("%d wrong answers counted, want 6", n)
	}
	if !strings.Contains(s.say("show servers state pod0"), "pod0") || strings.Contains(s.say("show stat pod0 4 -1"), "MAINT") {
		t.Error("an answer did something to a server")
	}

	// With TLS, the name in the handshake chooses the certificate.
	before := s.dir.Status().Counters.Misses
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: "a.example.org", InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	defer c.CloseIdleConnections()
	req, _ := http.NewRequest(http.MethodGet, "https://"+s.https+"/tls", nil)
	req.Host = "a.example.org"
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 || resp.TLS.PeerCertificates[0].Subject.CommonName != "*.example.org" {
		t.Errorf("over TLS: %s %s", resp.Proto, resp.Status)
	}
	if _, err := tls.Dial("tcp", s.https, &tls.Config{ServerName: "www.elsewhere.example", InsecureSkipVerify: true}); err == nil {
		t.Error("a handshake for a name without a certificate succeeds")
	}
	if n := s.dir.Status().Counters.Misses - before; n != 0 {
		t.Errorf("%d requests of a known host left HAProxy", n)
	}

	// Forgotten, it is asked for again.
	if known, err := s.dir.Forget(t.Context(), "A.example.org"); !known || err != nil {
		t.Errorf("Forget: %t, %v", known, err)
	}
	if _, ok := s.lines()["a.example.org"]; ok {
		t.Error("a forgotten host is in the map")
	}
	s.book.set("a.example.org", "pod2")
	if _, text := s.get("a.example.org"); !strings.HasPrefix(text, "pod2 ") {
		t.Errorf("after it moved: %q", text)
	}
	a, err := s.dir.Lookup(t.Context(), "a.example.org")
	if err != nil || a.Backend != "pod2" || !a.Cached || a.Source != "directory" || a.Stale {
		t.Errorf("Lookup: %+v, %v", a, err)
	}
}

// One call serves all who wait for it, and the first of them may go away.
func TestOneCall(t *testing.T) {
	s := newSite(t, "", nil)
	s.book.set("new.example.org", "pod1")
	s.book.wait.Store(int64(300 * time.Millisecond))
	s.run()
	var wg sync.WaitGroup
	var good atomic.Int64
	for range 200 {
		wg.Go(func() {
			if status, text, err := fetch(s.http, "new.example.org"); err == nil && status == 200 && strings.HasPrefix(text, "pod1 ") {
				good.Add(1)
			}
		})
	}
	wg.Wait()
	if good.Load() != 200 || s.book.calls.Load() != 1 {
		t.Errorf("%d of 200 requests went well, %d calls, want 200 and 1", good.Load(), s.book.calls.Load())
	}
	s.wait("the host is in the map", func() bool { return len(s.lines()) == 1 })
	left := s.dir.Status().Counters.Misses
	for range 50 {
		s.get("new.example.org")
	}
	if n := s.dir.Status().Counters.Misses; n != left || s.book.calls.Load() != 1 {
		t.Errorf("%d requests left HAProxy with the host in the map, and %d calls", n-left, s.book.calls.Load())
	}
}

// Unknown hosts go to the default back end where there is one.
func TestDefaultBackend(t *testing.T) {
	s := newSite(t, "", func(c *Config) { c.DefaultBackend = "pod2" })
	s.run()
	for _, host := range []string{"none.example.org", "192.0.2.1"} {
		if _, text := s.get(host); !strings.HasPrefix(text, "pod2 ") {
			t.Errorf("%s: %q", host, text)
		}
	}
	if len(s.lines()) != 0 {
		t.Errorf("the map has %v", s.lines())
	}
}

// Where back ends are listed, an answer may name those alone, as far as HAProxy
// has them.
func TestListedBackends(t *testing.T) {
	s := newSite(t, "old.example.org pod1\nlost.example.org nowhere\n", func(c *Config) {
		c.Backends, c.DefaultBackend = []string{"pod0", "pod9"}, "misses"
	})
	s.book.set("a.example.org", "pod0")
	s.book.set("b.example.org", "pod1")
	s.book.set("c.example.org", "pod9")
	s.run()
	for host, want := range map[string]int{"a.example.org": 200, "b.example.org": 503, "c.example.org": 503} {
		if status, _ := s.get(host); status != want {
			t.Errorf("%s: %d, want %d", host, status, want)
		}
	}
	s.wait("the map has what it may", func() bool { return cmp.Equal(s.lines(), map[string]string{"a.example.org": "pod0"}) })
	if p := strings.Join(s.dir.Status().Problems, "; "); p != "HAProxy has no back end pod9, misses, or one that leads to lb7d itself" {
		t.Errorf("problems: %s", p)
	}
}

// A list of all hosts fills the map at the start, in one call.
func TestBulk(t *testing.T) {
	t.Parallel()
	s := newSite(t, "old.example.org pod0\n", func(c *Config) { c.BulkInterval = time.Second })
	s.cfg.BulkURL = s.book.URL + "/all"
	want := map[string]string{"old.example.org": "pod0"}
	for i := range 5000 {
		host, pod := fmt.Sprintf("h%d.example.org", i), fmt.Sprintf("pod%d", i%3)
		s.book.set(host, pod)
		want[host] = pod
	}
	s.book.set("wrong.example.org", "nowhere")
	s.run()
	s.wait("the map is full", func() bool { return len(s.lines()) == len(want) })
	if diff := cmp.Diff(want, s.lines()); diff != "" {
		t.Errorf("the map (-want +got):\n%s", diff)
	}
	if n := s.book.calls.Load(); n != 0 {
		t.Errorf("%d calls for single hosts", n)
	}
	// Many change at once.
	for i := range 100 {
		host := fmt.Sprintf("h%d.example.org", i)
		s.book.set(host, "pod2")
		want[host] = "pod2"
	}
	s.wait("the changes are in the map", func() bool { return cmp.Equal(want, s.lines()) })
	// And the file follows, for the next start.
	s.wait("the file is written", func() bool {
		text, _ := os.ReadFile(s.cfg.Map)
		return strings.Count(string(text), "\n") == len(want)+1 && strings.Contains(string(text), "h99.example.org pod2\n")
	})
	writes := s.dir.Status().Counters.FileWrites
	time.Sleep(2500 * time.Millisecond)
	if n := s.dir.Status().Counters.FileWrites; n != writes {
		t.Errorf("the file was written %d times with nothing changed", n-writes)
	}
}
