package lab

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"lb4d/agent"
	"lb4d/lab/load"
)

// served is a server of a host, run by the lab itself on a socket that was
// opened inside the host.
type served struct {
	host  string
	place *place
	spec  Server
	root  string // the host's own directories, seen from outside

	mu      sync.Mutex
	server  io.Closer // nil while stopped
	started time.Time
}

// start opens the socket and serves, unless it does already.
func (s *served) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return nil
	}
	if s.spec.Kind == Agent {
		// The same server that lb7d -agent-check is, without a process for it.
		var answers *agent.Server
		err := s.place.do(func() (err error) {
			answers, err = agent.New(agent.Options{File: filepath.Join(s.root, s.spec.File), Listen: []netip.AddrPort{s.spec.Listen}}, slog.New(slog.DiscardHandler))
			return err
		})
		if err != nil {
			return fmt.Errorf("starting %s on %s: %w", s.spec.Kind, s.host, err)
		}
		s.started, s.server = time.Now(), answers
		return nil
	}
	var l net.Listener
	err := s.place.do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", s.spec.Listen.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("starting %s on %s: %w", s.spec.Kind, s.host, err)
	}
	s.started = time.Now()
	origin := &load.Server{Name: s.host}
	s.server = origin
	go func() { _ = origin.Serve(l) }()
	return nil
}

// stop closes the socket; requests in progress are cut off.
func (s *served) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		s.server.Close()
		s.server = nil
	}
}

// state tells since when it serves, if it does.
func (s *served) state() (started time.Time, running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started, s.server != nil
}
