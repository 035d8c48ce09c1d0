package load

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dripEvery is how often a piece of a slow body is sent, and dripGrid
	// the moments at which that is done, for all bodies that are due then:
	// each wake-up costs something in the server, the proxy and the client.
	dripEvery = 500 * time.Millisecond
	// maxDripEvery is the longest that a client may ask for in its place.
	maxDripEvery = time.Minute
	dripGrid     = 50 * time.Millisecond
	// maxVisits bounds a Server's connections; more are closed at once.
	maxVisits = 16 << 10
	// idleLimit is how long a connection may say nothing.
	idleLimit = 2 * time.Minute
)

// Server answers requests as a back-end host of the lab does. It understands
// the PROXY protocol, version 1, from whoever begins with it.
//
//	/                             a line with the server's name and the client's address
//	/slow?seconds=8&bytes=65536   the pattern, dripped evenly over the time, in
//	                              pieces of half a second, or of every=SECONDS
//	/healthcheck                  200
//
// Each answer is signed in X-Server. A zero Server with a Name is ready.
type Server struct {
	// Name is what X-Server says.
	Name string

	mu     sync.Mutex
	closed bool
	halls  []*hall
}

// Serve answers on l, a TCP listener, until Close, and returns nil then. It may
// be called for several listeners. To close l alone does not end it.
func (s *Server) Serve(l net.Listener) error {
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
	e := &service{s: s, hall: h, visits: make(map[int32]*visit), drips: make(map[int32]*visit)}
	return e.run()
}

// Close closes the listeners and cuts off what is in flight.
func (s *Server) Close() error {
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

// hall is a listener under a poller.
type hall struct {
	l      net.Listener
	raw    syscall.RawConn
	fd     int32
	poller *poller
}

func newHall(l net.Listener) (*hall, error) {
	c, ok := l.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("serving on %s: %T has no socket", l.Addr(), l)
	}
	h := &hall{l: l}
	var err error
	if h.raw, err = c.SyscallConn(); err != nil {
		return nil, fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	if h.poller, err = newPoller(); err != nil {
		return nil, fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	ctlErr := h.raw.Control(func(fd uintptr) {
		h.fd = int32(fd)
		err = h.poller.add(int(fd))
	})
	if err = errors.Join(ctlErr, err); err != nil {
		h.poller.close()
		return nil, fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return h, nil
}

// accept returns the next connection, and false where there is none. It
// goes past the listener's own Accept, which would set options and ask for
// addresses that nobody needs.
func (h *hall) accept() (fd int, peer syscall.Sockaddr, ok bool) {
	err := h.raw.Control(func(l uintptr) {
		for {
			var err error
			// Not unix.Accept4, which asks each socket for its protocol.
			fd, peer, err = syscall.Accept4(int(l), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if ok = err == nil; ok || !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
				return
			}
		}
	})
	return fd, peer, ok && err == nil
}

// close ends what waits on the poller.
func (h *hall) close() error {
	h.poller.close()
	err := h.l.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// service is one Serve, in one goroutine.
type service struct {
	*hall
	s      *Server
	visits map[int32]*visit
	drips  map[int32]*visit // those that are being sent a body
	grid   time.Time        // when to look at them, zero where there are none
	swept  time.Time
	buf    [16 << 10]byte
}

func (e *service) run() error {
	defer func() {
		for _, v := range e.visits {
			unix.Close(v.fd)
		}
		e.l.Close()
	}()
	for {
		events, err := e.poller.wait(e.grid)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serving on %s: %w", e.l.Addr(), err)
		}
		now := time.Now()
		for _, ev := range events {
			if ev.Fd == e.fd {
				e.welcome(now)
			} else if v := e.visits[ev.Fd]; v != nil {
				e.attend(v, ev.Events, now)
			}
		}
		if len(e.drips) > 0 && !now.Before(e.grid) {
			for _, v := range e.drips {
				e.carryOn(v, v.answer(e.s, now), now)
			}
		}
		if now.Sub(e.swept) > idleLimit/4 {
			e.sweep(now)
		}
		e.schedule(now)
	}
}

// welcome takes all connections that have come. Most have said what they want
// by then.
func (e *service) welcome(now time.Time) {
	for {
		fd, peer, ok := e.accept()
		if !ok {
			return
		}
		if len(e.visits) >= maxVisits || e.poller.add(fd) != nil {
			unix.Close(fd)
			continue
		}
		v := &visit{fd: fd, client: peerName(peer), last: now}
		e.visits[int32(fd)] = v
		e.attend(v, unix.EPOLLIN, now)
	}
}

// attend does what an event allows.
func (e *service) attend(v *visit, events uint32, now time.Time) {
	ok := true
	if events&(unix.EPOLLIN|ended) != 0 {
		ok = v.read(e.buf[:], events&ended != 0, now)
	}
	if ok && len(v.out) > 0 {
		ok = v.flush()
		if ok && len(v.out) == 0 && v.drip != nil {
			ok = v.pour(now)
		}
	}
	e.carryOn(v, ok && v.answer(e.s, now), now)
}

// carryOn sends what is due of a body, and takes leave where it is over.
func (e *service) carryOn(v *visit, ok bool, now time.Time) {
	for ok && v.drip != nil && len(v.out) == 0 && !now.Before(v.drip.due()) {
		// A request that came during the body is answered after it.
		ok = v.pour(now) && v.answer(e.s, now)
	}
	switch {
	case !ok:
		delete(e.visits, int32(v.fd))
		delete(e.drips, int32(v.fd))
		unix.Close(v.fd)
	case v.drip != nil:
		e.drips[int32(v.fd)] = v
	default:
		delete(e.drips, int32(v.fd))
	}
}

// schedule sets the time of the next drips.
func (e *service) schedule(now time.Time) {
	switch {
	case len(e.drips) == 0:
		e.grid = time.Time{}
	case !e.grid.After(now):
		e.grid = now.Truncate(dripGrid).Add(dripGrid)
	}
}

// sweep ends connections that have said nothing for long.
func (e *service) sweep(now time.Time) {
	e.swept = now
	for _, v := range e.visits {
		if v.drip == nil && now.Sub(v.last) > idleLimit {
			e.carryOn(v, false, now)
		}
	}
}
