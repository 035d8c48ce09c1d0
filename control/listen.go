package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

// tcpServer is what serves /metrics, /healthz and the read-only API over TCP.
type tcpServer struct {
	addr     string // as SetListen was given it
	listener net.Listener
	server   *http.Server
}

// SetListen makes addr (host:port) the address of the TCP listener; empty:
// none. The new one listens before the old one closes, and when it cannot, the
// old one stays and the error says what to do. It blocks no longer than the
// name in addr takes to resolve, two seconds at most.
func (s *Server) SetListen(addr string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("listening on %s: the control server is closed", addr)
	}
	old := s.tcp
	if old == nil && addr == "" || old != nil && old.addr == addr {
		return nil
	}
	if addr == "" {
		s.log.Info("http listener closed", "listen", old.addr)
		s.tcp = nil
		s.stop(old.server)
		return nil
	}
	l, err := listenTCP(addr)
	if errors.Is(err, syscall.EADDRINUSE) && old != nil && samePort(old.listener.Addr().String(), addr) {
		// The kernel lets no two sockets listen on one port of addresses
		// that overlap, as 127.0.0.1:9404 and :9404 do. So it is the old
		// one that may be in the way.
		l, err = s.replace(old, addr)
	}
	if err != nil {
		return err
	}
	s.log.Info("http listener open", "listen", l.Addr().String())
	s.tcp = s.serveTCP(addr, l)
	if old != nil {
		s.stop(old.server)
	}
	return nil
}

// replace closes old's listener to listen on addr, and opens it again where
// that did not help. Requests in progress on old go on.
func (s *Server) replace(old *tcpServer, addr string) (net.Listener, error) {
	at := old.listener.Addr().String()
	_ = old.listener.Close()
	l, err := listenTCP(addr)
	if err == nil {
		return l, nil
	}
	again, back := listenTCP(at)
	s.stop(old.server)
	if back != nil {
		s.tcp = nil
		return nil, fmt.Errorf("%w; and the old listener could not be opened again: %w", err, back)
	}
	s.tcp = s.serveTCP(old.addr, again)
	return nil, err
}

func (s *Server) serveTCP(addr string, l net.Listener) *tcpServer {
	t := &tcpServer{addr: addr, listener: l, server: boundedServer(http.MaxBytesHandler(s.routes(), maxBodyBytes), s.log)}
	s.serve(t.server, l)
	return t
}

// HTTPAddr is where the TCP listener listens, with the port that the kernel
// chose where it was asked for port 0; nil while there is none.
func (s *Server) HTTPAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tcp == nil {
		return nil
	}
	return s.tcp.listener.Addr()
}

func listenTCP(addr string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	hint := "set [http] listen to an address and port of this host"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(addr)
		hint = fmt.Sprintf("find who has it with ss -ltnp 'sport = :%s', or set another [http] listen", port)
	case errors.Is(err, syscall.EACCES):
		hint = "set [http] listen to a port above 1023, or give lb4d CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "this host has no such address; set [http] listen to one that it has"
	}
	return nil, fmt.Errorf("listening on %s for [http] listen: %w: %s", addr, cause(err), hint)
}

// cause is the innermost part of a network error: the rest repeats the
// address, which the caller has named.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// samePort tells whether a and b name the same port.
func samePort(a, b string) bool {
	_, p, err := net.SplitHostPort(a)
	_, q, err2 := net.SplitHostPort(b)
	return err == nil && err2 == nil && p == q
}
