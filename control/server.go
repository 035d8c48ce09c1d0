package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultSocket is where lb4d listens and lbctl asks when neither is told
// otherwise.
const DefaultSocket = "/run/lb/lb4d.sock"

// Options are what a Server is started with.
type Options struct {
	// Socket is the path of the unix socket; empty: DefaultSocket.
	Socket string
	// Group owns the socket where it is not empty and exists.
	Group string
	// Version is what the status shows before the first Publish.
	Version string
	// Drain and Undrain carry out what POST /v1/drain and /v1/undrain ask
	// for, and return when it is in effect. They may be called from several
	// goroutines at once, and end with ctx. A *Refusal is told to the one who
	// asked as it is, any other error as the daemon's own fault. Nil: there
	// is no such request.
	Drain, Undrain func(ctx context.Context, r DrainRequest) (*DrainAnswer, error)
	// Explain answers POST /v1/explain. It changes nothing; otherwise as Drain.
	Explain func(ctx context.Context, r ExplainRequest) (*ExplainAnswer, error)
	// Plan answers POST /v1/plan, as Explain does.
	Plan func(ctx context.Context, r PlanRequest) (*PlanAnswer, error)
	// Reset answers POST /v1/reset; otherwise as Drain.
	Reset func(ctx context.Context, r ResetRequest) (*ResetAnswer, error)
	// LB7 are the requests of lb7d, whose status PublishLB7 publishes; nil: it
	// is lb4d that listens.
	LB7 *LB7Requests
	// Disable and Enable answer POST /v1/disable and /v1/enable; otherwise as
	// Drain.
	Disable func(ctx context.Context, r DisableRequest) (*DisableAnswer, error)
	Enable  func(ctx context.Context, r EnableRequest) (*DisableAnswer, error)
	// Log gets warnings on the socket's group and on broken handlers; nil:
	// nobody does.
	Log *slog.Logger
}

// Server answers on the unix socket and, once SetListen has named an address,
// over TCP. Its methods may be called from any goroutine.
type Server struct {
	log    *slog.Logger
	latest atomic.Pointer[snapshot]
	// metrics is one handler for both listeners, so that its bound on
	// simultaneous scrapes holds for them together.
	metrics http.Handler

	mu     sync.Mutex // guards what follows
	socket *socket
	local  *http.Server
	tcp    *tcpServer // nil: off
	closed bool
	done   sync.WaitGroup // serving and stopping goroutines
}

// Listen opens the unix socket and serves on it. A socket that a dead process
// left is replaced; one that answers is not. The error is one line that says
// what to do.
func Listen(o Options) (*Server, error) {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	sock, err := openSocket(o.Socket, o.Group, o.Log)
	if err != nil {
		return nil, err
	}
	s := newServer(o.Version, o.Log)
	if o.LB7 != nil {
		s.startLB7(o.Version)
	}
	s.socket = sock
	// POST requests belong to this listener alone: who may change something is
	// decided by the socket's mode and group.
	s.local = boundedServer(s.changes(o), o.Log)
	s.serve(s.local, sock.listener)
	return s, nil
}

// newServer is a server that listens nowhere yet and tells that it is
// starting.
func newServer(version string, log *slog.Logger) *Server {
	s := &Server{log: log}
	s.metrics = s.metricsHandler()
	now := time.Now()
	st := &Status{
		Version: version, PID: os.Getpid(),
		Started: now, Updated: now,
		State:   "starting",
		Summary: "starting: the first pass has not ended",
	}
	st.Host, _ = os.Hostname()
	s.Publish(st)
	return s
}

// Publish makes st what everything here shows from now on. The caller leaves
// st and all that it refers to alone afterwards.
func (s *Server) Publish(st *Status) {
	if st == nil {
		return
	}
	st = withoutNull(st)
	s.latest.Store(newSnapshot(st, func(e emitter) { e.lb4(st) }))
}

// Close stops serving and removes the socket where it is still this server's.
// Requests in progress get a second to end.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	// The path goes first, while the listener still holds its inode: so
	// nobody else's socket can have that inode's number.
	err := s.socket.unlink()
	s.stop(s.local)
	if s.tcp != nil {
		s.stop(s.tcp.server)
		s.tcp = nil
	}
	s.done.Wait()
	return err
}

// snapshot is one published status with its JSON, which is made at most once
// however many ask for it: so slow readers share one buffer.
type snapshot struct {
	status status
	json   func() ([]byte, error)
	emit   func(emitter) // the metrics
}

// status is what either daemon publishes.
type status interface {
	// Alive is nil while the daemon is at work.
	Alive(now time.Time) error
	summary() string
}

func newSnapshot(st status, emit func(emitter)) *snapshot {
	return &snapshot{status: st, json: sync.OnceValues(func() ([]byte, error) { return encode(st) }), emit: emit}
}

// withoutNull is a copy of st in which every list is one: readers of the JSON
// find [] and never null.
func withoutNull(st *Status) *Status {
	out := *st
	out.VIPs = list(st.VIPs)
	for i := range out.VIPs {
		out.VIPs[i].Services = list(out.VIPs[i].Services)
	}
	out.Services = list(st.Services)
	for i := range out.Services {
		out.Services[i].VIPs = list(out.Services[i].VIPs)
		out.Services[i].Ports = list(out.Services[i].Ports)
		out.Services[i].Tables = slices.Clone(out.Services[i].Tables)
	}
	out.Members = list(st.Members)
	out.Peers = list(st.Peers)
	return &out
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return slices.Clone(s)
}

// isClosed tells that err is how a listener ends that was told to.
func isClosed(err error) bool {
	return errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed)
}
