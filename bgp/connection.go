package bgp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// The states of a session as PeerStatus shows them.
const (
	stateIdle        = "idle"
	stateConnect     = "connect"
	stateActive      = "active"
	stateOpenSent    = "opensent"
	stateOpenConfirm = "openconfirm"
	stateEstablished = "established"
)

const headerLength = bgp.BGP_HEADER_LENGTH

// connection is one TCP connection to a peer, in the hands of GoBGP. It
// watches the messages that pass and knows from them how far the session has
// come and why it ended. What GoBGP is given of those that come is in
// inbound.go.
//
// GoBGP reads from one goroutine at a time and writes whole messages.
type connection struct {
	*net.TCPConn
	// sendHold bounds how long one message may wait for the peer to read,
	// after the fashion of RFC 9687. Without it a peer that lives and reads
	// nothing would hold GoBGP's writer, and all that queues behind it, for
	// ever.
	sendHold time.Duration
	// offer is what the OPEN says of graceful restart.
	offer offer
	// wantAS is what the peer's OPEN should say.
	wantAS uint32

	// source takes in what the peer announces; nil: nothing is read of it.
	source *source

	in   *bufio.Reader
	skip int    // bytes of the last message that are still to be dropped
	give []byte // what GoBGP has yet to read in its place
	// refreshes may still be passed on, since the time refreshed.
	refreshes float64
	refreshed time.Time

	// poked has an element after something below changed; done is closed with
	// the connection.
	poked chan struct{}
	done  chan struct{}
	once  sync.Once

	mu       sync.Mutex
	state    string
	heard    bool // the peer's OPEN has come
	peerAS   uint32
	families []bgp.Family
	helps    bool // the peer offers graceful restart
	// takes are the families in which we have said that we take path
	// identifiers, sends those in which the peer would send them.
	takes, sends Families
	refreshable  bool // the peer knows ROUTE-REFRESH
	cause        string
	unbounded    bool // GoBGP has set no deadline for writes
	// awaited withdrawals are still to be sent until told is closed. It is nil
	// where nobody waits.
	awaited int
	told    chan struct{}
}

func newConnection(tcp *net.TCPConn, wantAS uint32, sendHold time.Duration, source *source) *connection {
	// An OPEN fits, the longest message that is looked into otherwise; and an
	// UPDATE of the length of RFC 8654, which GoBGP offers.
	longest := bgp.BGP_MAX_MESSAGE_LENGTH
	if source != nil {
		longest = math.MaxUint16
	}
	return &connection{
		source:    source,
		TCPConn:   tcp,
		sendHold:  sendHold,
		wantAS:    wantAS,
		in:        bufio.NewReaderSize(tcp, longest),
		poked:     make(chan struct{}, 1),
		done:      make(chan struct{}),
		state:     stateConnect,
		unbounded: true,
	}
}

// Write sends one message of GoBGP's.
func (c *connection) Write(b []byte) (int, error) {
	if len(b) >= headerLength {
		switch b[18] {
		case bgp.BGP_MSG_OPEN:
			if o, ok := parseOpen(b[headerLength:]); ok {
				c.mu.Lock()
				c.takes = o.takes
				c.mu.Unlock()
			}
			c.advance(stateConnect, stateOpenSent)
			b = c.offer.mark(b)
		case bgp.BGP_MSG_KEEPALIVE:
			c.advance(stateOpenSent, stateOpenConfirm)
		case bgp.BGP_MSG_NOTIFICATION:
			c.end(c.ourReason(b[headerLength:]))
		}
	}
	c.mu.Lock()
	unbounded := c.unbounded
	c.mu.Unlock()
	if unbounded {
		// GoBGP may set a deadline of its own in between. That happens as it
		// ends the session, and then costs at most the wait that would have
		// been allowed anyway.
		if err := c.TCPConn.SetWriteDeadline(time.Now().Add(c.sendHold)); err != nil {
			return 0, err
		}
	}
	n, err := c.TCPConn.Write(b)
	if err == nil && len(b) >= headerLength && b[18] == bgp.BGP_MSG_UPDATE {
		c.countWithdrawals(b[headerLength:])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.end(fmt.Sprintf("peer read nothing for %s", c.sendHold))
	} else if err != nil {
		c.failed(err)
	}
	return n, err
}

// SetWriteDeadline keeps to what GoBGP asks for; where it asks for none,
// Write sets one.
func (c *connection) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.unbounded = t.IsZero()
	c.mu.Unlock()
	return c.TCPConn.SetWriteDeadline(t)
}

// SyscallConn keeps GoBGP from setting options of the socket, those of when it
// was told of the peer. They are set before it gets the connection, and some
// of them again later (session.change). GoBGP notes the error and goes on.
func (c *connection) SyscallConn() (syscall.RawConn, error) {
	return nil, errors.ErrUnsupported
}

// control runs f on the socket.
func (c *connection) control(f func(fd int) error) error {
	raw, err := c.TCPConn.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, f)
}

// Close ends the connection. GoBGP closes it whenever a session ends.
func (c *connection) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() { close(c.done) })
	return err
}

// advance moves the session on, where it is in the state from.
func (c *connection) advance(from, to string) {
	c.mu.Lock()
	moved := c.state == from && (to != stateOpenConfirm || c.heard)
	if moved {
		c.state = to
	}
	c.mu.Unlock()
	if moved {
		select {
		case c.poked <- struct{}{}:
		default:
		}
	}
}

func (c *connection) established() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state == stateEstablished
}

// opened reports whether the peer's OPEN has come.
func (c *connection) opened() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard
}

// progress is the state that the session has reached, and the address families
// that the peer speaks.
func (c *connection) progress() (state string, families []bgp.Family) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, c.families
}

// canRefresh reports whether the peer knows ROUTE-REFRESH.
func (c *connection) canRefresh() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refreshable
}

// identified are the families in which the peer puts a path identifier before
// each prefix: we have said that we take them, and it that it sends them.
func (c *connection) identified() Families {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takes & c.sends
}

// awaitWithdrawals returns a channel that is closed when n withdrawals have
// been sent from now on. It is for one caller.
func (c *connection) awaitWithdrawals(n int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	told := make(chan struct{})
	if n == 0 {
		close(told)
		return told
	}
	c.awaited, c.told = n, told
	return told
}

// countWithdrawals counts those in the body of an UPDATE that was sent.
func (c *connection) countWithdrawals(body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told == nil {
		return
	}
	if c.awaited -= withdrawals(body); c.awaited <= 0 {
		close(c.told)
		c.told = nil
	}
}

// end notes why the session ends. The first reason counts: those after it are
// its consequences.
func (c *connection) end(cause string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == "" {
		c.cause = cause
	}
}

// reason is why the connection ended.
func (c *connection) reason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == "" {
		return "connection closed"
	}
	return c.cause
}

// failed notes an error of the socket, unless it is one that GoBGP caused to
// stop its own reading or writing.
func (c *connection) failed(err error) {
	reason := socketError(err)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
		return
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		reason = "peer closed the connection"
	}
	if !c.opened() {
		// That is how a router treats a stranger.
		reason += fmt.Sprintf(" without an OPEN (does it have %s as a neighbor?)",
			c.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
	}
	c.end(reason)
}

// ourReason explains a NOTIFICATION that GoBGP sends, with what the operator
// needs to know to put it right.
func (c *connection) ourReason(body []byte) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(body) < 2:
	case body[0] == bgp.BGP_ERROR_HOLD_TIMER_EXPIRED:
		return "hold timer expired: nothing heard from the peer"
	case body[0] == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && body[1] == bgp.BGP_ERROR_SUB_BAD_PEER_AS:
		return wrongAS(c.peerAS, c.wantAS)
	}
	return "closed by us: " + describeNotification(body)
}

// socketError is an error of the network without the addresses and the system
// call that package net puts before it: the peer is named next to it.
func socketError(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
