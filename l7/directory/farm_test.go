package directory

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb4d/internal/haproxytest"
)

// book is a directory service.
type book struct {
	*httptest.Server
	mu    sync.Mutex
	hosts map[string]string
	asked map[string]int
	calls atomic.Int64
	bulks atomic.Int64
	// wait is how long an answer takes; broken, that there is none.
	wait   atomic.Int64
	broken atomic.Bool
}

func newBook(t testing.TB) *book {
	b := &book{hosts: map[string]string{}, asked: map[string]int{}}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *book) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/all" {
		b.bulks.Add(1)
		b.mu.Lock()
		defer b.mu.Unlock()
		for h, p := range b.hosts {
			fmt.Fprintln(w, h, p)
		}
		return
	}
	host := filepath.Base(r.URL.Path)
	b.calls.Add(1)
	b.mu.Lock()
	b.asked[host]++
	b.mu.Unlock()
	select {
	case <-time.After(time.Duration(b.wait.Load())):
	case <-r.Context().Done():
		return
	}
	if b.broken.Load() {
		http.Error(w, "broken", http.StatusInternalServerError)
		return
	}
	b.mu.Lock()
	pod, ok := b.hosts[host]
	b.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	fmt.Fprint(w, pod)
}

func (b *book) set(host, pod string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hosts[host] = pod
}

func (b *book) askedFor(host string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[host]
}

// newPod is a server that says its name and what it was asked.
func newPod(t testing.TB, name string) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stream":
			stream(w, r)
		case "/bare":
			bare(w, r)
		case "/upgrade":
			upgrade(w, r)
		case "/headers":
			fmt.Fprintf(w, "%s %s %s\r\nHost: %s\r\n", r.Method, r.RequestURI, r.Proto, r.Host)
			_ = r.Header.Write(w)
		case "/refuse":
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusExpectationFailed)
		default:
			n, _ := io.Copy(io.Discard, r.Body)
			w.Header().Set("X-Pod", name)
			fmt.Fprintf(w, "%s %s %s %d", name, r.Method, r.RequestURI, n)
		}
	}))
	s.Config.DisableGeneralOptionsHandler = true
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// site is the shipped configuration at work: HAProxy, pods, a directory
// service, and lb7d's part.
type site struct {
	*haproxytest.HAProxy
	t    testing.TB
	book *book
	cfg  Config
	http, https,
	plain string // plain: a frontend with a map filled by hand
	dir  *Directory
	stop func() // ends lb7d's part in peace
	logs *logBuffer
}

const extra = `
frontend by-hand from http
	bind 127.0.0.1:HAND
	option forwardfor
	http-request set-header x-forwarded-proto %[ssl_fc,iif(https,http)]
	use_backend %[req.hdr(host),host_only,lower,map(DIR/hand.map)]
`

// example is the shipped configuration, moved into the test's directory.
func example(t testing.TB, listen string, ports [3]uint16, pods ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../packaging/haproxy/directory.cfg")
	if err != nil {
		t.Fatal(err)
	}
	pairs := []string{
		"\tuser haproxy\n\tgroup haproxy\n", "", " group lb", "",
		"log /dev/log local0", "log 127.0.0.1:9 local0",
		"bind :80", fmt.Sprintf("bind 127.0.0.1:%d", ports[0]),
		"bind :443", fmt.Sprintf("bind 127.0.0.1:%d", ports[1]),
		"/etc/haproxy/", "DIR/", "/run/haproxy/", "DIR/",
		"127.0.0.1:6281", listen,
		// haproxytest has its own.
		"\tstats socket /run/haproxy/admin.sock mode 660 group lb level admin expose-fd listeners\n", "",
	}
	for i, p := range pods {
		pairs = append(pairs, fmt.Sprintf("192.168.56.10%d:6280", i+1), p)
	}
	s := string(text)
	for i := len(pairs) - 2; i >= 0; i -= 2 {
		if !strings.Contains(s, pairs[i]) {
			t.Fatalf("the example has no %q", pairs[i])
		}
		s = strings.ReplaceAll(s, pairs[i], pairs[i+1])
	}
	return s + strings.ReplaceAll(extra, "HAND", fmt.Sprint(ports[2]))
}

// newSite starts all but lb7d's part. tune may change its configuration; lines
// are in the map's file at the start, and in the one that is filled by hand.
func newSite(t testing.TB, lines string, tune func(*Config)) *site {
	t.Helper()
	return newSiteWith(t, lines, nil, tune)
}

// newSiteWith is newSite with HAProxy's configuration changed: edit is given it
// and the address of the directory service.
func newSiteWith(t testing.TB, lines string, edit func(config, book string) string, tune func(*Config)) *site {
	t.Helper()
	haproxytest.Program(t)
	s := &site{t: t, book: newBook(t), logs: &logBuffer{}}
	var pods []string
	for i := range 3 {
		pods = append(pods, newPod(t, fmt.Sprintf("pod%d", i)).Listener.Addr().String())
	}
	dir, err := os.MkdirTemp("", "directory")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ports := [3]uint16{haproxytest.FreePort(t), haproxytest.FreePort(t), haproxytest.FreePort(t)}
	listen := fmt.Sprintf("127.0.0.1:%d", haproxytest.FreePort(t))
	config := strings.ReplaceAll(example(t, listen, ports, pods...), "DIR", dir)
	if edit != nil {
		config = edit(config, s.book.Listener.Addr().String())
	}
	for name, text := range map[string]string{"pods.map": lines, "hand.map": lines, "certs/example.pem": certificate(t, "*.example.org")} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.HAProxy = haproxytest.Start(t, config)
	s.http = fmt.Sprintf("127.0.0.1:%d", ports[0])
	s.https = fmt.Sprintf("127.0.0.1:%d", ports[1])
	s.plain = fmt.Sprintf("127.0.0.1:%d", ports[2])
	s.cfg = Config{
		Name: "pods", URL: s.book.URL + "/rest/{host}",
		Map: filepath.Join(dir, "pods.map"), Socket: s.Socket, Listen: listen,
		Forward: filepath.Join(dir, "directory.sock"), UsageTable: "used_hosts",
		Timeout: 2 * time.Second, TTL: time.Hour, NegativeTTL: time.Minute,
		MaxEntries: 200_000, MaxCalls: 16, CallRate: 500, MaxRequests: 4096,
	}
	if tune != nil {
		tune(&s.cfg)
	}
	return s
}

// run starts lb7d's part and waits until it keeps the map and HAProxy sends
// misses to it.
func (s *site) run() {
	s.t.Helper()
	dir, err := New(s.cfg, slog.New(slog.NewTextHandler(s.logs, nil)))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	l, err := Listen(s.cfg.Listen)
	if err != nil {
		s.t.Fatal(err)
	}
	go func() { ended <- dir.Run(ctx, l) }()
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				s.t.Errorf("Run: %v", err)
			}
		})
	}
	s.t.Cleanup(func() {
		s.stop()
		if s.t.Failed() {
			s.t.Logf("lb7d says:\n%s", s.logs)
		}
	})
	s.dir = dir
	s.wait("lb7d's part is up", func() bool {
		st := dir.Status().State
		return (st == "serving" || st == "stale") && strings.Contains(s.say("show stat misses 4 -1"), ",UP,")
	})
}

// wait waits for something to become true.
func (s *site) wait(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("not so within 20 s: %s; status %+v", what, s.dir.Status())
		}
	}
}

// say sends a command to HAProxy.
func (s *site) say(command string) string {
	conn, err := net.Dial("unix", s.Socket)
	if err != nil {
		return ""
	}
	defer conn.Close()
	fmt.Fprintln(conn, command)
	text, _ := io.ReadAll(conn)
	return string(text)
}

// lines is HAProxy's map.
func (s *site) lines() map[string]string {
	s.t.Helper()
	m := map[string]string{}
	for line := range strings.Lines(s.say("show map " + s.cfg.Map)) {
		if f := strings.Fields(line); len(f) == 3 {
			if _, twice := m[f[1]]; twice {
				s.t.Errorf("%s is in the map twice", f[1])
			}
			m[f[1]] = f[2]
		}
	}
	return m
}

// get asks for a host and tells the status and what the answer says.
func (s *site) get(host string) (int, string) {
	s.t.Helper()
	status, text, err := fetch(s.http, host)
	if err != nil {
		s.t.Fatalf("GET %s: %v", host, err)
	}
	return status, text
}

func fetch(at, host string) (int, string, error) {
	req, _ := http.NewRequest(http.MethodGet, "http://"+at+"/x?a=%zz;b", nil)
	req.Host = host
	resp, err := lone.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// lone makes a connection for each request.
var lone = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}

// certificate is one with its key, for a name, signed by itself.
func certificate(t testing.TB, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := errors.Join(pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: private})); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// logBuffer is written by lb7d's part and read by the test.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newForTest is a directory that nobody runs.
func newForTest(t testing.TB) *Directory {
	t.Helper()
	d, err := New(Config{
		Name: "pods", URL: "http://127.0.0.1:1/{host}", Map: "/m", Socket: "/s", Listen: "127.0.0.1:1", Forward: "/f",
		Timeout: time.Second, TTL: time.Minute, NegativeTTL: time.Minute, MaxEntries: 10, MaxCalls: 1, CallRate: 1, MaxRequests: 1,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
