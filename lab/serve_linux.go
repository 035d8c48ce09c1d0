package lab

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"
)

// served is a server of a host, run by the lab itself on a socket that was
// opened inside the host.
type served struct {
	host  string
	place *place
	spec  Server
	root  string // the host's own directories, seen from outside

	mu       sync.Mutex
	listener net.Listener
	started  time.Time
}

// start opens the socket and serves, unless it does already.
func (s *served) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
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
	s.listener, s.started = l, time.Now()
	go serveTemporary(l, s.spec.Kind, s.host, filepath.Join(s.root, s.spec.File))
	return nil
}

// stop closes the socket; requests in progress are cut off.
func (s *served) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
}

// state tells since when it serves, if it does.
func (s *served) state() (started time.Time, running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started, s.listener != nil
}
