package load

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// maxAgentAnswer bounds what is read of the file; HAProxy reads no more than a
// line.
const maxAgentAnswer = 4096

// AgentServer answers every connection with the content of a file and closes:
// what `socat TCP-LISTEN:5555,fork SYSTEM:"cat FILE"` does for HAProxy's
// agent checks. Where the file is missing it answers nothing, as socat would,
// and HAProxy then changes nothing.
type AgentServer struct {
	// File is read anew for each connection.
	File string

	mu        sync.Mutex
	listeners []net.Listener
	closed    bool
}

// Serve answers on l until Close, and returns nil after it.
func (s *AgentServer) Serve(l net.Listener) error {
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return l.Close()
	}
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		go s.answer(c)
	}
}

func (s *AgentServer) answer(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	f, err := os.Open(s.File)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = io.CopyN(c, f, maxAgentAnswer)
}

// Close closes the listeners; answers under way are a line and end by themselves.
func (s *AgentServer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
