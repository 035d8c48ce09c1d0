package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// Defaults and bounds of /slow.
	defaultSlowTime  = 8 * time.Second
	maxSlowTime      = time.Hour
	defaultSlowBytes = 64 << 10
	// dripEvery is how often a piece of a slow body is sent. Each costs a
	// wake-up in the server, the proxy and the client.
	dripEvery = 250 * time.Millisecond
)

// Server answers requests as a back-end host of the lab does. It understands
// the PROXY protocol, version 1, from whoever begins with it.
//
//	/                             a line with the server's name and the client's address
//	/slow?seconds=8&bytes=65536   the pattern, dripped evenly over the time
//	/healthcheck                  200
//
// Each answer is signed in X-Server. Its zero value with a Name is ready.
type Server struct {
	// Name is what X-Server says.
	Name string

	once   sync.Once
	server http.Server
}

// Serve answers on l until Close or until l is closed, and returns nil then.
// It may be called for several listeners; after Close it serves none.
func (s *Server) Serve(l net.Listener) error {
	s.once.Do(func() {
		s.server.Handler = s.handler()
		s.server.ReadHeaderTimeout = time.Minute
		s.server.MaxHeaderBytes = maxHead
		// A proxy's checks come and go without a word.
		s.server.ErrorLog = log.New(io.Discard, "", 0)
	})
	err := s.server.Serve(proxyListener{l})
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serving on %s: %w", l.Addr(), err)
}

// Close closes the listeners and cuts off what is in flight.
func (s *Server) Close() error { return s.server.Close() }

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s answers %s\n", s.Name, r.RemoteAddr)
	})
	mux.HandleFunc("GET /healthcheck", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "OK\n")
	})
	mux.HandleFunc("GET /slow", slow)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerServer, s.Name)
		mux.ServeHTTP(w, r)
	})
}

// slow drips the pattern.
func slow(w http.ResponseWriter, r *http.Request) {
	takes, size := defaultSlowTime, int64(defaultSlowBytes)
	query := r.URL.Query()
	if s := query.Get("seconds"); s != "" {
		f, err := strconv.ParseFloat(s, 64)
		// Written so that NaN is refused as well.
		if err != nil || !(f >= 0 && f <= maxSlowTime.Seconds()) {
			http.Error(w, fmt.Sprintf("seconds: %q is not between 0 and %g", s, maxSlowTime.Seconds()), http.StatusBadRequest)
			return
		}
		takes = time.Duration(f * float64(time.Second))
	}
	if s := query.Get("bytes"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 || n > maxBody {
			http.Error(w, fmt.Sprintf("bytes: %q is not between 0 and %d", s, maxBody), http.StatusBadRequest)
			return
		}
		size = n
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.Header().Set(headerPattern, "1")
	w.WriteHeader(http.StatusOK)
	drip(r.Context(), w, takes, size)
}

// drip sends size bytes of the pattern evenly over a time, and stops where the
// client is gone.
func drip(ctx context.Context, w http.ResponseWriter, takes time.Duration, size int64) {
	flush := http.NewResponseController(w)
	start := time.Now()
	var buf [4096]byte
	for sent := int64(0); ; {
		due := size
		if spent := time.Since(start); spent < takes {
			due = int64(float64(size) * float64(spent) / float64(takes))
		}
		for sent < due {
			piece := buf[:min(int64(len(buf)), due-sent)]
			fill(piece, sent)
			if _, err := w.Write(piece); err != nil {
				return
			}
			sent += int64(len(piece))
		}
		// At the start too: the headers must not wait for a first byte.
		if flush.Flush() != nil || sent == size && time.Since(start) >= takes {
			return
		}
		if !sleep(ctx, min(dripEvery, takes-time.Since(start))) {
			return
		}
	}
}
