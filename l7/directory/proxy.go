package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"syscall"
	"time"
)

const (
	// BackendHeader tells HAProxy's frontend for misses which back end a
	// request is for. It is overwritten here, and HAProxy deletes it.
	BackendHeader = "X-Lb7d-Backend"
	// CheckHost is the Host of a health check: a name that nobody can have
	// (RFC 2606 section 2).
	CheckHost = "lb7d.invalid"
	// maxHeader bounds the head of a request and of an answer, in bytes.
	// HAProxy's own bound, tune.bufsize, is 16 kB where it is left out.
	maxHeader = 64 << 10
	// headTime bounds the wait for a request's head, idleTime the life of a
	// connection that HAProxy keeps for later. HAProxy has the bounds of
	// everything after that: it stands on both sides.
	headTime = 10 * time.Second
	idleTime = 90 * time.Second
	// drainTime is how long requests that pass through may go on when lb7d ends.
	drainTime = 10 * time.Second
	// dialTries and dialPause are for a HAProxy that is being restarted.
	dialTries = 5
	dialPause = 100 * time.Millisecond
)

// serve answers misses until ctx ends, then lets those at hand end.
func (d *Directory) serve(ctx context.Context, l net.Listener) error {
	s := &http.Server{
		Handler:                      d,
		ReadHeaderTimeout:            headTime,
		IdleTimeout:                  idleTime,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is for the back end
		ErrorLog:                     slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		if s.Shutdown(drain) != nil {
			s.Close()
		}
	})
	err := s.Serve(l)
	if !stop() {
		<-ended
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving misses of directory %s: %w", d.cfg.Name, err)
	}
	return nil
}

// ServeHTTP takes one miss: it finds the back end and sends the request to
// HAProxy's frontend for misses, as it came.
func (d *Directory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Host == CheckHost {
		d.check(w, r)
		return
	}
	if !d.enter() {
		refuse(w, r, http.StatusServiceUnavailable, "too many requests at once")
		return
	}
	defer d.leave()
	backend, ok := d.route(w, r)
	if !ok {
		return
	}
	// What the pod leaves out, Go's server would add.
	w.Header()["Content-Type"], w.Header()["Date"] = nil, nil
	// Without this, Go's server reads a request's body to its end before it
	// sends an answer's head (net/http, ResponseController).
	_ = http.NewResponseController(w).EnableFullDuplex()
	d.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), backendKey{}, backend)))
}

// check answers HAProxy's health check.
func (d *Directory) check(w http.ResponseWriter, r *http.Request) {
	if !d.Ready() {
		refuse(w, r, http.StatusServiceUnavailable, "starting")
		return
	}
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, "ok\n")
}

func (d *Directory) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.Misses++
	if d.now.open >= d.cfg.MaxRequests {
		d.count.Shed++
		return false
	}
	d.now.open++
	return true
}

func (d *Directory) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.open--
}

// route finds the back end of a request, or answers the request itself.
func (d *Directory) route(w http.ResponseWriter, r *http.Request) (backend string, ok bool) {
	host, plain, err := hostOf(r.Host)
	if err == nil {
		d.missed(host, plain)
		backend, err = d.find(r.Context(), host)
	} else {
		d.mu.Lock()
		d.count.Refused++
		d.mu.Unlock()
	}
	bad := errors.Is(err, ErrHost)
	switch {
	case err == nil:
		return backend, true
	case (bad || errors.Is(err, ErrUnknown)) && d.cfg.DefaultBackend != "":
		return d.cfg.DefaultBackend, true
	case bad:
		refuse(w, r, http.StatusBadRequest, "the Host header is no host's name")
	case errors.Is(err, ErrUnknown):
		refuse(w, r, http.StatusNotFound, "no such host")
	case r.Context().Err() != nil: // nobody is left to be told
	default:
		// What is wrong inside is nobody's business outside; the status tells.
		w.Header().Set("Retry-After", "1")
		refuse(w, r, http.StatusServiceUnavailable, "the host's place is not known at the moment")
	}
	return "", false
}

// missed notes that a request came whose host HAProxy did not find. Where its
// line should have been there, the map is compared: it may have been another
// process's, or somebody emptied it.
func (d *Directory) missed(host string, plain bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.table.entries[host]
	if e == nil {
		return
	}
	d.count.Known++
	if _, marked := d.dirty[host]; plain && !marked && !e.written.IsZero() && time.Since(e.written) > settling && !d.compare {
		d.compare = true
		d.wake()
	}
}

// refuse answers a request that goes nowhere. Where a body may still be on its
// way, it is not waited for: the connection is closed.
func refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, status)
}

// backendKey is where a request's context has the name of its back end.
type backendKey struct{}

// newProxy makes what sends requests on. Between two HAProxies it has nothing to
// add: it leaves Forwarded, X-Forwarded-* and Via as the first one wrote them, and takes
// out what concerns one connection only (RFC 9110 section 7.6.1).
func (d *Directory) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "haproxy"
			// Not what Go could parse of it, but as it came.
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			r.Out.Host = r.In.Host
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := r.In.Header[name]; ok {
					r.Out.Header[name] = v
				}
			}
			if _, ok := r.In.Header["User-Agent"]; !ok {
				r.Out.Header["User-Agent"] = nil // or Go would add its own
			}
			// The values come with the end of the body, into this very map.
			r.Out.Trailer = r.In.Trailer
			r.Out.Header.Set(BackendHeader, r.In.Context().Value(backendKey{}).(string))
		},
		Transport: &http.Transport{
			DialContext: d.dial,
			// A connection for each request: misses are few, and one that was kept
			// may end with HAProxy's reload just when a request is sent on it.
			DisableKeepAlives:      true,
			DisableCompression:     true,
			ExpectContinueTimeout:  time.Second,
			MaxResponseHeaderBytes: maxHeader,
		},
		FlushInterval: -1, // each piece goes on as it comes
		BufferPool:    buffers{},
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return // the client has gone
			}
			d.mu.Lock()
			d.count.ForwardFailed++
			first := time.Since(d.now.forwardAt) > time.Minute
			d.now.forward, d.now.forwardAt = err.Error(), time.Now()
			d.mu.Unlock()
			if first {
				d.log.Warn("HAProxy's frontend for misses did not take a request", "forward", d.cfg.Forward, "err", err)
			}
			refuse(w, r, http.StatusBadGateway, "HAProxy did not take the request back")
		},
	}
}

// dial connects to HAProxy's frontend for misses, and tries again for a moment
// where there is none: nothing was sent yet, so no request is made twice.
func (d *Directory) dial(ctx context.Context, _, _ string) (conn net.Conn, err error) {
	kind, addr, err := network(d.cfg.Forward)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	for try := range dialTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, err
			case <-time.After(dialPause):
			}
		}
		conn, err = dialer.DialContext(ctx, kind, addr)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EAGAIN) {
			break
		}
	}
	return conn, err
}

// buffers are for bodies.
type buffers struct{}

var pool = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Get is a buffer of 32 kB.
func (buffers) Get() []byte { return *pool.Get().(*[]byte) }

// Put gives it back.
func (buffers) Put(b []byte) { pool.Put(&b) }
