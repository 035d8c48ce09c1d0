package bgp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// GoBGP parses what it reads in this process, and its parser has paniced on
// crafted messages before. So it reads nothing that a peer has written: each
// message is taken apart here, where little can be wrong, and GoBGP is given
// another one that says the same as far as it matters.
//
//	OPEN            the same without the capabilities that nobody uses
//	KEEPALIVE       the same
//	NOTIFICATION    code and subcode; the text is in the log already
//	ROUTE-REFRESH   the same for the two families, so many a second
//	UPDATE          an End-of-RIB marker as it is, any other as a KEEPALIVE;
//	                what it says of the VIPs is kept in siblings.go
//
// A KEEPALIVE has the same effect on the hold timer as an UPDATE, and no other.
// What cannot be taken apart ends the session with a NOTIFICATION, as GoBGP
// would have ended it.

const (
	// longestEndOfRIB is the length of the longest End-of-RIB marker (RFC 4724
	// section 2): an UPDATE with an empty MP_UNREACH_NLRI whose attribute
	// length takes two bytes.
	longestEndOfRIB = headerLength + 4 + 7
	// refreshLength is that of a ROUTE-REFRESH, RFC 2918 section 3. Those with
	// filters (RFC 5291) are longer, and were not offered.
	refreshLength = headerLength + 4
	// GoBGP answers each ROUTE-REFRESH with the whole table, and queues the
	// answers without bound. refreshBurst may come at once, and refreshRate
	// a second on the average.
	refreshBurst = 16
	refreshRate  = 1
)

// errRefused ends a session whose peer sent what cannot be read.
var errRefused = errors.New("the peer sent what cannot be read")

// Read gives GoBGP what the peer sent, message by message.
func (c *connection) Read(p []byte) (int, error) {
	for len(c.give) == 0 {
		if err := c.next(); err != nil {
			c.failed(err)
			return 0, err
		}
	}
	n := copy(p, c.give)
	c.give = c.give[n:]
	return n, nil
}

// next looks at the next message and decides what GoBGP is given in its place.
// It may be called again after an error: GoBGP stops a read by setting its
// deadline to now.
func (c *connection) next() error {
	for c.skip > 0 {
		n, err := c.in.Discard(c.skip)
		c.skip -= n
		if err != nil {
			return err
		}
	}
	header, err := c.in.Peek(headerLength)
	if err != nil {
		return err
	}
	// The header is gone from the buffer when more is read.
	length, kind := int(binary.BigEndian.Uint16(header[16:18])), header[18]
	whole := length
	if !bytes.Equal(header[:16], marker16) {
		return c.refuse(bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_CONNECTION_NOT_SYNCHRONIZED)
	}
	badLength := func() error {
		return c.refuse(bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_BAD_MESSAGE_LENGTH, header[16], header[17])
	}
	if length < headerLength {
		return badLength()
	}
	// body is that of a message that fits into the buffer.
	body := func() ([]byte, error) {
		message, err := c.in.Peek(length)
		if err != nil {
			return nil, err
		}
		return message[headerLength:], nil
	}
	switch kind {
	case bgp.BGP_MSG_OPEN:
		if length > bgp.BGP_MAX_MESSAGE_LENGTH {
			return badLength()
		}
		b, err := body()
		if err != nil {
			return err
		}
		o, ok := parseOpen(b)
		if !ok {
			return c.refuse(bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, 0)
		}
		c.heardOpen(o)
		c.give = frame(kind, o.clean)
	case bgp.BGP_MSG_KEEPALIVE:
		if length != headerLength {
			return badLength()
		}
		c.advance(stateOpenConfirm, stateEstablished)
		c.give = frame(kind, nil)
	case bgp.BGP_MSG_NOTIFICATION:
		length = min(length, c.in.Size()) // the longest text is shorter
		b, err := body()
		if err != nil {
			return err
		}
		c.end("peer closed: " + describeNotification(b))
		if len(b) < 2 {
			return io.EOF
		}
		c.give = frame(kind, b[:2])
	case bgp.BGP_MSG_ROUTE_REFRESH:
		c.give = frame(bgp.BGP_MSG_KEEPALIVE, nil)
		if length == refreshLength {
			b, err := body()
			if err != nil {
				return err
			}
			if b[2] == 0 && ours(b[0], b[1], b[3]) && c.mayRefresh() {
				c.give = frame(kind, b)
			}
		}
	case bgp.BGP_MSG_UPDATE:
		c.give = frame(bgp.BGP_MSG_KEEPALIVE, nil)
		if !c.established() {
			// GoBGP knows what to answer to one that comes too early.
			c.give = frame(kind, make([]byte, 4))
		} else if length <= longestEndOfRIB || c.source != nil {
			b, err := body()
			if err != nil {
				c.give = nil
				return err
			}
			if family, ok := endOfRIB(b); ok {
				c.give = frame(kind, b)
				c.source.ended(familyBits(family))
			} else {
				c.source.read(b, c.identified())
			}
		}
	default:
		return c.refuse(bgp.BGP_ERROR_MESSAGE_HEADER_ERROR, bgp.BGP_ERROR_SUB_BAD_MESSAGE_TYPE, kind)
	}
	c.skip = whole
	return nil
}

// marker16 begins every message, RFC 4271 section 4.1.
var marker16 = bytes.Repeat([]byte{0xff}, 16)

// frame is a message with a body.
func frame(kind byte, body []byte) []byte {
	m := append(make([]byte, 0, headerLength+len(body)), marker16...)
	m = binary.BigEndian.AppendUint16(m, uint16(headerLength+len(body)))
	return append(append(m, kind), body...)
}

// refuse ends the session with a NOTIFICATION.
func (c *connection) refuse(code, subcode byte, data ...byte) error {
	body := append([]byte{code, subcode}, data...)
	c.end("closed by us: " + describeNotification(body))
	// What GoBGP may be writing ends with that too.
	if err := c.TCPConn.SetWriteDeadline(time.Now().Add(time.Second)); err == nil {
		_, _ = c.TCPConn.Write(frame(bgp.BGP_MSG_NOTIFICATION, body))
	}
	return errRefused
}

// mayRefresh takes one of the refreshes that may be passed on.
func (c *connection) mayRefresh() bool {
	now := time.Now()
	if c.refreshed.IsZero() {
		c.refreshes, c.refreshed = refreshBurst, now
	}
	c.refreshes = min(refreshBurst, c.refreshes+refreshRate*now.Sub(c.refreshed).Seconds())
	c.refreshed = now
	if c.refreshes < 1 {
		return false
	}
	c.refreshes--
	return true
}

// heardOpen notes what an OPEN says of the peer. Whether it is acceptable is
// for GoBGP to say.
func (c *connection) heardOpen(o opening) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.peerAS, c.families, c.helps = true, o.as, o.families, o.gracefulRestart
	c.sends, c.refreshable = o.sends, o.refreshes
}
