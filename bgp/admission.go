package bgp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// What a peer opens is not handed to GoBGP before its OPEN has come and is one
// that a session can follow from. Whoever calls from a peer's address without
// that costs no more than a socket for some seconds: GoBGP does not hear of it,
// the session goes on calling by itself, and the log tells each fault once.

const (
	// callBurst is how many calls of one peer are taken at once, and callEvery
	// passes from one to the next in the long run. A router calls again after a
	// second or more, and is through with the first.
	callBurst = 8
	callEvery = redialMaximum
	// maxCalls bounds the calls of one peer whose OPEN is waited for.
	maxCalls = 4
	// handOverTimeout bounds the wait for a session that has just lost a
	// connection to be ready for the next one.
	handOverTimeout = time.Second
	// maxTold bounds the reasons that are logged while a session is not up, each
	// of them once. What a caller writes may be in them.
	maxTold = 16
)

// call is a connection to the peer.
type call struct {
	*net.TCPConn
	// open is the OPEN that was read from it already, header included; nil:
	// none was.
	open []byte
}

// replay has the OPEN that was read before the connection was made be read by
// it.
func (c *connection) replay(open []byte) {
	if open != nil {
		c.in = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(open), c.TCPConn), c.in.Size())
	}
}

// take looks at a call of the peer's, in a goroutine of its own, and has the
// session serve it where one is wanted. An error is why it is not looked at; the
// caller closes it then.
func (s *session) take(tcp *net.TCPConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	local := tcp.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	switch {
	case s.peer.Source.IsValid() && s.peer.Source != local:
		return fmt.Errorf("it calls %s, not %s", local, s.peer.Source)
	case s.ctx == nil || s.ctx.Err() != nil:
		return errors.New("the session is not there any more")
	case s.current != nil:
		return errConnected
	case s.calls == maxCalls:
		return fmt.Errorf("there are %d calls already", maxCalls)
	case !s.mayCall():
		return fmt.Errorf("more than one call in %s", callEvery)
	}
	s.calls++
	s.looking.Go(func() {
		s.admit(s.ctx, tcp)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls--
	})
	return nil
}

var errConnected = errors.New("there is a connection already")

// mayCall takes one of the calls that the peer may make. It is called with mu
// held.
func (s *session) mayCall() bool {
	now := time.Now()
	if s.called.IsZero() {
		s.callsLeft, s.called = callBurst, now
	}
	s.callsLeft = min(callBurst, s.callsLeft+now.Sub(s.called).Seconds()/callEvery.Seconds())
	s.called = now
	if s.callsLeft < 1 {
		return false
	}
	s.callsLeft--
	return true
}

// admit waits for the OPEN and passes the connection on to the session, or
// closes it.
func (s *session) admit(ctx context.Context, tcp *net.TCPConn) {
	defer context.AfterFunc(ctx, func() { _ = tcp.Close() })()
	open, err := s.awaitOpen(tcp)
	if err == nil {
		err = tcp.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = tcp.Close()
		if ctx.Err() == nil {
			s.turnAway(err.Error())
		}
		return
	}
	timer := time.NewTimer(handOverTimeout)
	defer timer.Stop()
	select {
	case s.accepted <- call{tcp, open}:
		return
	case <-ctx.Done():
	case <-timer.C:
	}
	_ = tcp.Close()
}

// awaitOpen reads the OPEN of a peer that has called, header included. An error
// is the reason for the log, and the peer has been told of it.
func (s *session) awaitOpen(tcp *net.TCPConn) ([]byte, error) {
	if err := tcp.SetDeadline(time.Now().Add(openTimeout)); err != nil {
		return nil, err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	peer := s.configured()
	if err := control(raw, func(fd int) error { return setHops(fd, peer, s.external) }); err != nil {
		return nil, err
	}
	header := make([]byte, headerLength)
	if _, err := io.ReadFull(tcp, header); err != nil {
		return nil, withoutOpen(tcp, err)
	}
	length, kind := int(binary.BigEndian.Uint16(header[16:18])), header[18]
	switch {
	case !bytes.Equal(header[:16], marker16):
		return nil, refuseCall(tcp, bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_CONNECTION_NOT_SYNCHRONIZED)
	case length < headerLength || length > bgp.BGP_MAX_MESSAGE_LENGTH:
		return nil, refuseCall(tcp, bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_BAD_MESSAGE_LENGTH, header[16], header[17])
	}
	body := make([]byte, length-headerLength)
	if _, err := io.ReadFull(tcp, body); err != nil {
		return nil, withoutOpen(tcp, err)
	}
	switch kind {
	case bgp.BGP_MSG_OPEN:
	case bgp.BGP_MSG_NOTIFICATION:
		return nil, errors.New("peer closed: " + describeNotification(body))
	default:
		return nil, refuseCall(tcp, bgp.BGP_ERROR_FSM_ERROR, bgp.BGP_ERROR_SUB_RECEIVE_UNEXPECTED_MESSAGE_IN_OPENSENT_STATE, kind)
	}
	o, ok := parseOpen(body)
	switch {
	case !ok:
		return nil, refuseCall(tcp, bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, 0)
	case body[0] != 4:
		return nil, refuseCall(tcp, bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_UNSUPPORTED_VERSION_NUMBER, 0, 4)
	case o.as != s.as:
		_ = refuseCall(tcp, bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_PEER_AS)
		return nil, errors.New(wrongAS(o.as, s.as))
	case binary.BigEndian.Uint32(body[5:9]) == 0:
		return nil, refuseCall(tcp, bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_BAD_BGP_IDENTIFIER)
	case body[3] == 0 && (body[4] == 1 || body[4] == 2): // RFC 4271 section 4.2
		return nil, refuseCall(tcp, bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, bgp.BGP_ERROR_SUB_UNACCEPTABLE_HOLD_TIME)
	}
	return append(header, body...), nil
}

// withoutOpen is why no OPEN could be read.
func withoutOpen(tcp *net.TCPConn, err error) error {
	reason := socketError(err)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("peer did not complete the session within %s", openTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		reason = "peer closed the connection"
	}
	return fmt.Errorf("%s without an OPEN (does it have %s as a neighbor?)", reason, tcp.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
}

// refuseCall tells the peer why its call is not taken, and returns that.
func refuseCall(tcp *net.TCPConn, code, subcode byte, data ...byte) error {
	body := append([]byte{code, subcode}, data...)
	if err := tcp.SetWriteDeadline(time.Now().Add(time.Second)); err == nil {
		_, _ = tcp.Write(frame(bgp.BGP_MSG_NOTIFICATION, body))
	}
	return errors.New("closed by us: " + describeNotification(body))
}

// wrongAS is why a peer is refused that is in another AS than it should be.
func wrongAS(is, want uint32) string {
	return fmt.Sprintf("closed by us: peer is in AS %d, not in AS %d", is, want)
}
