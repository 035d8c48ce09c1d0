package control

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// The bounds of both listeners. A connection serves one request and lives at
// most readTimeout plus writeTimeout; a client that dawdles costs one of
// maxConns for that long, and the next one waits in the kernel's backlog.
const (
	maxConns       = 64
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 64 << 10
	headerTimeout  = 2 * time.Second
	readTimeout    = 5 * time.Second
	writeTimeout   = 10 * time.Second
	stopTimeout    = time.Second
)

// StaleAfter is the age at which the latest status counts as stuck: the
// daemon makes a pass at least every second, so that many were missed.
const StaleAfter = 30 * time.Second

// boundedServer serves h within the bounds. How large a request may be, h
// knows.
func boundedServer(h http.Handler, log *slog.Logger) *http.Server {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          errorLog(log),
	}
	// An idle connection would hold one of maxConns for nothing, and to
	// connect again costs a scraper little.
	srv.SetKeepAlivesEnabled(false)
	return srv
}

// serve serves l in the background until the server or the listener is closed.
func (s *Server) serve(srv *http.Server, l net.Listener) {
	s.done.Go(func() {
		if err := srv.Serve(netutil.LimitListener(l, maxConns)); !isClosed(err) {
			s.log.Error("control listener ended", "listen", l.Addr().String(), "err", err)
		}
	})
}

// stop ends srv in the background, in at most stopTimeout.
func (s *Server) stop(srv *http.Server) {
	s.done.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close() // cuts off whom the second did not suffice
		}
	})
}

// routes are what may be read, on either listener. A pattern with GET serves
// HEAD too; the mux answers other methods with 405.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.serveStatus)
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.Handle("GET /metrics", s.metrics)
	return mux
}

// changes are the routes of the unix socket: what may be read, and the POST
// requests.
func (s *Server) changes(o Options) http.Handler {
	mux := s.routes()
	if o.Drain != nil {
		mux.HandleFunc("POST /v1/drain", serveDrain(o.Drain))
	}
	if o.Undrain != nil {
		mux.HandleFunc("POST /v1/undrain", serveDrain(o.Undrain))
	}
	if o.Reset != nil {
		mux.HandleFunc("POST /v1/reset", serveQuestion(o.Reset))
	}
	if o.Disable != nil {
		mux.HandleFunc("POST /v1/disable", serveQuestion(o.Disable))
	}
	if o.Enable != nil {
		mux.HandleFunc("POST /v1/enable", serveQuestion(o.Enable))
	}
	if o.Explain != nil {
		mux.HandleFunc("POST /v1/explain", serveQuestion(o.Explain))
	}
	lb7Routes(mux, o.LB7)
	small := http.MaxBytesHandler(mux, maxBodyBytes)
	if o.Plan == nil {
		return small
	}
	large := http.NewServeMux()
	large.Handle("/", small)
	large.Handle("POST /v1/plan", http.MaxBytesHandler(serveQuestion(o.Plan), maxPlanBytes))
	return large
}

// encode is st as JSON with a newline at its end.
func encode(st status) ([]byte, error) {
	body, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encoding the status: %w", err)
	}
	return append(body, '\n'), nil
}

func (s *Server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	body, err := s.latest.Load().json()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header(w, "application/json")
	_, _ = w.Write(body) // an error is the client's, who is gone
}

func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	st := s.latest.Load().status
	err := st.Alive(time.Now())
	header(w, "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, err)
		return
	}
	_, _ = fmt.Fprintln(w, "ok: "+oneLine(st.summary()))
}

func header(w http.ResponseWriter, contentType string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

// Alive is nil while the daemon is at work at the time now: it is running and
// its latest pass ended less than StaleAfter ago. It says nothing on whether
// VIPs are announced; a host in maintenance is alive.
func (st *Status) Alive(now time.Time) error {
	switch age := now.Sub(st.Updated); {
	case st.State != "running":
		return fmt.Errorf("%s: %s", st.State, strings.TrimPrefix(oneLine(st.Summary), st.State+": "))
	case age > StaleAfter:
		return fmt.Errorf("stuck: no pass has ended for %s; the last said: %s",
			age.Truncate(time.Second), oneLine(st.Summary))
	}
	return nil
}

// oneLine is s with its line breaks as spaces: an answer of one line must stay
// one.
func oneLine(s string) string {
	return strings.Join(strings.Fields(s), " ")
}
