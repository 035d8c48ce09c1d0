package lb7

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb4d/control"
	"lb4d/internal/haproxytest"
)

// node is an HTTP server that answers its name.
type node struct {
	name   string
	addr   netip.AddrPort
	server *http.Server
}

// farm is a set of servers and the file that lists them.
type farm struct {
	t     *testing.T
	file  string
	nodes map[string]*node
}

func newFarm(t *testing.T, n int) *farm {
	t.Helper()
	f := &farm{t: t, file: filepath.Join(t.TempDir(), "servers.json"), nodes: map[string]*node{}}
	for i := range n {
		f.start(fmt.Sprintf("web-%d", i+1))
	}
	return f
}

func (f *farm) start(name string) {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	n := &node{name: name, addr: netip.MustParseAddrPort(l.Addr().String())}
	n.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })}
	go func() { _ = n.server.Serve(l) }()
	f.t.Cleanup(func() { _ = n.server.Close() })
	f.nodes[name] = n
}

// group is one entry of file_sd.
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// list writes the servers of those names, with labels for some as NAME=LABEL:VALUE.
func (f *farm) list(labels map[string]map[string]string, names ...string) {
	f.t.Helper()
	groups := []group{}
	for _, n := range names {
		l := map[string]string{"name": n}
		for k, v := range labels[n] {
			l[k] = v
		}
		groups = append(groups, group{[]string{f.nodes[n].addr.String()}, l})
	}
	replaceJSON(f.t, f.file, groups)
}

// numbered are the names web-A to web-B.
func numbered(from, to int) []string {
	var names []string
	for i := from; i <= to; i++ {
		names = append(names, fmt.Sprintf("web-%d", i))
	}
	return names
}

func replaceJSON(t testing.TB, path string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// proxyConfig has ten slots that an include file brings, all free.
const proxyConfig = `
defaults base
	mode http
	timeout connect 2s
	timeout client 20s
	timeout server 20s
	option redispatch
	balance uri
	hash-type consistent
	option httpchk GET /check
	default-server inter 50ms rise 2 fall 2
frontend in from base
	bind 127.0.0.1:PORT
	default_backend servers
`

// proxy is a HAProxy whose back end is in an include file.
type proxy struct {
	*haproxytest.HAProxy
	url     string
	include string
}

func newProxy(t *testing.T, config string) *proxy {
	t.Helper()
	port := haproxytest.FreePort(t)
	include := filepath.Join(t.TempDir(), "servers.cfg")
	text := "backend servers from base\n"
	for i := range 10 {
		text += fmt.Sprintf("\tserver s%d 127.0.0.2:9 id %[1]d check disabled\n", i+1)
	}
	if err := os.WriteFile(include, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &proxy{url: fmt.Sprintf("http://127.0.0.1:%d/", port), include: include}
	p.HAProxy = haproxytest.Start(t, strings.ReplaceAll(config, "PORT", fmt.Sprint(port)), include)
	return p
}

// tables is a configuration of lb7d for a proxy and a source.
func (p *proxy) tables(source string, more string) string {
	return fmt.Sprintf(`
[haproxy]
socket = %q
[backend.servers]
slots = 10
prefix = "s"
source = { %s }
%s
[backend.servers.include]
file = %q
head = "backend servers from base"
`, p.Socket, source, more, p.include)
}

// instance is a running lb7d.
type instance struct {
	t      *testing.T
	dir    string
	config string
	client *control.Client
	reload chan struct{}
	log    *safeBuffer

	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run, after done
	mu     sync.Mutex
	heard  []string // by the service manager
}

// newInstance prepares an lb7d with a directory of its own; start runs it.
func newInstance(t *testing.T, tables string) *instance {
	t.Helper()
	dir, err := os.MkdirTemp("", "lb7d") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{t: t, dir: dir, config: filepath.Join(dir, "lb7d.toml"), reload: make(chan struct{}), log: &safeBuffer{}}
	i.client = control.NewLB7Client(filepath.Join(dir, "lb7d.sock"))
	i.write(tables)
	t.Cleanup(func() {
		i.stop()
		_ = os.RemoveAll(dir)
		if t.Failed() {
			t.Logf("lb7d in %s says:\n%s", dir, i.log)
		}
	})
	return i
}

func (i *instance) write(tables string) {
	i.t.Helper()
	text := fmt.Sprintf("state_dir = %q\n[control]\nsocket = %q\ngroup = \"\"\n%s", filepath.Join(i.dir, "state"), filepath.Join(i.dir, "lb7d.sock"), tables)
	if err := os.WriteFile(i.config, []byte(text), 0o644); err != nil {
		i.t.Fatal(err)
	}
}

func (i *instance) start() *instance {
	i.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	i.cancel, i.done = cancel, make(chan struct{})
	go func() {
		defer close(i.done)
		i.err = Run(ctx, Options{
			ConfigPath: i.config, Version: "test", Reload: i.reload,
			Log: slog.New(slog.NewTextHandler(i.log, nil)),
			Notify: func(s string) {
				i.mu.Lock()
				defer i.mu.Unlock()
				i.heard = append(i.heard, s)
			},
		})
	}()
	return i
}

// stop ends lb7d as TERM does.
func (i *instance) stop() {
	if i.cancel == nil {
		return
	}
	i.cancel()
	<-i.done
	i.cancel = nil
}

// said tells whether the service manager has been told a line that contains this.
func (i *instance) said(line string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.ContainsFunc(i.heard, func(heard string) bool { return strings.Contains(heard, line) })
}

// await waits until the status is as wanted.
func (i *instance) await(what string, ok func(st *control.LB7Status) bool) *control.LB7Status {
	i.t.Helper()
	var st *control.LB7Status
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-i.done:
			i.t.Fatalf("lb7d has ended: %v", i.err)
		default:
		}
		if st, err = i.client.LB7Status(i.t.Context()); err == nil && ok(st) {
			return st
		}
	}
	b, _ := json.MarshalIndent(st, "", " ")
	i.t.Fatalf("%s does not come: %v\n%s", what, err, b)
	return nil
}

// settled waits until just these servers take requests.
func (i *instance) settled(names ...string) *control.LB7Status {
	i.t.Helper()
	return i.await(fmt.Sprint("a back end with ", names), func(st *control.LB7Status) bool {
		return len(st.Backends) > 0 && serving(st.Backends[0], names...)
	})
}

// serving tells whether just these servers have slots, are ready and pass their
// checks.
func serving(b control.Backend, names ...string) bool {
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
	}
	if len(b.Servers) != len(want) {
		return false
	}
	for _, s := range b.Servers {
		if !want[s.ID] || s.State != "ready" || !s.Running || s.PassedAt.IsZero() {
			return false
		}
	}
	return true
}

// load asks for keys without a pause, and counts.
type load struct {
	stop     context.CancelFunc
	done     sync.WaitGroup
	requests atomic.Int64
	mu       sync.Mutex
	failures []string
}

func startLoad(url string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{stop: cancel}
	for worker := range 4 {
		client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
		l.done.Go(func() {
			defer client.CloseIdleConnections()
			for i := worker; ctx.Err() == nil; i++ {
				if _, err := ask(client, fmt.Sprintf("%skey%d", url, i%5000)); err != nil {
					l.mu.Lock()
					l.failures = append(l.failures, err.Error())
					l.mu.Unlock()
				}
				l.requests.Add(1)
			}
		})
	}
	return l
}

// end stops the load and tells what failed.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.done.Wait()
	t.Logf("%d requests, %d failed", l.requests.Load(), len(l.failures))
	if n := l.requests.Load(); n < 100 {
		t.Errorf("%d requests are no load", n)
	}
	if len(l.failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(l.failures), l.requests.Load(), l.failures[0])
	}
}

// ask is one request; the answer is the server's name.
func ask(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %s", resp.Status, b)
	}
	return string(b), err
}

// owners says which server answers for each of n keys.
func owners(t *testing.T, url string, n int) []string {
	t.Helper()
	names := make([]string, n)
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for i := range names {
		var err error
		if names[i], err = ask(client, fmt.Sprintf("%skey%d", url, i)); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// safeBuffer is written by lb7d and read by the test.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
