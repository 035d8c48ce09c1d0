package bgp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	// subcodeBFDDown is the subcode of Cease of RFC 9384.
	subcodeBFDDown = 10
	// dropTimeout bounds the wait for a writer that is stuck on the connection.
	dropTimeout = 100 * time.Millisecond
)

// DropBFDDown ends the session with a peer at once, because BFD has found the
// way to it broken; reason is that in words. The peer is told so (RFC 9384), in
// case it can hear it; its own BFD removes the routes if not. The next session
// is begun as after any other loss. Without a session nothing is done.
func (s *Speaker) DropBFDDown(peer netip.Addr, reason string) {
	s.sessionsMu.RLock()
	session := s.sessions[peer]
	s.sessionsMu.RUnlock()
	if session == nil {
		return
	}
	session.mu.Lock()
	c, established := session.current, session.state == stateEstablished
	session.mu.Unlock()
	if c == nil || !established {
		return
	}
	c.end(fmt.Sprintf("BFD: %s", reason))
	// What GoBGP may be writing ends with that too.
	if err := c.TCPConn.SetWriteDeadline(time.Now().Add(dropTimeout)); err == nil {
		_, _ = c.TCPConn.Write(frame(bgp.BGP_MSG_NOTIFICATION, []byte{bgp.BGP_ERROR_CEASE, subcodeBFDDown}))
	}
	_ = c.Close()
}
