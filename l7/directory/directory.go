// Package directory routes each Host header to the back end that a directory
// service names for it, by a HAProxy map that it keeps filled.
//
// A host that is in the map never leaves HAProxy. One that is not goes to the
// listener here (proxy.go), as to any server: the directory is asked once, for
// any number of requests that wait (lookup.go, ask.go); the answer is checked
// against HAProxy's back ends and noted (table.go); the request goes on to
// HAProxy's own frontend for such requests, with the name of the back end in a
// header, so that health checks, weights, queues and stickiness are HAProxy's
// as ever. Meanwhile one goroutine brings the map in line with what is known,
// and with it the file that HAProxy starts from (keeper.go, file.go). Known
// hosts are asked for again before their answers are old (refresh.go); while
// the directory is away, old answers serve on.
package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"lb4d/l7/runtime"
)

// Config is one directory. Each field is required unless it says otherwise.
type Config struct {
	Name string // for logs, status and metrics
	// URL is asked for one host, which takes the place of {host}.
	URL string
	// BulkURL is asked for all hosts, at the start and each BulkInterval.
	// Optional.
	BulkURL      string
	BulkInterval time.Duration
	// Map is the file's name as HAProxy's configuration has it, Socket where
	// its Runtime API listens (runtime.New).
	Map, Socket string
	// Process and HAProxyTimeout are as in runtime.Options. Optional.
	Process        string
	HAProxyTimeout time.Duration
	// Listen is where misses come in, Forward HAProxy's frontend that takes
	// them back: IP:PORT, or the absolute path of a unix socket.
	Listen, Forward string
	// UsageTable is the stick table in which HAProxy notes hosts that are asked
	// for. Optional: without it, a host counts as used when it misses.
	UsageTable string
	// Timeout bounds a look-up, the wait for its turn included.
	Timeout time.Duration
	// TTL is how long an answer is fresh; NegativeTTL, for how long a host that
	// the directory does not know is not asked for again.
	TTL, NegativeTTL time.Duration
	// MaxEntries bounds the map.
	MaxEntries int
	// MaxCalls bounds the calls at once, CallRate those per second.
	MaxCalls, CallRate int
	// MaxRequests bounds the requests that pass through at once.
	MaxRequests int
	// DefaultBackend takes the requests for hosts that the directory does not
	// know. Optional: they are answered 404 without it.
	DefaultBackend string
	// Backends are what an answer may name. Optional: HAProxy's own list is
	// read instead.
	Backends []string
}

// Check tells every fault of a configuration, each with its field.
func (c Config) Check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	checkURL := func(field, s string) {
		if u, err := url.Parse(strings.ReplaceAll(s, "{host}", "host")); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			fault("%s: %q is no http:// or https:// address", field, s)
		}
	}
	if checkURL("url", c.URL); !strings.Contains(c.URL, "{host}") {
		fault("url: %q has no {host}, whose place the host takes", c.URL)
	}
	if c.BulkURL != "" {
		checkURL("bulk_url", c.BulkURL)
		if c.BulkInterval < time.Second {
			fault("bulk_interval: %s is less than 1s", c.BulkInterval)
		}
	}
	if !filepath.IsAbs(c.Map) || runtime.CheckWord(c.Map) != nil {
		fault("map: %q is no absolute path without spaces", c.Map)
	}
	if _, _, err := network(c.Listen); err != nil {
		fault("listen: %w", err)
	}
	if _, _, err := network(c.Forward); err != nil {
		fault("forward: %w", err)
	}
	if c.Listen == c.Forward {
		fault("forward: %q is where misses come in", c.Forward)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"timeout", c.Timeout}, {"ttl", c.TTL}, {"negative_ttl", c.NegativeTTL}} {
		if d.value <= 0 {
			fault("%s: %s is not above 0s", d.field, d.value)
		}
	}
	for _, n := range []struct {
		field string
		value int
	}{{"max_entries", c.MaxEntries}, {"max_calls", c.MaxCalls}, {"call_rate", c.CallRate}, {"max_requests", c.MaxRequests}} {
		if n.value < 1 {
			fault("%s: %d is not above 0", n.field, n.value)
		}
	}
	for _, b := range c.Backends {
		if _, err := checked(b); err != nil {
			fault("backends: %q is no name of a back end", b)
		}
	}
	if c.DefaultBackend != "" {
		if _, err := checked(c.DefaultBackend); err != nil {
			fault("default_backend: %q is no name of a back end", c.DefaultBackend)
		}
	}
	return errors.Join(errs...)
}

// network tells a unix socket's path from IP:PORT.
func network(address string) (network, addr string, err error) {
	if path := strings.TrimPrefix(address, "unix@"); filepath.IsAbs(path) {
		return "unix", path, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" {
		return "", "", fmt.Errorf("%q is neither IP:PORT nor the absolute path of a socket", address)
	}
	return "tcp", address, nil
}

// Directory is one directory and the map that it fills. Its methods may be
// called from several goroutines.
type Directory struct {
	cfg     Config
	haproxy *runtime.Client
	ask     *client
	log     *slog.Logger
	proxy   *httputil.ReverseProxy
	calls   *rate.Limiter
	asking  chan struct{} // a place for each call that misses may have open
	poke    chan struct{} // wakes the keeper
	kept    chan struct{} // closed when the keeper has ended

	mu       sync.Mutex
	table    *table
	none     *memo                // hosts that the directory does not know
	failed   *memo                // hosts whose call failed a moment ago
	pending  map[string]*call     // hosts that are being asked for
	dirty    map[string]struct{}  // hosts whose line of the map may be wrong
	backends map[string]bool      // what an answer may name; nil: not known yet
	compare  bool                 // the map is to be compared with HAProxy's
	service  service              // how the directory does
	gone     budget               // how many known hosts may go unknown
	usage    usage                // what HAProxy's table of used hosts told
	writes   map[string]time.Time // when a host was put into the map, for a while
	now      state                // for the status
	count    Counters
	ready    bool // the map has been read, or could not be
}

// New prepares a directory; Run starts it.
func New(cfg Config, log *slog.Logger) (*Directory, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	h, err := runtime.New(cfg.Socket, runtime.Options{Process: cfg.Process, Timeout: cfg.HAProxyTimeout})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	d := &Directory{
		cfg:     cfg,
		haproxy: h,
		// Refreshes and the bulk call come on top of the misses' calls.
		ask:     newClient(cfg.URL, cfg.BulkURL, cfg.MaxCalls+refreshers(cfg)+1),
		log:     log.With("directory", cfg.Name),
		calls:   rate.NewLimiter(rate.Limit(cfg.CallRate), cfg.CallRate),
		asking:  make(chan struct{}, cfg.MaxCalls),
		poke:    make(chan struct{}, 1),
		kept:    make(chan struct{}),
		table:   newTable(cfg.TTL),
		none:    newMemo(maxMemo),
		failed:  newMemo(maxMemo),
		pending: map[string]*call{},
		dirty:   map[string]struct{}{},
		writes:  map[string]time.Time{},
	}
	d.proxy = d.newProxy()
	d.gone = budget{every: cfg.TTL}
	if len(cfg.Backends) > 0 {
		d.backends = map[string]bool{}
		for _, b := range cfg.Backends {
			d.backends[b] = true
		}
	}
	return d, nil
}

// Run keeps the map and serves misses on l until ctx ends; then it writes the
// map's file, and lets requests that pass through go on for a while. It closes
// l, and fails only where l does.
func (d *Directory) Run(ctx context.Context, l net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.serve(ctx, l) })
	g.Go(func() error {
		defer close(d.kept)
		k := newKeeper(d)
		k.adopt(ctx)
		k.run(ctx)
		return nil
	})
	g.Go(func() error { d.refresh(ctx); return nil })
	if d.cfg.BulkURL != "" {
		g.Go(func() error { d.bulk(ctx); return nil })
	}
	return g.Wait()
}

// Kept is closed when Run no longer writes the map nor the file, so that
// another directory may: requests can be passing through for longer.
func (d *Directory) Kept() <-chan struct{} { return d.kept }

// Listen opens a listener for misses. A socket file that a process before this
// one left behind is taken away; one that somebody serves is not.
func Listen(address string) (net.Listener, error) {
	network, addr, err := network(address)
	if err != nil {
		return nil, fmt.Errorf("listening for misses: %w", err)
	}
	if network == "unix" {
		if err := removeStale(addr); err != nil {
			return nil, fmt.Errorf("listening for misses: %w", err)
		}
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("listening for misses: %w", err)
	}
	return l, nil
}

// Share makes a second listener of l, which has connections of its own from
// when l is closed on: a directory with another configuration takes over
// without a connection refused between the two.
func Share(l net.Listener) (net.Listener, error) {
	var file *os.File
	var err error
	switch l := l.(type) {
	case *net.TCPListener:
		file, err = l.File()
	case *net.UnixListener:
		l.SetUnlinkOnClose(false)
		file, err = l.File()
	default:
		return nil, fmt.Errorf("sharing the listener at %s: it is a %T", l.Addr(), l)
	}
	if err != nil {
		return nil, fmt.Errorf("sharing the listener at %s: %w", l.Addr(), err)
	}
	defer file.Close()
	second, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("sharing the listener at %s: %w", l.Addr(), err)
	}
	return second, nil
}

// Ready tells whether misses are served and the map has been read.
func (d *Directory) Ready() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ready
}

// wake has the keeper look at the map now.
func (d *Directory) wake() {
	select {
	case d.poke <- struct{}{}:
	default: // it is awake
	}
}

var _ http.Handler = (*Directory)(nil)
