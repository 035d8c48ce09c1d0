package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listener is one address that is listened on.
type listener struct {
	*net.TCPListener
	asked, address netip.AddrPort // as in Options.Listen, and with its true port
	once           sync.Once
	stopped        chan struct{}
}

// Close may be called more than once.
func (l *listener) Close() (err error) {
	l.once.Do(func() {
		close(l.stopped)
		err = l.TCPListener.Close()
	})
	return err
}

// listen returns a listener for each address: those that are open already, and
// new ones. On an error no new one is left open.
func (s *Server) listen(addresses []netip.AddrPort) (all, opened []*listener, err error) {
	for _, a := range addresses {
		i := slices.IndexFunc(s.listeners, func(l *listener) bool { return l.asked == a && !slices.Contains(all, l) })
		if i >= 0 {
			all = append(all, s.listeners[i])
			continue
		}
		l, err := open(a)
		if err != nil {
			for _, l := range opened {
				l.Close()
			}
			return nil, nil, err
		}
		all, opened = append(all, l), append(opened, l)
	}
	return all, opened, nil
}

func open(a netip.AddrPort) (*listener, error) {
	network, level, option := "tcp4", unix.SOL_IP, unix.IP_FREEBIND
	if a.Addr().Is6() {
		network, level, option = "tcp6", unix.SOL_IPV6, unix.IPV6_FREEBIND
	}
	// The address may come later than this process, or go and come back.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, 1) })
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(context.Background(), network, a.String())
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listening for agent checks on %s: another program has it: %w", a, syscall.EADDRINUSE)
		}
		return nil, fmt.Errorf("listening for agent checks: %w", err)
	}
	tcp := l.(*net.TCPListener)
	bound := tcp.Addr().(*net.TCPAddr).AddrPort()
	return &listener{
		TCPListener: tcp, asked: a, stopped: make(chan struct{}),
		address: netip.AddrPortFrom(a.Addr(), bound.Port()),
	}, nil
}

// accept takes connections until the listener is closed.
func (s *Server) accept(l *listener) {
	// Where there are no more file descriptors, trying again at once would
	// only take the processor as well.
	const pause = 50 * time.Millisecond
	failing := false
	for {
		c, err := l.AcceptTCP()
		select {
		case <-l.stopped:
			if err == nil {
				c.Close()
			}
			return
		default:
		}
		if err != nil {
			if !failing {
				s.log.Warn("accepting agent checks fails", "listen", l.address, "error", err)
			}
			failing = true
			select {
			case <-l.stopped:
				return
			case <-time.After(pause):
			}
			continue
		}
		if failing {
			s.log.Info("accepting agent checks works again", "listen", l.address)
			failing = false
		}
		s.serve(c)
	}
}

// serve answers one question.
func (s *Server) serve(c *net.TCPConn) {
	s.mu.Lock()
	timeout, room := s.options.Timeout, len(s.conns) < s.options.MaxConnections
	if s.closed {
		s.mu.Unlock()
		c.Close()
		return
	}
	if room {
		s.conns[c] = struct{}{}
	} else {
		s.status.Hurried++
	}
	s.mu.Unlock()
	c.SetDeadline(time.Now().Add(timeout))
	if !room {
		// The line fits the socket's empty buffer, so this does not wait.
		io.WriteString(c, s.answer(true))
		c.Close()
		return
	}
	s.done.Go(func() {
		defer func() {
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
		if _, err := io.WriteString(c, s.answer(true)); err != nil {
			return // gone already; it asks again
		}
		c.CloseWrite()
		// To close with a question unread (agent-send) is to reset the
		// connection, and the answer may be lost with it.
		_, _ = io.CopyN(io.Discard, c, maxFile)
	})
}
