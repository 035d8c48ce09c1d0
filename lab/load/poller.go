package load

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for many sockets at once. Its own epoll descriptor stands under
// Go's network poller, so that waiting blocks no thread.
//
// Plain net connections would be simpler and cost twice as much where
// it matters: in a User-Mode Linux guest a system call takes 20 µs and asking for
// the time is two of them, which Go does for each deadline and most switches
// between goroutines. One goroutine that looks at the clock once for all
// that is ready makes few calls. The benchmarks compare.
type poller struct {
	file     *os.File
	raw      syscall.RawConn
	fd       int
	closed   atomic.Bool
	deadline time.Time // as set on file
	events   [128]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a poller: %w", err)
	}
	// Only a descriptor that does not block is put under Go's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("making a poller: %w", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("making a poller: %w", err)
	}
	return p, nil
}

// ended are the events after which an end of file, or an error, is to be read.
// It must be read at once: what came together is told of together, once.
const ended = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

// add watches a socket, edge-triggered, both ways. Closing it ends that.
func (p *poller) add(fd int) error {
	e := unix.EpollEvent{Fd: int32(fd), Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&(1<<32-1)}
	var err error
	closed := p.raw.Control(func(epoll uintptr) { err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, fd, &e) })
	if err = errors.Join(closed, err); err != nil {
		return fmt.Errorf("watching a socket: %w", err)
	}
	return nil
}

// ready returns what has happened, without waiting.
func (p *poller) ready() []unix.EpollEvent {
	n, err := unix.EpollWait(p.fd, p.events[:], 0)
	if err != nil {
		return nil // EINTR: the next call has it.
	}
	return p.events[:n]
}

// wait returns what has happened, at least one event, or none at the deadline.
// A zero deadline waits for ever. The error is os.ErrClosed after close.
func (p *poller) wait(deadline time.Time) (events []unix.EpollEvent, err error) {
	if deadline != p.deadline { // To set it asks for the time.
		p.deadline = deadline
		p.file.SetReadDeadline(deadline)
	}
	err = p.raw.Read(func(uintptr) bool {
		events = p.ready()
		return len(events) > 0
	})
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return events, nil
	case p.closed.Load():
		// What a raw connection returns then has no name outside of Go's own packages.
		return nil, os.ErrClosed
	}
	return nil, fmt.Errorf("waiting for sockets: %w", err)
}

// close ends wait, from any goroutine.
func (p *poller) close() {
	p.closed.Store(true)
	p.file.Close()
}
