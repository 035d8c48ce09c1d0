package bgp

import (
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Graceful restart, RFC 4724, is one-sided here: peers keep our routes while
// the process is another one, and of theirs there are none that could be kept.
//
// GoBGP announces the capability and sends the End-of-RIB markers, at once
// after the table of a new session. What it would make of the two bits does not
// fit: it says that forwarding was preserved if and only if it holds its own
// updates back for the peers' markers. So connection.Write sets the bits, and
// GoBGP knows of no restart, neither of ours nor of a peer's.
//
// The N bit of RFC 8538 is never set: with it, peers would keep the routes of a
// host whose hold timer has expired, and such a host may be dead.

// MaxGracefulRestart bounds Peer.GracefulRestart: the time travels as 12 bits
// of seconds, RFC 4724 section 3.
const MaxGracefulRestart = 4095 * time.Second

const (
	// restartState is the R bit, in the byte before the time; forwardingState
	// the F bit of a family.
	restartState    = 0x80
	forwardingState = 0x80
)

// noRestart is the value of the capability as GoBGP is given it: the peer
// wants End-of-RIB markers, and has no routes to be kept.
var noRestart = []byte{0, 0}

// restart is what the sessions of a process that has just started say of the
// one before it.
type restart struct {
	preserved Families // none: 0
	since     time.Time
	// over tells that the peer has heard of it: there has been a session.
	over bool
}

// offer is what one OPEN says.
type offer struct {
	restarted bool
	preserved Families // none: 0
}

// offer is what the next OPEN to the peer is to say.
//
// Once there has been a session with this process, the peer's routes are this
// process's, and forwarding does not depend on sessions: should one be lost,
// the peer may keep the routes until the next one is up. Before that the peer
// may have those of a process that is gone, for as long as it was asked to.
func (s *session) offer(p Peer) offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.restart.over:
		return offer{preserved: IPv4 | IPv6}
	case s.restart.preserved != 0 && time.Since(s.restart.since) < p.GracefulRestart:
		return offer{restarted: true, preserved: s.restart.preserved}
	}
	return offer{}
}

// agree notes what came of the offer when the session is up, and returns it for
// the log. It is called with mu held.
func (s *session) agree() (agreed []any) {
	s.restart.over, s.keeps = true, 0
	c := s.current
	switch {
	case s.peer.GracefulRestart == 0 || c == nil:
		return nil
	case !c.helped():
		return []any{"graceful_restart", "not offered by the peer"}
	}
	s.keeps = s.peer.GracefulRestart
	agreed = []any{"graceful_restart", s.keeps}
	if c.offer.restarted {
		agreed = append(agreed, "kept", c.offer.preserved)
	}
	return agreed
}

// helped reports whether the peer offers graceful restart.
func (c *connection) helped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.helps
}

// abandon closes the connection before GoBGP can say goodbye on it.
func (c *connection) abandon() {
	c.end(errAbandoned.Error())
	_ = c.TCPConn.Close()
}

// mark makes of an OPEN of GoBGP's one that says what is offered.
func (o offer) mark(message []byte) []byte {
	marked := slices.Clone(message)
	if len(message) < headerLength+openLength {
		return marked
	}
	capabilities(marked[headerLength:], func(code byte, value []byte) {
		if bgp.BGPCapabilityCode(code) != bgp.BGP_CAP_GRACEFUL_RESTART || len(value) < 2 {
			return
		}
		value[0] &= 0x0f // the upper half of the time
		if o.restarted {
			value[0] |= restartState
		}
		for tuple := range slices.Chunk(value[2:], 4) {
			if len(tuple) < 4 {
				continue
			}
			tuple[3] = 0
			family := IPv4
			if tuple[1] == bgp.AFI_IP6 {
				family = IPv6
			}
			if o.preserved&family != 0 {
				tuple[3] = forwardingState
			}
		}
	})
	return marked
}

// askToKeep is what GoBGP is told of the graceful restart of a peer, and of
// each of its families.
func askToKeep(p Peer, carried []*api.AfiSafi) *api.GracefulRestart {
	if p.GracefulRestart == 0 {
		return nil
	}
	for _, f := range carried {
		f.MpGracefulRestart = &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}}
	}
	return &api.GracefulRestart{Enabled: true, RestartTime: uint32(p.GracefulRestart / time.Second)}
}

// Abandon ends the speaker without a word, as the end of the process would:
// nothing is withdrawn, and the peers see their connections closed. Those that
// agreed to (Peer.GracefulRestart) keep the routes for the process that comes
// next; the others drop them. The speaker cannot be used afterwards.
func (s *Speaker) Abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.closeListeners()
	s.stopSessions(func(*session) error { return errAbandoned })
	s.accepting.Wait()
	s.server.Stop()
}
