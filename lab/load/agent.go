package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
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

	mu     sync.Mutex
	closed bool
	halls  []*hall
}

// Serve answers on l, a TCP listener, until Close, and returns nil then. It may
// be called for several listeners. To close l alone does not end it.
func (s *AgentServer) Serve(l net.Listener) error {
	h, err := newHall(l)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.halls = append(s.halls, h)
	closed := s.closed
	s.mu.Unlock()
	if closed {
		h.close()
	}
	for {
		_, err := h.poller.wait(time.Time{})
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serving on %s: %w", l.Addr(), err)
		}
		for {
			fd, _, ok := h.accept()
			if !ok {
				break
			}
			if b := s.answer(); len(b) > 0 {
				// A new socket's buffer takes it; a peer that is gone is no fault.
				_, _ = unix.Write(fd, b)
			}
			unix.Close(fd)
		}
	}
}

// answer reads the file.
func (s *AgentServer) answer() []byte {
	f, err := os.Open(s.File)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAgentAnswer))
	if err != nil {
		return nil
	}
	return b
}

// Close closes the listeners.
func (s *AgentServer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, h := range s.halls {
		errs = append(errs, h.close())
	}
	s.halls = nil
	return errors.Join(errs...)
}
