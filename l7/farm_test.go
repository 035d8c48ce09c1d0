package l7

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lb4d/internal/haproxytest"
	"lb4d/l7/runtime"
	"lb4d/l7/slots"
)

// farm is a set of HTTP servers, each of which answers its name.
type farm struct {
	t       *testing.T
	servers map[string]*node
}

type node struct {
	name   string
	addr   netip.AddrPort
	server *http.Server
	// healthy is what its check is told; early counts the requests that came
	// before it was.
	healthy atomic.Bool
	early   atomic.Int64
}

func newFarm(t *testing.T, names ...string) *farm {
	f := &farm{t: t, servers: map[string]*node{}}
	for _, n := range names {
		f.start(n, true)
	}
	return f
}

// start runs a server; one that is not healthy fails its checks, and all else.
func (f *farm) start(name string, healthy bool) *node {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	n := &node{name: name, addr: netip.MustParseAddrPort(l.Addr().String())}
	n.healthy.Store(healthy)
	n.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !n.healthy.Load() {
			if r.URL.Path != "/check" {
				n.early.Add(1)
			}
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, name)
	})}
	go func() { _ = n.server.Serve(l) }()
	f.t.Cleanup(func() { _ = n.server.Close() })
	f.servers[name] = n
	return n
}

// list is what a source says.
func (f *farm) list(names ...string) []slots.Server {
	var list []slots.Server
	for _, n := range names {
		a := f.servers[n].addr
		list = append(list, slots.Server{ID: n, Addr: a.Addr(), Port: int(a.Port()), Weight: slots.NoWeight})
	}
	return list
}

// proxy is a HAProxy with ten slots and what keeps them.
type proxy struct {
	*haproxytest.HAProxy
	url     string
	include Include
	applier *Applier
}

const base = `
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

// newProxy runs HAProxy with ten slots in an include file, all free, and no
// lb7d yet.
func newProxy(t *testing.T, address func(*haproxytest.HAProxy) (string, runtime.Options)) *proxy {
	t.Helper()
	dir := t.TempDir()
	port := haproxytest.FreePort(t)
	p := &proxy{
		url:     fmt.Sprintf("http://127.0.0.1:%d/", port),
		include: Include{Path: filepath.Join(dir, "servers.cfg"), Head: "backend servers from base", Prefix: "s", Options: "check", Slots: 10},
	}
	if _, err := p.include.Write(nil); err != nil {
		t.Fatal(err)
	}
	p.HAProxy = haproxytest.Start(t, strings.ReplaceAll(base, "PORT", fmt.Sprint(port)), p.include.Path)
	a, o := p.Socket, runtime.Options{}
	if address != nil {
		a, o = address(p.HAProxy)
	}
	p.restartDaemon(t, a, o)
	return p
}

// restartDaemon forgets all that a running lb7d knows.
func (p *proxy) restartDaemon(t *testing.T, address string, o runtime.Options) {
	t.Helper()
	c, err := runtime.New(address, o)
	if err != nil {
		t.Fatal(err)
	}
	p.applier = NewApplier(c, "servers", "")
}

// keeper does what lb7d does in a loop: the list into the record, the record
// into HAProxy and its include file, first passing checks into the record.
type keeper struct {
	policy  slots.Policy
	record  slots.Record
	proxies []*proxy
}

// pass is one round; it returns the reports, a proxy each.
func (k *keeper) pass(t *testing.T, list []slots.Server) []Report {
	t.Helper()
	k.record, _ = slots.Assign(k.record, list, time.Now(), k.policy)
	var reports []Report
	for _, p := range k.proxies {
		if _, err := p.include.Write(k.record.Slots); err != nil {
			t.Fatal(err)
		}
		r, err := p.applier.Apply(t.Context(), k.record.Slots)
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range r.Problems {
			t.Errorf("problem: %s", problem)
		}
		k.record, _ = slots.Pass(k.record, r.Passing, time.Now())
		reports = append(reports, r)
	}
	return reports
}

// settle goes on until every server of the list has passed its check on every
// proxy and nothing is left to do.
func (k *keeper) settle(t *testing.T, list []slots.Server) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		quiet := true
		for _, r := range k.pass(t, list) {
			quiet = quiet && r.Sent == 0 && len(r.Passing) == len(list)
		}
		if quiet {
			// What has passed goes into the files too.
			for _, p := range k.proxies {
				if _, err := p.include.Write(k.record.Slots); err != nil {
					t.Fatal(err)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not settle: %+v", k.record)
		}
	}
}

// load asks for keys without a pause, on several connections, and counts.
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
